"""Crosses of categories in the scorer: every call finds the oracle's pair, whichever side holds its texts."""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from artifacts import DEVICES, PLACES, blueprints, crossed_blueprint
from decisions import artifact_of
from hypothesis import given, settings

from bidml.blueprint import Blueprint, CrossLookup, CtrBlueprint, Head, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.export import rewritten_bytes, write_artifact
from bidml.features import margins
from bidml.graph import graph_of
from bidml.metadata import TOLERANCE, difference, expected_names
from bidml.oracle import evaluate
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.why import margin_parts, why_this_price

TEXTS = ("", "DEU", "USA", "320x50", "other", "iOS", "no such text")
OUTPUTS = ("pctr", "pcvr", "bid_cpm", "win_rate")


def every_row(**money: float) -> dict[str, Any]:
    """All combinations of three texts."""
    rows = list(product(TEXTS, TEXTS, TEXTS))
    columns: dict[str, Any] = {
        name: [row[i] for row in rows] for i, name in enumerate(("country", "creative", "unused_text"))
    }
    numbers = {"hour": 7.0, "lat": -3.0, "unused_number": 0.0} | money
    return columns | {name: array("d", [x]) * len(rows) for name, x in numbers.items()}


PRICES = {
    "value_per_click": 3.0, "value_per_conversion": 70.0, "value_per_impression_cpm": 0.0, "floor_cpm": 0.0,
    "cap_cpm": 1e6, "pacing_multiplier": 1.0, "auction_type": 1.0,
}  # fmt: skip


def request_of(country: str, os: str) -> dict[str, Any]:
    geo: dict[str, Any] = {"lat": -3.0} | ({"country": country} if country else {})
    device: dict[str, Any] = {"geo": geo} | ({"os": os} if os else {})
    return {"at": 1, "imp": [{"instl": 0}], "device": device, "ext": {"timestamp": 7 * 3_600_000}}


def test_one_decision_a_batch_the_choice_of_the_best_and_an_explanation_say_the_same() -> None:
    """Known, half known, unseen and missing pairs of a request's text and a line item's: as the oracle has them."""
    blueprint = crossed_blueprint()
    scorer = Scorer(artifact_of(blueprint))
    columns = every_row(**PRICES)
    wanted = evaluate(blueprint, columns)
    n = len(columns["country"])
    found = {name: array("d", bytes(8 * n)) for name in OUTPUTS}
    scorer.score_many(columns, found)
    lines = {
        creative: scorer.line_item(
            creative=creative, value_per_click=3.0, value_per_conversion=70.0, cap_cpm=1e6
        )
        for creative in TEXTS
    }
    for i in range(n):
        request = request_of(columns["country"][i], columns["unused_text"][i])
        line = lines[columns["creative"][i]]
        explained = scorer.explain(request, line)
        for name in OUTPUTS:
            assert difference(name, wanted[name][i], found[name][i]) <= TOLERANCE
        assert explained.pctr == found["pctr"][i]
        assert explained.pcvr == found["pcvr"][i]
        assert scorer.bid(request, line) == explained.bid_cpm > 0.0
        assert scorer.best(request, [line]) == (0, explained.bid_cpm)
    assert len(set(zip(found["pctr"], found["pcvr"], strict=True))) > 12


def test_a_bid_of_bytes_is_that_of_the_request() -> None:
    """And of one line item among many, more than are looked at at once."""
    scorer = Scorer(artifact_of(crossed_blueprint()))
    lines = [
        scorer.line_item(creative=creative, value_per_click=3.0, cap_cpm=1e6)
        for creative in TEXTS
        for _ in "abc"
    ]
    for country, os in product(TEXTS, TEXTS):
        request = request_of(country, os)
        data = repr(request).replace("'", '"').encode()
        bids = [scorer.bid(request, line) for line in lines]
        assert bids == [scorer.bid_json(data, line) for line in lines]
        index, bid_cpm = scorer.best(request, lines)
        assert bid_cpm == bids[index]
        assert scorer.best_json(data, lines) == (index, bid_cpm)


@given(blueprints())
@settings(max_examples=60)
def test_batches_of_any_model_are_the_oracles(blueprint: Blueprint) -> None:
    """Random models, with crosses in every head, on the rows made for them."""
    check = self_check_of(blueprint, {})
    scorer = Scorer(artifact_of(blueprint))
    names = [name for name in expected_names(blueprint) if name in ("pctr", "ctr_margin", "location_margin")]
    found = {name: array("d", bytes(8 * check.n_rows)) for name in names}
    scorer.score_many({name: list(column) for name, column in check.columns.items()}, found)
    for name in names:
        for want, have in zip(check.expected[name], found[name], strict=True):
            assert difference(name, want, have) <= TOLERANCE


