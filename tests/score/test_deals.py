"""Deals: the open auction and each named deal are offers; the best one is taken, whatever the request holds."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint, conversions_blueprint
from decisions import RATES, artifact_of, terms_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.contract import MAX_DEALS, NoBidReason
from bidml.errors import ConfigError
from bidml.export import model_bytes
from bidml.pricing import WinCurve, deal_bid_cpm, optimal_bid_cpm
from bidml.pricing.mechanisms import second_price_surplus_cpm
from bidml.score import DecisionLog, Scorer, follow
from bidml.score.decision_log import read_decisions
from bidml.score.reader import parse_artifact
from bidml.score.reprice import Repricer
from bidml.self_check import self_check_of
from training.publication import publish_bytes

GAMMA = 1.5  # of the blueprint
DEALS = ("a", "b", "Ελλάδα")
MONEY = [0.0, 0.3, 2.0, 9.0, 40.0, 500.0]
GARBAGE = [None, True, "1.5", [], {}, -1.0, math.inf, "x" * 3000, "\ud800"]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(complete_blueprint()), rates=RATES)


def request_of(at: Any, floor: Any, pmp: Any) -> dict[str, Any]:
    imp = {"bidfloor": floor, "bidfloorcur": "EUR", "pmp": pmp}
    device = {"geo": {"country": "DEU", "lat": 52.5}}
    return {
        "at": at,
        "imp": [{"bidfloor": 7.0}, imp],
        "device": device,
        "ext": {"timestamp": 1_772_366_400_000},
    }


deals = st.fixed_dictionaries(
    {"id": st.sampled_from([*DEALS, "foreign"])},
    optional={
        "bidfloor": st.sampled_from(MONEY),
        "bidfloorcur": st.sampled_from(["EUR", "USD", "JPY"]),
        "at": st.sampled_from([1, 2, 3, 3.0, 4]),
        "wseat": st.just(["x"]),
    },
)
lists_of_deals = st.lists(deals | st.sampled_from([None, 7, "a", []]), max_size=4)
lines = st.tuples(
    st.sampled_from([0.0, 0.05, 1.0, 20.0]),  # value per click
    st.sampled_from([0.4, 8.0, 1e6]),  # cap
    st.sampled_from([1.0, 0.3]),  # pacing
)


def line_of(scorer: Scorer, terms: tuple[float, float, float], named: tuple[str, ...] = DEALS) -> Any:
    worth, cap, pacing = terms
    return scorer.line_item(
        creative="320x50", value_per_click=worth, cap_cpm=cap, pacing_multiplier=pacing, deals=named
    )


def offers_of(
    scorer: Scorer, request: dict[str, Any], line: Any
) -> list[tuple[str | None, float, float, float]]:
    """(deal, bid, surplus, floor) of every offer that bids, in order of preference among equals: the obvious way."""
    plain = request_of(1, 0.0, None)
    why = scorer.explain(plain, line, 1)
    v, curve = why.unshaded_bid_cpm, WinCurve(why.win_location, why.win_shape, GAMMA)
    if not v > 0.0:
        return []

    def auction(deal: str | None, floor: float, at: int) -> tuple[str | None, float, float, float]:
        bid = optimal_bid_cpm(v, curve, floor_cpm=floor, cap_cpm=line.cap_cpm, auction_type=float(at))
        if not bid.item() > 0.0:
            return deal, 0.0, 0.0, floor
        if at == 2:
            gain = second_price_surplus_cpm(v, bid, curve, lowest_price_cpm=floor)
        else:
            gain = (v - bid) * curve.win_rate(bid)
        return deal, bid.item(), gain.item(), floor

    found = []
    impression = request["imp"][1]
    pmp = impression.get("pmp")
    for deal in (pmp.get("deals") if isinstance(pmp, dict) else None) or []:
        if not (isinstance(deal, dict) and deal.get("id") in line.deals):
            continue
        # a deal's floor is read as an impression's, its auction type too, but for 3
        as_imp = {
            **request,
            "at": 1,
            "imp": [{key: deal[key] for key in ("bidfloor", "bidfloorcur") if key in deal}],
        }
        reason, floor, _ = terms_of(as_imp, 0)
        at = deal.get("at", request["at"] if request["at"] is not None else 2)
        if reason is not NoBidReason.BID or at not in (1, 2, 3):
            continue
        if at == 3:
            bid = deal_bid_cpm(v, floor).item() if floor <= line.cap_cpm else 0.0
            found.append((deal["id"], bid, v - bid, floor))
        else:
            found.append(auction(deal["id"], floor, at))
    reason, floor, at = terms_of(request, 1, default_at=2)
    if reason is NoBidReason.BID:
        found.append(auction(None, floor, at))
    return [offer for offer in found if offer[1] > 0.0]


@given(
    at=st.sampled_from([1, 2, None, 7]),
    floor=st.sampled_from([0.0, 0.05, 3.0, -1.0]),
    private=st.sampled_from([0, 1, None]),
    several=lists_of_deals,
    terms=lines,
)
def test_the_best_offer_is_taken(scorer, at, floor, private, several, terms):
    """Against NumPy's price of each offer; dict and JSON alike; in its bounds."""
    request = request_of(at, floor, {"private_auction": private, "deals": several})
    line = line_of(scorer, terms)
    bid_cpm, reason, deal = scorer.decide_deal(request, line, 1)
    assert scorer.decide_deal_json(json.dumps(request).encode(), line, 1) == (bid_cpm, reason, deal)
    offers = offers_of(scorer, request, line)
    if not offers:
        assert (bid_cpm, deal) == (0.0, None)
        assert reason != NoBidReason.BID
        return
    assert reason == NoBidReason.BID
    most = max(surplus for _, _, surplus, _ in offers)
    taken = [o for o in offers if o[0] == deal and o[1] == pytest.approx(bid_cpm, rel=1e-9)]
    assert taken
    assert max(surplus for _, _, surplus, _ in taken) >= most - 1e-6 * abs(most)
    if deal is None:
        assert most > max((s for name, _, s, _ in offers if name is not None), default=-1.0) * (1.0 - 1e-6)
    v = scorer.explain(request_of(1, 0.0, None), line, 1).unshaded_bid_cpm
    assert bid_cpm <= min(line.cap_cpm, v)
    assert bid_cpm >= min(floor for _, _, _, floor in taken)


