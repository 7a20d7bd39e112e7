"""Soft floors in the scorer: NumPy's choice between paying the bid below and telling the truth above, in every call."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint
from decisions import RATES, artifact_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.contract import NoBidReason
from bidml.export import model_bytes
from bidml.pricing import WinCurve, soft_floor_bid_cpm, surplus_cpm
from bidml.pricing.mechanisms import second_price_surplus_cpm
from bidml.score import Canary, DecisionLog, RequestError, Scorer, Staleness, follow
from bidml.score.decision_log import read_decisions
from bidml.score.reader import parse_artifact
from bidml.score.reprice import Repricer
from bidml.score.staleness import Clocks
from bidml.self_check import self_check_of
from training.publication import publish_bytes

GAMMA = 1.5  # of the blueprint
TERMS: dict[str, Any] = {"creative": "320x50", "value_per_click": 0.5, "cap_cpm": 80.0}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(complete_blueprint()), rates=RATES)


def request_of(at: Any = 2, floor: float = 0.05, name: str = "x", **more: Any) -> dict[str, Any]:
    imp = {"bidfloor": floor, "bidfloorcur": "EUR", **more}
    when = {"timestamp": 1_795_694_400_000}  # a Thursday at 12: the model reads the hour and the weekday
    return {
        "id": name,
        "at": at,
        "imp": [imp],
        "device": {"geo": {"country": "DEU", "lat": 52.5}},
        "ext": when,
    }


def curve_of(why: Any) -> WinCurve:
    return WinCurve(why.win_location, why.win_shape, GAMMA)


def earned(bid: np.ndarray, v: float, curve: WinCurve, soft: float, floor: float) -> np.ndarray:
    """Of bids under the soft floor: below or at it they pay themselves."""
    above = second_price_surplus_cpm(v, bid, curve, lowest_price_cpm=np.minimum(max(soft, floor), bid))
    return np.where(bid <= soft, surplus_cpm(v, bid, curve.win_rate(bid)), above)


floors = st.sampled_from([0.0, 0.05, 0.5, 1.0, 2.5, 100.0])
softs = st.sampled_from([0.0, 1e-3, 0.05, 0.3, 0.7, 1.0, 1.5, 2.0, 2.5, 3.0, 1e300]) | st.floats(0.0, 5.0)
caps = st.sampled_from([0.3, 1.2, 2.0, 80.0])
values = st.sampled_from([0.05, 0.2, 0.5, 2.0])


@given(floor=floors, soft=softs, cap=caps, value=values, at=st.sampled_from([2, None]))
def test_the_scorer_bids_under_a_soft_floor_as_numpy_does(scorer, floor, soft, cap, value, at):
    """In every call alike; in its bounds; no other bid earns more."""
    request = request_of(at, floor)
    line = scorer.line_item(**{**TERMS, "cap_cpm": cap, "value_per_click": value})
    found = scorer.decide(request, line, 0, soft)
    data = json.dumps(request).encode()
    why = scorer.explain(request, line, 0, soft)
    for other in (
        scorer.decide_json(data, line, 0, soft), scorer.decide_deal(request, line, 0, soft),
        scorer.decide_deal_json(data, line, 0, soft), scorer.best(request, [line], 0, soft),
        scorer.best_json(data, [line], 0, soft), why,
    ):  # fmt: skip
        assert other.bid_cpm == found.bid_cpm
    assert scorer.bid(request, line, 0, soft) == scorer.bid_json(data, line, 0, soft) == found.bid_cpm
    v, curve = why.unshaded_bid_cpm, curve_of(why)
    twin = soft_floor_bid_cpm(v, curve, soft_floor_cpm=soft, floor_cpm=floor, cap_cpm=cap)
    plain = scorer.decide(request, line)
    assert (found.reason, found.bid_cpm > 0.0) == (plain.reason, twin.item() > 0.0)
    if not found.bid_cpm > 0.0:
        return
    assert floor <= found.bid_cpm <= min(cap, v)
    gain = earned(np.array([found.bid_cpm]), v, curve, soft, floor).item()
    if found.bid_cpm != pytest.approx(twin.item(), rel=1e-9):  # a tie
        assert earned(twin, v, curve, soft, floor).item() == pytest.approx(gain, rel=1e-6)
    grid = np.linspace(floor, min(cap, v), 500)[1:]
    assert np.all(earned(grid, v, curve, soft, floor) <= gain * (1.0 + 1e-6) + 1e-12)
    assert why.waterfall[-1].after_cpm == found.bid_cpm
    assert why.optimum_cpm == v or why.optimum_cpm <= soft


@given(floor=floors, soft=softs, cap=caps, value=values)
def test_without_one_and_at_its_ends_the_auction_is_plain(scorer, floor, soft, cap, value):
    """To the bit: None; any in a first-price auction; 0; one that nobody reaches."""
    line = scorer.line_item(**{**TERMS, "cap_cpm": cap, "value_per_click": value})
    first, second = request_of(1, floor), request_of(2, floor)
    assert scorer.decide(second, line, 0, None) == scorer.decide(second, line)
    assert scorer.decide(first, line, 0, soft) == scorer.decide(first, line)
    assert scorer.decide(second, line, 0, 0.0) == scorer.decide(second, line)
    assert scorer.decide(second, line, 0, 1e300) == scorer.decide(first, line)
    assert scorer.best(second, [line, line], 0, 1e300) == scorer.best(first, [line, line])


def test_both_sides_of_a_soft_floor_are_taken(scorer: Scorer) -> None:
    """A low one is overbid with the truth, a high one is undercut; between them is one switch."""
    line = scorer.line_item(**TERMS)
    v = scorer.explain(request_of(), line).unshaded_bid_cpm
    bids = [scorer.bid(request_of(), line, 0, soft) for soft in np.linspace(0.0, v, 60).tolist()]
    truthful = [bid == v for bid in bids]
    assert truthful == sorted(truthful, reverse=True)
    assert 5 < sum(truthful) < 55
    assert bids[-1] == scorer.bid(request_of(1), line)


@pytest.mark.parametrize(
    "wrong", [True, "1.5", -1.0, -math.inf, math.inf, math.nan, [], {}, object(), 10**400]
)
def test_garbage_is_no_bid(scorer: Scorer, wrong: Any) -> None:
    """It may come from a request: a reason, no error; in strict mode the error of a request."""
    line = scorer.line_item(**TERMS)
    for request in (request_of(1), request_of(2)):
        assert scorer.decide(request, line, 0, wrong) == (0.0, NoBidReason.INVALID_FLOOR)
        assert scorer.decide_deal(request, line, 0, wrong) == (0.0, NoBidReason.INVALID_FLOOR, None)
        assert scorer.best(request, [line], 0, wrong) == (-1, 0.0)
        assert scorer.explain(request, line, 0, wrong).reason is NoBidReason.INVALID_FLOOR
    assert scorer.decide(None, line, 0, wrong)[1] == NoBidReason.INVALID_REQUEST
    strict = Scorer(artifact_of(complete_blueprint()), strict=True)
    with pytest.raises(RequestError, match="invalid_floor"):
        strict.bid(request_of(), strict.line_item(**TERMS), 0, wrong)


def test_too_many_arguments_are_a_bug_of_the_caller(scorer: Scorer) -> None:
    with pytest.raises(TypeError, match="soft_floor_cpm=None"):
        scorer.bid(request_of(), scorer.line_item(**TERMS), 0, 1.0, 2.0)  # type: ignore[call-arg]


def test_best_takes_who_earns_most_under_the_soft_floor(scorer: Scorer) -> None:
    """Not who would without it."""
    lines = [
        scorer.line_item(**{**TERMS, "cap_cpm": cap, "value_per_click": value})
        for cap, value in ((0.9, 0.6), (80.0, 0.5), (1.5, 0.55))
    ]
    chosen = set()
    for soft in np.linspace(0.0, 3.0, 40).tolist():
        gains = []
        for line in lines:
            why = scorer.explain(request_of(), line)
            bid = np.array([scorer.bid(request_of(), line, 0, soft)])
            gains.append(earned(bid, why.unshaded_bid_cpm, curve_of(why), soft, 0.05).item())
        index, bid_cpm = scorer.best(request_of(), lines, 0, soft)
        assert gains[index] == pytest.approx(max(gains), rel=1e-6)
        assert bid_cpm == scorer.bid(request_of(), lines[index], 0, soft)
        chosen.add(index)
    assert len(chosen) > 1


def test_a_deal_competes_with_the_soft_floor_s_auction(scorer: Scorer) -> None:
    """A fixed price is taken just below what the open auction earns under its soft floor, not just above."""
    line = scorer.line_item(**TERMS, deals=["a"])
    why = scorer.explain(request_of(), line)
    v = why.unshaded_bid_cpm
    for soft in (0.3, 0.5 * v, v):
        bid = np.array([scorer.bid(request_of(), line, 0, soft)])
        gain = earned(bid, v, curve_of(why), soft, 0.05).item()
        for factor, deal in ((1.0 - 1e-5, None), (1.0 + 1e-5, "a")):
            fixed = {"id": "a", "at": 3, "bidfloor": v - gain * factor, "bidfloorcur": "EUR"}
            request = request_of(pmp={"private_auction": 0, "deals": [fixed]})
            assert scorer.decide_deal(request, line, 0, soft).deal == deal
        request = request_of(pmp={"private_auction": 0, "deals": [fixed]})
        assert scorer.decide_deal(request, line, 0, "garbage").deal == "a"  # type: ignore[arg-type]


def test_bids_below_a_soft_floor_are_varied_below_it(scorer: Scorer) -> None:
    """There they are paid; the truth above it is not varied."""
    plain = scorer.line_item(**TERMS)
    line = scorer.line_item(**TERMS, exploration_share=1.0, exploration_sigma=1.0)
    v = scorer.explain(request_of(), plain).unshaded_bid_cpm
    low = scorer.bid(request_of(), plain, 0, 0.9 * v)
    for i in range(200):
        request = request_of(name=f"auction {i}")
        for found in (
            scorer.decide(request, line, 0, 0.9 * v),
            scorer.best(request, [line], 0, 0.9 * v),
            scorer.decide_deal(request, line, 0, 0.9 * v),
        ):
            assert found.propensity > 0.0
            assert 0.05 <= found.bid_cpm <= 0.9 * v
            assert found.bid_cpm != low
        high = scorer.decide(request, line, 0, 0.05)
        assert (high.bid_cpm, math.isnan(high.propensity)) == (v, True)
        assert math.isnan(scorer.best(request, [line], 0, 0.05).propensity)


def test_followed_logged_and_split_calls_pass_it_on(tmp_path: Any) -> None:
    """`follow`, `Canary`, `DecisionLog`; priced again to the bit; a stale model says no."""
    blueprint = complete_blueprint()
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    publish_bytes(tmp_path / "a", data, expected_generation=0, data_end="2026-11-07T00:00:00+00:00")
    scorer = Scorer(parse_artifact(data), rates=RATES)
    now = [1_762_473_600.0]
    clocks = Clocks(monotonic=lambda: now[0], wall=lambda: 1_794_009_600.0)
    arms = [
        follow(
            tmp_path / "a",
            interval_seconds=None,
            rates=RATES,
            staleness=Staleness(9.0, 99.0, 0.5),
            clocks=clocks,
        )
        for _ in range(2)
    ]
    canary = Canary(*arms, share=0.5, salt="s")
    line, split = scorer.line_item(**TERMS), canary.line_item(**TERMS, deals=["a"])
    followed = arms[0].line_item(**TERMS)
    request = request_of()
    v = scorer.explain(request, line).unshaded_bid_cpm
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for soft in (None, 0.9 * v, 0.05, 1, -1.0, "?"):
            wanted: Any = scorer.decide(request, line, 0, soft)
            assert arms[0].decide(request, followed, 0, soft) == wanted
            assert arms[0].bid(request, followed, 0, soft) == wanted.bid_cpm
            assert arms[0].best(request, [followed], 0, soft).bid_cpm == wanted.bid_cpm
            assert arms[0].decide_deal(request, followed, 0, soft) == (*wanted, None)
            assert arms[0].explain(request, followed, 0, soft).bid_cpm == wanted.bid_cpm
            for unit in ("u", "v", "w"):
                assert canary.decide(request, split, unit, 0, soft) == wanted
                assert canary.bid(request, split, unit, 0, soft) == wanted.bid_cpm
                assert canary.best(request, [split], unit, 0, soft).bid_cpm == wanted.bid_cpm
                assert canary.decide_deal(request, split, unit, 0, soft) == (*wanted, None)
            assert log.decide(scorer, request, line, 0, soft) == wanted
            assert log.bid(arms[0], json.dumps(request).encode(), followed, 0, soft) == wanted.bid_cpm
            log.decide_deal(scorer, request, line, 0, soft)
    records = read_decisions([tmp_path / "log"])
    repricer = Repricer(tmp_path / "a")
    assert len(records) == 18
    assert all(repricer(record).is_equal for record in records)
    assert not repricer({**records[3], "soft_floor_cpm": 0.05}).is_equal
    now[0] += 1000.0
    arms[0].check()
    assert arms[0].decide(request, followed, 0, 0.3) == (0.0, NoBidReason.STALE_MODEL)


def test_the_canary_buys_by_deals(tmp_path: Any) -> None:
    """By the deal that the arm takes."""
    blueprint = complete_blueprint()
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    publish_bytes(tmp_path, data, expected_generation=0)
    arms = [follow(tmp_path, interval_seconds=None, rates=RATES) for _ in range(2)]
    with Canary(*arms, share=0.5, salt="s") as canary:
        line = canary.line_item(**TERMS, deals=["a"])
        fixed = {"id": "a", "at": 3, "bidfloor": 0.01, "bidfloorcur": "EUR"}
        request = request_of(pmp={"private_auction": 1, "deals": [fixed]})
        units = [f"unit {i}" for i in range(20)]
        assert {canary.decide_deal(request, line, unit) for unit in units} == {(0.01, NoBidReason.BID, "a")}
        assert [arm.counters()["bid"] > 0 for arm in arms] == [True, True]