def test_the_offline_encoder_finds_the_same_pairs() -> None:
    """What training computes of a head is what the oracle computes."""
    blueprint = crossed_blueprint()
    columns = every_row(**PRICES)
    wanted = evaluate(blueprint, columns)
    raw = {name: np.array(columns[name], dtype=object) for name in ("country", "creative", "unused_text")}
    raw |= {name: np.array(columns[name]) for name in ("hour", "lat", "unused_number")}
    assert blueprint.ctr is not None
    assert blueprint.cvr is not None
    assert blueprint.win is not None
    for name, head in (
        ("ctr_margin", blueprint.ctr.head),
        ("cvr_margin", blueprint.cvr.head),
        ("location_margin", blueprint.win.location),
    ):
        assert np.array_equal(margins(raw, head), wanted[name])
        base, parts = margin_parts(head, raw, raw)
        total = base + sum(parts.values())
        assert np.allclose(total, wanted[name], rtol=0.0, atol=1e-12)
    assert PLACES.feature in parts


def test_the_rows_of_a_file_meet_known_pairs() -> None:
    """A certificate that saw only unseen pairs would prove nothing: each known pair is in a row."""
    columns = self_check_of(crossed_blueprint(), {}).columns
    for cross in (PLACES, DEVICES):
        seen = set()
        for texts in zip(columns[cross.first.feature], columns[cross.second.feature], strict=True):
            numbers = [
                side.keys.index(text) if text in side.keys else len(side.keys)
                for side, text in zip(cross.sides, texts, strict=True)
            ]
            seen.add(float(numbers[0] * cross.second.n_numbers + numbers[1]))
        assert set(cross.codes) <= seen


def test_a_file_keeps_the_crosses(tmp_path: Any) -> None:
    """Written, certified by onnxruntime, read: the same model, the same bytes; vocabularies are shared."""
    blueprint = crossed_blueprint()
    path = tmp_path / "m.onnx"
    write_artifact(blueprint, path)
    scorer = Scorer.load(path)
    assert graph_of(scorer.blueprint) == graph_of(blueprint)
    assert rewritten_bytes(path.read_bytes()) == path.read_bytes()
    read = parse_artifact(path.read_bytes()).blueprint
    assert read.ctr is not None
    assert read.win is not None
    heads = read.ctr.head, read.win.location
    one, other, _ = [lookup for head in heads for lookup in head.lookups if isinstance(lookup, CrossLookup)]
    assert one is other


def test_an_explanation_names_the_pair() -> None:
    """Its part of the value is its own, beside those of its two categories."""
    scorer = Scorer(artifact_of(crossed_blueprint()))
    line = scorer.line_item(creative="320x50", value_per_click=3.0, cap_cpm=1e6)
    why = why_this_price(scorer, request_of("DEU", "iOS"), line)
    assert why.value is not None
    (part,) = [part for part in why.value.parts if part.feature == PLACES.feature]
    assert part.value == "DEU * 320x50"
    assert why.value.margin == pytest.approx(why.explanation.ctr_margin, abs=1e-12)


def test_long_rows_of_many_line_items_find_their_pairs() -> None:
    """Beyond 2,048 bytes the choice of the best combines sides without a row of both."""
    n = 150
    spec = FeatureSpec(
        (
            Feature("country", FeatureKind.CATEGORY, "device.geo.country"),
            Feature("creative", FeatureKind.CATEGORY, "line_item.creative"),
        )
    )
    terms = tuple(
        replace(PLACES, values=array("d", [0.001 * i * x for x in PLACES.values])) for i in range(1, n + 1)
    )
    flat = Head((), None)
    win = WinBlueprint(Head((), None, terms), flat, 0.5)
    blueprint = Blueprint(spec, CtrBlueprint(Head((), None, terms, -3.0)), win, "EUR")
    scorer = Scorer(artifact_of(blueprint))
    lines = [scorer.line_item(creative=text, value_per_click=3.0, cap_cpm=1e6) for text in TEXTS]
    for country in TEXTS:
        request = {"at": 1, "imp": [{}], "device": {"geo": {"country": country}}}
        bids = [scorer.bid(request, line) for line in lines]
        index, bid_cpm = scorer.best(request, lines)
        assert bid_cpm == bids[index]
        assert len(set(bids)) > 1
