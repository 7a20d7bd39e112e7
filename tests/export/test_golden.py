"""Yesterday's artifacts load today, and bid what they bid yesterday; today's exporter writes the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from artifacts import (
    complete_blueprint,
    conversions_blueprint,
    crossed_blueprint,
    isotonic_blueprint,
    log_normal_blueprint,
    log_price_blueprint,
    uncertain_blueprint,
)

from bidml.blueprint import Blueprint
from bidml.certify import DEFAULT_EVALUATORS, verify
from bidml.export import model_bytes, rewritten_bytes, write_model
from bidml.graph import graph_of
from bidml.metadata import TOLERANCE, SelfCheck, difference, metadata_of
from bidml.score import Scorer
from bidml.score.reader import read_artifact
from bidml.self_check import self_check_of

MODELS = Path(__file__).resolve().parents[1] / "models"
NEWEST = {
    "every_part_of_the_format": complete_blueprint,
    "location_in_log_price": log_price_blueprint,
    "conversions": conversions_blueprint,
    "log_normal": log_normal_blueprint,
    "isotonic": isotonic_blueprint,
    "crosses": crossed_blueprint,
    "uncertain": uncertain_blueprint,
}

REQUESTS: list[dict[str, Any]] = [
    {
        "at": at,
        "imp": [{"bidfloor": floor, "bidfloorcur": "EUR"}],
        "device": {"geo": {"country": country, "lat": lat}},
        "ext": {"timestamp": hour * 3_600_000},
    }
    for at, floor, country, lat, hour in (
        (1, 0.0, "DEU", 52.5, 7), (1, 0.5, "USA", -40.0, 3), (1, 2.0, "Ελλάδα", None, 23), (1, 0.0, None, 0.0, 11),
        (2, 0.0, "DEU", -3.0, 12), (2, 900.0, "USA", 1.0, 0), (1, 0.01, "FRA", 1e-36, 20), (1, 3.5, "", 60.0, 8),
    )
]  # fmt: skip
LINE_ITEMS: list[dict[str, Any]] = [
    {"creative": "320x50", "value_per_click": 0.5, "cap_cpm": 8.0},
    {
        "creative": "other",
        "value_per_click": 20.0,
        "cap_cpm": 1000.0,
        "margin": 0.15,
        "pacing_multiplier": 0.7,
    },
]
CONVERSIONS: dict[str, Any] = {
    "creative": "other",
    "value_per_conversion": 900.0,
    "value_per_impression_cpm": 0.2,
    "cap_cpm": 1000.0,
    "margin": 0.15,
    "pacing_multiplier": 0.7,
}


def golden_check(blueprint: Blueprint) -> SelfCheck:
    """Every eighth of the rows made for a blueprint."""
    check = self_check_of(blueprint, {})
    columns = {name: column[::8] for name, column in check.columns.items()}
    return SelfCheck(columns, {name: column[::8] for name, column in check.expected.items()})


def line_items_of(scorer: Scorer) -> list[dict[str, Any]]:
    """Terms that the model can price."""
    if scorer.knows_uncertainty:
        return [LINE_ITEMS[0], {**CONVERSIONS, "risk_aversion": 0.5}]
    return [LINE_ITEMS[0], CONVERSIONS] if "cvr" in scorer.parts else LINE_ITEMS


def bids_of(scorer: Scorer) -> list[list[float]]:
    """One row per request, one bid per line item."""
    lines = [scorer.line_item(**line) for line in line_items_of(scorer)]
    return [[scorer.bid(request, line) for line in lines] for request in REQUESTS]


def leave(name: str) -> None:
    """Writes today's golden file of `NEWEST`; refuses to replace one."""
    path, blueprint = MODELS / f"{name}.onnx", NEWEST[name]()
    if path.exists():
        raise FileExistsError(path)
    write_model(model_bytes(blueprint, golden_check(blueprint)), path)
    scorer = Scorer.load(path)
    bids = [[bid_cpm.hex() for bid_cpm in row] for row in bids_of(scorer)]
    document = {"requests": REQUESTS, "line_items": line_items_of(scorer), "bids": bids}
    path.with_suffix(".bids.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_released_artifact_loads_and_bids_as_it_did(path: Path) -> None:
    """Certified by every evaluator of today, against the numbers of then."""
    verify(path, evaluators=DEFAULT_EVALUATORS)
    scorer = Scorer.load(path)
    document = json.loads(path.with_suffix(".bids.json").read_text())
    lines = [scorer.line_item(**line) for line in document["line_items"]]
    n_bids = 0
    for request, wanted in zip(document["requests"], document["bids"], strict=True):
        for line, text in zip(lines, wanted, strict=True):
            bid_cpm = scorer.bid(request, line)
            assert difference("bid_cpm", float.fromhex(text), bid_cpm) <= TOLERANCE
            n_bids += bid_cpm > 0.0
    assert n_bids > len(document["requests"])
    assert path.stat().st_size < 70_000


@pytest.mark.parametrize("name", NEWEST)
def test_the_exporter_still_writes_the_newest_golden_files(name: str) -> None:
    """To the byte; but the rows' expected values, whose last bits are those of the C library that computed them."""
    path, blueprint = MODELS / f"{name}.onnx", NEWEST[name]()
    artifact = read_artifact(path)
    assert rewritten_bytes(path.read_bytes()) == path.read_bytes()
    assert graph_of(artifact.blueprint) == graph_of(blueprint)
    today = golden_check(blueprint)
    assert {name: list(map(str, column)) for name, column in artifact.self_check.columns.items()} == {
        name: list(map(str, column)) for name, column in today.columns.items()
    }
    rows_of_then = SelfCheck(today.columns, artifact.self_check.expected)
    assert metadata_of(artifact.blueprint, artifact.self_check) == metadata_of(blueprint, rows_of_then)
    assert model_bytes(blueprint, rows_of_then) == path.read_bytes()
    for name, then in artifact.self_check.expected.items():
        for want, have in zip(then, today.expected[name], strict=True):
            assert difference(name, want, have) <= TOLERANCE


def test_a_golden_file_is_not_replaced() -> None:
    """It is history."""
    with pytest.raises(FileExistsError):
        leave("every_part_of_the_format")