@given(
    at=st.sampled_from([1, 2, None, 7]),
    floor=st.sampled_from([0.0, 0.05, 3.0, -1.0]),
    private=st.sampled_from([0, 1, None]),
    several=lists_of_deals,
    terms=lines,
    share=st.sampled_from([0.0, 1.0]),
)
def test_an_explanation_is_of_the_offer_that_is_taken(scorer, at, floor, private, several, terms, share):
    """The same bid, reason and deal; steps that end at the bid; the offer's own floor and kind."""
    request = {**request_of(at, floor, {"private_auction": private, "deals": several}), "id": "x"}
    worth, cap, pacing = terms
    line = scorer.line_item(
        creative="320x50", value_per_click=worth, cap_cpm=cap, pacing_multiplier=pacing, deals=DEALS,
        exploration_share=share,
    )  # fmt: skip
    found, why = scorer.decide_deal(request, line, 1), scorer.explain_deal(request, line, 1)
    assert (why.bid_cpm, why.reason, why.deal) == tuple(found)
    assert str(why.propensity) == str(found.propensity)
    if not found.bid_cpm > 0.0:
        return
    assert why.features["country"] == "DEU"
    assert why.waterfall[-1].after_cpm == found.bid_cpm
    assert why.floor_cpm <= found.bid_cpm <= min(cap, why.unshaded_bid_cpm)
    assert (why.deal is not None) == ("by deal" in str(why))
    if why.auction_type is None:
        assert found.bid_cpm == why.floor_cpm == why.optimum_cpm
        assert why.expected_surplus_cpm == why.unshaded_bid_cpm - found.bid_cpm
        assert any(
            deal["id"] == why.deal and deal.get("at") == 3 for deal in several if isinstance(deal, dict)
        )
    else:
        bid = optimal_bid_cpm(
            why.unshaded_bid_cpm, WinCurve(why.win_location, why.win_shape, GAMMA), floor_cpm=why.floor_cpm,
            cap_cpm=cap, auction_type=float(why.auction_type),
        )  # fmt: skip
        step = -1 if math.isnan(why.propensity) else -2
        assert why.waterfall[step].after_cpm == pytest.approx(bid.item(), rel=1e-12)


@given(
    at=st.sampled_from([1, 2]),
    private=st.sampled_from([0, 1]),
    several=lists_of_deals,
    more=deals,
    terms=lines,
)
def test_another_deal_never_costs_surplus(scorer, at, private, several, more, terms):
    """The surplus of the offer that is taken, by NumPy."""
    line = line_of(scorer, terms)

    def earned(listed: list[Any]) -> float:
        request = request_of(at, 0.05, {"private_auction": private, "deals": listed})
        bid_cpm, _, deal = scorer.decide_deal(request, line, 1)
        offers = offers_of(scorer, request, line)
        return max(
            (s for name, bid, s, _ in offers if name == deal and bid == pytest.approx(bid_cpm)), default=0.0
        )

    before = earned(several)
    assert earned([*several, more]) >= before * (1.0 - 1e-6)


