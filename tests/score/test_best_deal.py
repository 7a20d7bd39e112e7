"""The internal auction of line items with deals: each comes with its best offer; the one that earns most is taken."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from artifacts import complete_blueprint
from decisions import RATES, artifact_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.contract import AuctionType, NoBidReason
from bidml.export import model_bytes
from bidml.pricing import WinCurve, second_price_surplus_cpm
from bidml.score import BestDealDecision, Canary, Scorer, Staleness, follow
from bidml.score.staleness import Clocks
from bidml.self_check import self_check_of
from training.publication import publish_bytes

DEALS = ("a", "b", "c")
NOTHING = (-1, 0.0, None)
GAMMA = 1.5  # of `complete_blueprint`


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(complete_blueprint()), rates=RATES)


def request_of(at: Any, floor: Any, pmp: Any) -> dict[str, Any]:
    imp = {"bidfloor": floor, "bidfloorcur": "EUR", "pmp": pmp}
    return {
        "id": "x", "at": at, "imp": [{"bidfloor": 7.0}, imp],
        "device": {"geo": {"country": "DEU", "lat": 52.5}}, "ext": {"timestamp": 1_772_366_400_000},
    }  # fmt: skip


deals = st.fixed_dictionaries(
    {"id": st.sampled_from([*DEALS, "foreign"])},
    optional={
        "bidfloor": st.sampled_from([0.0, 0.3, 2.0, 9.0, 40.0]),
        "bidfloorcur": st.sampled_from(["EUR", "USD", "JPY"]),
        "at": st.sampled_from([1, 2, 3, 3.0, 4]),
    },
)
requests = st.builds(
    lambda at, floor, private, listed: request_of(at, floor, {"private_auction": private, "deals": listed}),
    at=st.sampled_from([1, 2, None, 7]),
    floor=st.sampled_from([0.0, 0.05, 3.0, -1.0]),
    private=st.sampled_from([0, 1, None]),
    listed=st.lists(deals | st.sampled_from([None, 7, []]), max_size=4),
)
line_terms = st.fixed_dictionaries(
    {
        "creative": st.sampled_from(["320x50", "300x250"]),
        "value_per_click": st.sampled_from([0.0, 0.05, 1.0, 20.0]),
        "cap_cpm": st.sampled_from([0.4, 8.0, 1e6]),
        "pacing_multiplier": st.sampled_from([1.0, 0.3, 0.0]),
        "exploration_share": st.sampled_from([0.0, 1.0]),
        "exploration_salt": st.sampled_from(["", "s"]),
        "deals": st.lists(st.sampled_from(DEALS), max_size=3, unique=True).map(tuple),
    }
)
lists_of_terms = st.lists(line_terms, max_size=4)
soft_floors = st.sampled_from([None, None, 0.05, 2.0, -1.0])


def text_of(found: Any) -> str:
    return f"{tuple(found)} {found.propensity}"


@given(request=requests, terms=lists_of_terms, soft=soft_floors)
def test_the_one_that_earns_most_bids_as_it_would_alone(scorer, request, terms, soft):
    """Its bid, deal and propensity to the bit; no line item alone would earn more; bytes say the same."""
    lines = [scorer.line_item(**each) for each in terms]
    found = scorer.best_deal(request, lines, 1, soft)
    assert text_of(scorer.best_deal_json(json.dumps(request).encode(), lines, 1, soft)) == text_of(found)
    alone = [scorer.decide_deal(request, line, 1, soft) for line in lines]
    if all(decision.reason != NoBidReason.BID for decision in alone):
        assert found == NOTHING
        assert math.isnan(found.propensity)
        return
    taken = alone[found.index]
    assert (found.bid_cpm, found.deal, str(found.propensity)) == (
        taken.bid_cpm,
        taken.deal,
        str(taken.propensity),
    )

    def intended(i: int) -> float:  # the surplus of the bid that is not varied
        plain = scorer.line_item(**{**terms[i], "exploration_share": 0.0})
        why = scorer.explain_deal(request, plain, 1, soft)
        if why.reason is not NoBidReason.BID:
            return -1.0
        soft_floor = soft if why.deal is None and soft is not None else 0.0
        if why.auction_type is not AuctionType.SECOND_PRICE or why.bid_cpm <= soft_floor:
            return why.expected_surplus_cpm
        curve = WinCurve(why.win_location, why.win_shape, GAMMA)
        lowest = max(why.floor_cpm, soft_floor)
        v, bid = why.unshaded_bid_cpm, why.bid_cpm
        return second_price_surplus_cpm(v, bid, curve, lowest_price_cpm=lowest).item()

    surplus = [intended(i) for i in range(len(lines))]
    assert surplus[found.index] >= max(surplus) * (1.0 - 1e-5)  # the integral is right to 1e-6


@given(request=requests, terms=lists_of_terms, soft=soft_floors)
def test_without_deals_it_is_best(scorer, request, terms, soft):
    """Index, bid and propensity to the bit."""
    lines = [scorer.line_item(**{**each, "deals": ()}) for each in terms]
    best, found = scorer.best(request, lines, 1, soft), scorer.best_deal(request, lines, 1, soft)
    assert text_of(found) == f"{(*best, None)} {best.propensity}"


@given(request=requests, terms=line_terms, n=st.integers(1, 3))
def test_the_first_of_equals(scorer, request, terms, n):
    """Whatever stands behind it."""
    found = scorer.best_deal(request, [scorer.line_item(**terms)] * n, 1)
    assert found.index == (0 if found.bid_cpm > 0.0 else -1)


def test_the_higher_bid_may_earn_less(scorer: Scorer) -> None:
    """Of two fixed prices the lower one leaves more; both orders of the line items."""
    offers = [
        {"id": name, "at": 3, "bidfloor": price, "bidfloorcur": "EUR"}
        for name, price in (("a", 7.0), ("b", 2.0))
    ]
    request = request_of(1, 0.5, {"private_auction": 1, "deals": offers})
    terms = {"creative": "320x50", "value_per_click": 20.0, "cap_cpm": 8.0}
    dear, cheap = (scorer.line_item(**terms, deals=[deal]) for deal in ("a", "b"))
    assert scorer.decide_deal(request, dear, 1).bid_cpm == 7.0
    assert scorer.best_deal(request, [dear, cheap], 1) == (1, 2.0, "b")
    assert scorer.best_deal(request, [cheap, dear], 1) == (0, 2.0, "b")


@pytest.mark.parametrize(
    "request_", [None, {}, {"imp": 3}, {"imp": [1, 2]}, request_of(1, 0.5, {"deals": [{"id": "a"}]}) | {"cur": ["JPY"]}]
)  # fmt: skip
def test_garbage_is_no_bid(scorer: Scorer, request_: Any) -> None:
    """With the reason that one line item would have."""
    line = scorer.line_item(creative="320x50", value_per_click=20.0, cap_cpm=8.0, deals=["a"])
    reason = NoBidReason(scorer.decide_deal(request_, line, 1).reason).name.lower()
    before = scorer.counters()[reason]
    assert scorer.best_deal(request_, [line, line], 1) == NOTHING
    assert scorer.counters()[reason] == before + 1


def test_wrong_line_items_are_refused(scorer: Scorer) -> None:
    """As `best` does."""
    other = Scorer(artifact_of(complete_blueprint()), rates=RATES)
    foreign = other.line_item(creative="320x50", value_per_click=20.0, cap_cpm=8.0)
    request = request_of(1, 0.5, None)
    assert scorer.best_deal(request, [], 1) == NOTHING
    for wrong in ([foreign], [None], [3], "line", None):
        with pytest.raises(TypeError, match="line item"):
            scorer.best_deal(request, wrong, 1)  # type: ignore[arg-type]


def test_it_follows_a_publication_and_is_split(tmp_path: Any) -> None:
    """Both arms, and nothing from a model that is too old."""
    blueprint = complete_blueprint()
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    publish_bytes(tmp_path, data, expected_generation=0, data_end="2026-11-07T00:00:00+00:00")
    now = [1_762_473_600.0]
    arms = [
        follow(
            tmp_path,
            interval_seconds=None,
            rates=RATES,
            staleness=Staleness(9.0, 99.0, 0.5),
            clocks=Clocks(monotonic=lambda: now[0], wall=lambda: 1_794_009_600.0),
        )
        for _ in range(2)
    ]
    fixed = {"id": "b", "at": 3, "bidfloor": 0.01, "bidfloorcur": "EUR"}
    request = request_of(1, 0.5, {"private_auction": 1, "deals": [fixed]})
    with Canary(*arms, share=0.5, salt="s") as canary:
        terms = {"creative": "320x50", "value_per_click": 20.0, "cap_cpm": 8.0}
        lines = [canary.line_item(**terms, deals=[deal]) for deal in ("a", "b")]
        units = [f"unit {i}" for i in range(20)]
        assert {canary.best_deal(request, lines, unit, 1) for unit in units} == {(1, 0.01, "b")}
        assert [arm.counters()["bid"] > 0 for arm in arms] == [True, True]
        now[0] += 1000.0
        for arm in arms:
            arm.check()
        stale = canary.best_deal(request, lines, "u", 1)
        assert stale == NOTHING
        assert type(stale) is BestDealDecision
