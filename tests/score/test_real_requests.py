"""Every captured and every odd request: bid, explain, oracle and onnxruntime are one; nothing raises."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from decisions import PATHS, RATES, artifact_of, assert_guarded, model_of_requests, terms_of
from runtimes import run_onnxruntime

from bidml.blueprint import Blueprint
from bidml.contract import PRICE_INPUTS, NoBidReason
from bidml.export import model_bytes
from bidml.metadata import TOLERANCE, difference
from bidml.oracle import row_function
from bidml.score import LineItem, RawExtractor, Scorer

LINE_ITEMS = (
    {"creative": "a", "age_days": 2.5, "value_per_click": 4.0, "cap_cpm": 9.0, "margin": 0.2},
    {"creative": "b", "age_days": 8, "value_per_click": 1.5, "cap_cpm": 2.75, "pacing_multiplier": 0.6},
    {"creative": "unseen", "age_days": None, "value_per_click": 900.0, "cap_cpm": 1e6},
)
WRONG = (None, True, "text", 17, -3.5, float("nan"), 10**400, [], [{}], {}, {"a": {}}, b"bytes", "\ud800")
_PATHS = [path.removeprefix("derived.") for paths in PATHS.values() for path in paths]
READ = {part for path in _PATHS for part in path.split(".")} | {
    *(
        "at",
        "cur",
        "bidfloor",
        "bidfloorcur",
        "pmp",
        "private_auction",
        "format",
        "osv",
        "native",
        "audio",
        "ext",
    )
}
"""Fields that a decision or a feature reads: these get several wrong values, the others one."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture(scope="module")
def captured(shared_data: Path) -> list[dict[str, Any]]:
    """500 requests of a real exchange."""
    return lines_of(shared_data / "openrtb_adx_captured_2016.jsonl.gz")


@pytest.fixture(scope="module")
def fixtures(shared_data: Path) -> list[dict[str, Any]]:
    """3,000 requests that others test with, many odd on purpose, some of OpenRTB 3."""
    return [row["req"] for row in lines_of(shared_data / "openrtb_requests.jsonl.gz")]


@pytest.fixture(scope="module")
def blueprint(captured: list[dict[str, Any]], fixtures: list[dict[str, Any]]) -> Blueprint:
    """A model that splits on what these requests say."""
    return model_of_requests([*captured, *fixtures[::6]], seed=4)


@pytest.fixture(scope="module")
def scorer(blueprint: Blueprint) -> Scorer:
    return Scorer(artifact_of(blueprint), rates=RATES)


@pytest.fixture(scope="module")
def lines(scorer: Scorer) -> list[LineItem]:
    return [scorer.line_item(**line) for line in LINE_ITEMS]


def test_bid_explain_oracle_and_onnxruntime_are_one_on_every_request(
    captured: list[dict[str, Any]],
    fixtures: list[dict[str, Any]],
    blueprint: Blueprint,
    scorer: Scorer,
    lines: list[LineItem],
) -> None:
    """Each request with each line item, each impression: one reason, one bid to 1e-12, one win rate."""
    extract, oracle = RawExtractor(blueprint.spec), row_function(blueprint)
    rows: list[dict[str, Any]] = []
    decided: list[tuple[float, Any]] = []
    bids = no_bids = 0
    for request in [*captured, *fixtures]:
        imps = request.get("imp")
        for imp in range(min(2, len(imps)) if isinstance(imps, list) else 1):
            reason, floor_cpm, auction_type = terms_of(request, imp)
            for line, fields in zip(lines, LINE_ITEMS, strict=True):
                bid_cpm = scorer.bid(request, line, imp)
                why = scorer.explain(request, line, imp)
                assert (bid_cpm, int(why.reason)) == scorer.decide(request, line, imp)
                assert bid_cpm == why.bid_cpm
                if reason is not NoBidReason.BID:
                    assert (bid_cpm, why.reason) == (0.0, reason)
                    no_bids += 1
                    continue
                row: dict[str, Any] = dict(extract(request, fields, imp=imp))
                for name, value in row.items():
                    assert why.features[name] == value or value != value
                row |= {
                    "value_per_click": line.value_per_click,
                    "floor_cpm": floor_cpm,
                    "cap_cpm": line.cap_cpm,
                }
                row |= {"pacing_multiplier": line.pacing_multiplier, "auction_type": float(auction_type)}
                wanted = oracle(row)
                assert difference("bid_cpm", wanted["bid_cpm"], bid_cpm) <= TOLERANCE
                assert difference("win_rate", wanted["win_rate"], why.win_rate) <= TOLERANCE
                assert difference("pctr", wanted["pctr"], why.pctr) <= TOLERANCE
                assert abs(wanted["ctr_margin"] - why.ctr_margin) <= 1e-12
                rows.append(row)
                decided.append((bid_cpm, why))
                bids += bid_cpm > 0.0
    assert bids > 0.5 * len(rows)
    assert no_bids > 500
    assert len({round(bid_cpm, 9) for bid_cpm, _ in decided}) > 1_000  # the requests are told apart
    columns = {name: [row[name] for row in rows] for name in (*blueprint.spec.names, *PRICE_INPUTS)}
    data = model_bytes(blueprint, artifact_of(blueprint).self_check)
    found = run_onnxruntime(data, columns, ["bid_cpm", "win_rate", "pctr"])
    for i, (bid_cpm, why) in enumerate(decided):
        assert difference("bid_cpm", found["bid_cpm"][i], bid_cpm) <= TOLERANCE
        assert difference("win_rate", found["win_rate"][i], why.win_rate) <= TOLERANCE
        assert difference("pctr", found["pctr"][i], why.pctr) <= TOLERANCE


def damaged(request: dict[str, Any], turn: int, n_wrong: int) -> Iterator[None]:
    """The request itself, changed and changed back: each field deleted, then of wrong types, one by one."""
    stack: list[Any] = [request]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        if not isinstance(node, dict):
            continue
        for key, value in list(node.items()):
            stack.append(value)
            del node[key]
            yield
            for _ in range(n_wrong if key in READ else 1):
                turn += 1
                node[key] = WRONG[turn % len(WRONG)]
                yield
            node[key] = value


@pytest.mark.parametrize("which", ["captured", "fixtures"])
def test_any_field_may_be_missing_or_wrong(
    which: str, scorer: Scorer, lines: list[LineItem], request: pytest.FixtureRequest
) -> None:
    """No exception, never NaN, negative, above cap or value, below floor; the reason is that of the damaged terms."""
    requests = request.getfixturevalue(which)
    n = bids = 0
    for turn, each in enumerate(requests):
        whole = json.dumps(each, sort_keys=True)
        for _ in damaged(each, turn, len(WRONG) if which == "captured" else 2):
            line = lines[n % len(lines)]
            bid_cpm, reason = scorer.decide(each, line)
            assert 0.0 <= bid_cpm <= line.cap_cpm
            if n % 16 == 0:
                assert_guarded(scorer, each, line, bid_cpm)
                wanted = terms_of(each)[0]
                assert reason == wanted or (wanted is NoBidReason.BID and reason in (0, 7, 8, 9))
            n += 1
            bids += bid_cpm > 0.0
        assert json.dumps(each, sort_keys=True) == whole
    assert n > 50_000
    assert bids > 0.3 * n