@given(
    pmp=st.recursive(
        st.sampled_from(GARBAGE),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["deals", "id", "bidfloor", "bidfloorcur", "at"]), inner)
        ),
        max_leaves=12,
    ),
    deal=st.dictionaries(
        st.sampled_from(["id", "bidfloor", "bidfloorcur", "at"]), st.sampled_from(["a", 3, 1.0, *GARBAGE])
    ),
)
def test_garbage_never_raises_and_never_bids_out_of_bounds(scorer, pmp, deal):
    """Whatever pmp is, and whatever stands in a deal."""
    line = line_of(scorer, (20.0, 8.0, 1.0))
    plain = scorer.decide(request_of(1, 0.5, None), line, 1)
    for found in (pmp, {"deals": pmp}, {"deals": [pmp, deal, deal]}):
        bid_cpm, reason, taken = scorer.decide_deal(request_of(1, 0.5, found), line, 1)
        assert 0.0 <= bid_cpm <= 8.0
        assert (bid_cpm > 0.0) == (reason == NoBidReason.BID)
        if taken is None:
            assert (bid_cpm, reason) == plain
        else:
            assert taken == "a"
    for request in (
        None,
        {},
        {"imp": 3},
        {"imp": [1, 2]},
        request_of(1, 0.5, {"deals": [{"id": "a"}]}) | {"cur": ["JPY"]},
    ):
        bid_cpm, reason, taken = scorer.decide_deal(request, line, 1)
        assert (bid_cpm, taken) == (0.0, None)
        assert reason == scorer.decide(request, line, 1)[1]


@given(
    at=st.sampled_from([1, 2, 3]), floor=st.sampled_from([0.0, 0.3, 5.0]), several=lists_of_deals, terms=lines
)
def test_without_deals_of_its_own_a_line_item_bids_as_ever(scorer, at, floor, several, terms):
    """`decide`, and no deal."""
    request = request_of(at, floor, {"private_auction": 0, "deals": several})
    line = line_of(scorer, terms, ())
    assert scorer.decide_deal(request, line, 1) == (*scorer.decide(request, line, 1), None)


def test_a_fixed_price_is_paid_as_it_is(scorer: Scorer) -> None:
    """In its own currency; not above cap or value; the reason in a private auction is the deal's."""
    line = line_of(scorer, (20.0, 8.0, 1.0))

    def decide(**deal: Any) -> tuple[float, NoBidReason, str | None]:
        request = request_of(1, 0.5, {"private_auction": 1, "deals": [{"id": "b", "at": 3, **deal}]})
        bid_cpm, reason, taken = scorer.decide_deal(request, line, 1)
        return bid_cpm, NoBidReason(reason), taken

    assert decide(bidfloor=5.0) == (5.0 * RATES["USD"], NoBidReason.BID, "b")  # USD where nothing is said
    assert decide(bidfloor=5, bidfloorcur="EUR") == (5.0, NoBidReason.BID, "b")
    assert decide(bidfloor=9.0, bidfloorcur="EUR") == (0.0, NoBidReason.FLOOR_ABOVE_CAP, None)
    assert decide(bidfloor=5.0, bidfloorcur="JPY") == (0.0, NoBidReason.UNKNOWN_CURRENCY, None)
    for nothing in ({}, {"bidfloor": "5"}, {"bidfloor": -5.0}, {"bidfloor": 0}):
        assert decide(**nothing) == (0.0, NoBidReason.INVALID_FLOOR, None)
    assert decide(id="foreign", bidfloor=1.0) == (0.0, NoBidReason.PRIVATE_AUCTION, None)
    cheap = line_of(scorer, (1e-3, 8.0, 1.0))
    request = request_of(1, 0.5, {"private_auction": 1, "deals": [{"id": "b", "at": 3, "bidfloor": 5.0}]})
    assert scorer.decide_deal(request, cheap, 1) == (0.0, NoBidReason.VALUE_BELOW_FLOOR, None)
    assert scorer.counters()["bid"] > 0


def test_only_so_many_deals_are_looked_at(scorer: Scorer) -> None:
    """The one behind them is not there; nor are ids beyond the list's end."""
    line = line_of(scorer, (20.0, 8.0, 1.0))
    fixed = {"id": "a", "at": 3, "bidfloor": 0.001, "bidfloorcur": "EUR"}
    for n, taken in ((MAX_DEALS - 1, "a"), (MAX_DEALS, None)):
        request = request_of(1, 0.5, {"deals": [*([{"id": "x"}] * n), fixed]})
        assert scorer.decide_deal(request, line, 1)[2] == taken
        assert scorer.decide_deal_json(json.dumps(request).encode(), line, 1)[2] == taken


def test_json_keeps_the_last_of_duplicate_lists(scorer: Scorer) -> None:
    line = line_of(scorer, (20.0, 8.0, 1.0))
    deal = '{"id":"a","at":3,"bidfloor":0.001,"bidfloorcur":"EUR"}'
    text = '{"at":1,"imp":[{},{"pmp":{"deals":[%s],"deals":%s}}]}'
    for second, taken in ((f"[{deal}]", "a"), ("[]", None), ("7", None), ('[{"id":"x"}]', None)):
        data = (text % (deal, second)).encode()
        assert scorer.decide_deal_json(data, line, 1)[2] == taken
        assert scorer.decide_deal(json.loads(data), line, 1)[2] == taken


@pytest.mark.parametrize("wrong", ["a", ["a"] * (MAX_DEALS + 1), [""], [3], ["a\0"], ["\ud800"], ["x" * 257]])
def test_wrong_ids_are_refused(scorer: Scorer, wrong: Any) -> None:
    with pytest.raises(ConfigError, match="deals"):
        scorer.line_item(creative="a", value_per_click=1.0, cap_cpm=2.0, deals=wrong)


def test_second_price_surplus_is_numpy_s(scorer: Scorer) -> None:
    """Seen through a choice: a fixed price at what the private second-price auction earns is taken just below it."""
    line = line_of(scorer, (1.0, 1e6, 1.0))
    why = scorer.explain(request_of(1, 0.0, None), line, 1)
    v = why.unshaded_bid_cpm
    curve = WinCurve(why.win_location, why.win_shape, GAMMA)
    for floor in (0.0, 0.01, 0.3 * v):
        earns = second_price_surplus_cpm(v, np.array([v]), curve, lowest_price_cpm=floor).item()
        auction = {"id": "a", "at": 2, "bidfloor": floor, "bidfloorcur": "EUR"}
        for factor, taken in ((1.0 - 1e-5, "b"), (1.0 + 1e-5, "a")):
            fixed = {"id": "b", "at": 3, "bidfloor": v - earns / factor, "bidfloorcur": "EUR"}
            request = request_of(1, 0.5, {"private_auction": 1, "deals": [auction, fixed]})
            assert scorer.decide_deal(request, line, 1)[2] == taken


def test_deals_follow_a_publication(tmp_path: Any) -> None:
    """Through swaps; conversions count."""
    blueprint = conversions_blueprint()
    publish_bytes(tmp_path, model_bytes(blueprint, self_check_of(blueprint, {})), expected_generation=0)
    following = follow(tmp_path, interval_seconds=None)
    line = following.line_item(creative="a", value_per_conversion=900.0, cap_cpm=90.0, deals=["a"])
    deal = {"id": "a", "at": 3, "bidfloor": 0.01, "bidfloorcur": "EUR"}
    request = request_of(1, 0.5, {"private_auction": 1, "deals": [deal]})
    assert following.decide_deal(request, line, 1) == (0.01, NoBidReason.BID, "a")
    assert following.explain_deal(request, line, 1).deal == "a"
    plain = complete_blueprint()
    publish_bytes(tmp_path, model_bytes(plain, self_check_of(plain, {})), expected_generation=1)
    assert following.check()
    assert following.decide_deal(request, line, 1) == (0.0, NoBidReason.NO_CONVERSION_MODEL, None)


def test_logged_deals_are_priced_again_to_the_bit(tmp_path: Any) -> None:
    """Dict and bytes, with the deal that was taken; another deal is another decision."""
    blueprint = complete_blueprint()
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    scorer = Scorer(parse_artifact(data), rates=RATES)
    (tmp_path / f"{scorer.sha256}.onnx").write_bytes(data)
    line = line_of(scorer, (20.0, 8.0, 0.3))
    offers = [{"id": "b", "at": 3, "bidfloor": 0.2}, {"id": "a", "at": 1, "bidfloor": 0.1}]
    with DecisionLog(tmp_path / "log", share=1.0) as log:
        for listed in ([], offers[:1], offers[1:], offers):
            request = request_of(1, 0.5, {"private_auction": 0, "deals": listed})
            said = log.decide_deal(scorer, request, line, 1)
            assert log.decide_deal(scorer, json.dumps(request).encode(), line, 1) == said
    records = read_decisions([tmp_path / "log"])
    repriced = [Repricer(tmp_path)(record) for record in records]
    assert len(repriced) == 8
    assert all(r.is_equal for r in repriced)
    assert {r.logged[2] for r in repriced} == {None, "a", "b"}
    assert [r.explanation.deal for r in repriced] == [r.logged[2] for r in repriced]
    assert not Repricer(tmp_path)({**records[2], "deal": "a"}).is_equal
