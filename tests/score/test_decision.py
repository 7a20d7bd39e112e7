"""Laws of one decision: what the request says about money is read strictly, and every no-bid has its reason."""

from __future__ import annotations

import math
from typing import Any

import pytest
from artifacts import COUNTRIES_TERM, INF, NAN, complete_blueprint
from decisions import RATES, artifact_of, assert_guarded, terms_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, CtrBlueprint, Head, WinBlueprint
from bidml.contract import AuctionType, NoBidReason
from bidml.score import LineItem, RequestError, Scorer

VALUE_PER_CLICK = 20.0  # EUR; with a pctr of about 0.1 a value of about 2,000 CPM


def flat_model() -> Blueprint:
    """Log-odds −2, and the country's weight; a log-logistic market with its median at 1 EUR CPM and slope 2."""
    spec = complete_blueprint().spec
    win = WinBlueprint(Head((), None), Head((), None, intercept=math.log(2.0)), 0.0)
    return Blueprint(spec, CtrBlueprint(Head((), None, (COUNTRIES_TERM,), -2.0)), win, "EUR")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """Prices in EUR, floors also in USD and GBP."""
    return Scorer(artifact_of(flat_model()), rates=RATES)


@pytest.fixture(scope="module")
def line(scorer: Scorer) -> LineItem:
    """A cap that binds nowhere below 50 EUR."""
    return scorer.line_item(creative="320x50", value_per_click=VALUE_PER_CLICK, cap_cpm=50.0)


def request_of(**imp: Any) -> dict[str, Any]:
    """A first-price request for one impression with these fields."""
    return {"id": "r", "at": 1, "imp": [{"id": "1", **imp}]}


WRONG = [
    True,
    False,
    "1.5",
    "",
    b"1",
    [],
    [1.5],
    {},
    {"a": 1},
    (1.0,),
    NAN,
    INF,
    -INF,
    -1.0,
    -1,
    10**400,
    object,
    1j,
]


@pytest.mark.parametrize("floor", WRONG, ids=lambda value: repr(value)[:20])
def test_a_floor_that_is_no_number_of_at_least_0_is_no_bid(
    scorer: Scorer, line: LineItem, floor: object
) -> None:
    """Not a guess, not a clamp, not a coercion: "1.5" and True are garbage."""
    assert scorer.decide(request_of(bidfloor=floor), line) == (0.0, NoBidReason.INVALID_FLOOR)


def test_no_floor_is_no_floor(scorer: Scorer, line: LineItem) -> None:
    """Absent, null and 0 are alike, whatever the currency beside them says."""
    free = scorer.bid(request_of(), line)
    assert free > 0.0
    for floor in ({}, {"bidfloor": None}, {"bidfloor": 0}, {"bidfloor": 0.0}, {"bidfloor": -0.0}):
        for code in ({}, {"bidfloorcur": None}, {"bidfloorcur": "XXX"}, {"bidfloorcur": 7}):
            assert scorer.bid(request_of(**floor, **code), line) == free


@pytest.mark.parametrize(
    ("code", "rate"), [({}, 0.92), ({"bidfloorcur": None}, 0.92), ({"bidfloorcur": "EUR"}, 1.0),
                       ({"bidfloorcur": "USD"}, 0.92), ({"bidfloorcur": "GBP"}, 1.17)],
)  # fmt: skip
def test_a_floor_is_converted_to_the_artifacts_currency(
    scorer: Scorer, line: LineItem, code: dict[str, Any], rate: float
) -> None:
    """OpenRTB's default for bidfloorcur is USD; a floor above the optimum raises the bid to it exactly."""
    floor = 31.0
    assert scorer.bid(request_of(), line) < floor * rate
    assert scorer.bid(request_of(bidfloor=floor, **code), line) == floor * rate


@pytest.mark.parametrize(
    "code", ["JPY", "eur", "EURO", "", 978, True, ["EUR"], {"EUR": 1}, b"EUR", "E\ud800R"]
)
def test_a_floor_in_an_unknown_currency_is_no_bid(scorer: Scorer, line: LineItem, code: object) -> None:
    """A floor whose worth is unknown cannot be kept."""
    found = scorer.decide(request_of(bidfloor=0.01, bidfloorcur=code), line)
    assert found == (0.0, NoBidReason.UNKNOWN_CURRENCY)


def test_without_rates_only_the_own_currency_is_known() -> None:
    """USD, the default of OpenRTB, is no exception."""
    plain = Scorer(artifact_of(flat_model()))
    line = plain.line_item(creative="", value_per_click=VALUE_PER_CLICK, cap_cpm=50.0)
    assert plain.decide(request_of(bidfloor=0.01), line)[1] == NoBidReason.UNKNOWN_CURRENCY
    assert plain.decide(request_of(bidfloor=0.01, bidfloorcur="EUR"), line)[1] == NoBidReason.BID


@pytest.mark.parametrize(
    ("accepted", "bids"),
    [(["EUR"], True), (["USD", "EUR"], True), ([], True), (None, True), ("USD", True), (["USD"], False),
     (["eur"], False), ([None, 3, "USD"], False), ([["EUR"]], False)],
)  # fmt: skip
def test_a_bid_is_in_a_currency_that_the_exchange_accepts(
    scorer: Scorer, line: LineItem, accepted: object, bids: bool
) -> None:
    """`cur` lists them; absent, empty or of another type is any."""
    reason = scorer.decide(request_of() | {"cur": accepted}, line)[1]
    assert reason == (NoBidReason.BID if bids else NoBidReason.UNKNOWN_CURRENCY)


@pytest.mark.parametrize(
    ("at", "found"),
    [(1, AuctionType.FIRST_PRICE), (2, AuctionType.SECOND_PRICE), (1.0, AuctionType.FIRST_PRICE), (None, None),
     (True, None), ("2", None), (NAN, None), ([2], None), (3, 0), (0, 0), (500, 0), (1.5, 0), (-1, 0), (2**31, 0)],
)  # fmt: skip
@pytest.mark.parametrize("default", AuctionType)
def test_the_auction_type_is_that_of_the_request_or_the_default(
    at: object, found: AuctionType | None, default: AuctionType
) -> None:
    """1 and 2 are known; another number is no bid; anything else is missing. `found` 0: unsupported, None: default."""
    model = flat_model()
    two = Scorer(artifact_of(Blueprint(model.spec, model.ctr, model.win, "EUR", default)))
    line = two.line_item(creative="", value_per_click=VALUE_PER_CLICK, cap_cpm=50.0)
    why = two.explain(request_of() | {"at": at}, line)
    if found == 0:
        assert why.reason is NoBidReason.UNSUPPORTED_AUCTION_TYPE
    else:
        assert why.auction_type is (found or default)
        assert why.bid_cpm > 0.0


def test_a_private_auction_is_not_for_open_bids(scorer: Scorer, line: LineItem) -> None:
    """Only deals may bid there; deals beside an open auction leave it open."""
    assert scorer.decide(request_of(pmp={"private_auction": 1}), line)[1] == NoBidReason.PRIVATE_AUCTION
    for pmp in (
        None,
        {},
        {"private_auction": 0, "deals": [{"id": "d"}]},
        {"private_auction": "1"},
        [1],
        "pmp",
    ):
        assert scorer.decide(request_of(pmp=pmp), line)[1] == NoBidReason.BID


def test_an_impression_is_chosen_by_its_index(scorer: Scorer, line: LineItem) -> None:
    """Out of range, negative or not an object: no bid."""
    request = {"at": 1, "imp": [{"bidfloor": 31.0, "bidfloorcur": "EUR"}, {}, None, "imp"]}
    assert scorer.bid(request, line, 0) == scorer.bid(request, line) == 31.0
    assert 0.0 < scorer.bid(request, line, 1) < 31.0
    for imp in (2, 3, 4, -1, 2**62):
        assert scorer.decide(request, line, imp) == (0.0, NoBidReason.INVALID_IMP)


@pytest.mark.parametrize(
    "request_", [None, 0, "imp", [], [{}], {}, {"imp": None}, {"imp": {}}, {"imp": ({},)}], ids=repr
)
def test_what_is_not_a_request_is_no_bid(scorer: Scorer, line: LineItem, request_: object) -> None:
    """Any object may be passed; one without a list of impressions is invalid."""
    assert scorer.decide(request_, line) == (0.0, NoBidReason.INVALID_REQUEST)
    assert scorer.decide({"imp": []}, line) == (0.0, NoBidReason.INVALID_IMP)


def test_a_cap_below_the_optimum_is_the_bid(scorer: Scorer) -> None:
    """A valid number may be clamped to the cap; a floor above the cap is no bid."""
    for cap in (5e-324, 0.01, 1.0):
        line = scorer.line_item(creative="", value_per_click=VALUE_PER_CLICK, cap_cpm=cap)
        assert scorer.bid(request_of(), line) == cap
        over = request_of(bidfloor=2.0, bidfloorcur="EUR")
        assert scorer.decide(over, line) == (0.0, NoBidReason.FLOOR_ABOVE_CAP)


def test_a_value_at_or_below_the_floor_is_no_bid(scorer: Scorer) -> None:
    """Winning would earn nothing."""
    line = scorer.line_item(creative="", value_per_click=0.01, cap_cpm=1e6)
    value = scorer.explain(request_of(), line).value_cpm
    for floor, reason in (
        (value, NoBidReason.VALUE_BELOW_FLOOR),
        (math.nextafter(value, INF), NoBidReason.VALUE_BELOW_FLOOR),
        (math.nextafter(value, 0.0), NoBidReason.BID),
    ):
        bid_cpm, found = scorer.decide(request_of(bidfloor=floor, bidfloorcur="EUR"), line)
        assert found == reason
        assert bid_cpm in (0.0, floor)


def test_nothing_is_bid_for_what_is_worth_nothing(scorer: Scorer) -> None:
    """No value per click, a paused line item, a value beyond doubles."""
    for money in (
        {"value_per_click": 0.0, "cap_cpm": 1.0},
        {"value_per_click": 1.0, "cap_cpm": 1.0, "pacing_multiplier": 0.0},
        {"value_per_click": 1e308, "cap_cpm": 1.0, "pacing_multiplier": 1e308},
    ):
        assert scorer.decide(request_of(), scorer.line_item(creative="", **money)) == (
            0.0,
            NoBidReason.NO_VALUE,
        )


def test_a_second_price_bid_is_the_value(scorer: Scorer) -> None:
    """Truthful, up to the cap; pacing scales it."""
    line = scorer.line_item(creative="", value_per_click=0.5, cap_cpm=1e6, margin=0.25, pacing_multiplier=0.5)
    why = scorer.explain(request_of() | {"at": 2}, line)
    assert why.bid_cpm == why.unshaded_bid_cpm == why.value_cpm * 0.5
    assert why.value_cpm == pytest.approx(1000 * why.pctr * 0.5 * 0.75, rel=1e-15)


def test_the_reasons_order_is_that_of_the_document(scorer: Scorer, line: LineItem) -> None:
    """A request that breaks several rules has the first one's reason: currency, private, auction type, floor."""
    breaks = [
        ({"cur": ["XXX"]}, {}, NoBidReason.UNKNOWN_CURRENCY),
        ({}, {"pmp": {"private_auction": 1}}, NoBidReason.PRIVATE_AUCTION),
        ({"at": 7}, {}, NoBidReason.UNSUPPORTED_AUCTION_TYPE),
        ({}, {"bidfloor": "x"}, NoBidReason.INVALID_FLOOR),
    ]
    for first in range(len(breaks)):
        top: dict[str, Any] = {}
        imp: dict[str, Any] = {}
        for outside, inside, _ in breaks[first:]:
            top |= outside
            imp |= inside
        assert scorer.decide(request_of(**imp) | top, line)[1] == breaks[first][2]


def test_strict_raises_where_the_hot_path_is_silent() -> None:
    """For tests and development: the reason is in the error; commercial no-bids stay silent."""
    strict = Scorer(artifact_of(flat_model()), rates=RATES, strict=True)
    line = strict.line_item(creative="", value_per_click=VALUE_PER_CLICK, cap_cpm=1.0)
    for request, reason in (
        (None, NoBidReason.INVALID_REQUEST),
        ({"imp": [None]}, NoBidReason.INVALID_IMP),
        (request_of(bidfloor="1"), NoBidReason.INVALID_FLOOR),
        (request_of(bidfloor=1, bidfloorcur="XXX"), NoBidReason.UNKNOWN_CURRENCY),
        (request_of() | {"at": 9}, NoBidReason.UNSUPPORTED_AUCTION_TYPE),
    ):
        for call in (strict.bid, strict.decide):
            with pytest.raises(RequestError) as raised:
                call(request, line)
            assert raised.value.reason is reason
        with pytest.raises(RequestError):
            strict.best(request, [line])
        assert strict.explain(request, line).reason is reason
    assert strict.decide(request_of(bidfloor=2.0, bidfloorcur="EUR"), line)[1] == NoBidReason.FLOOR_ABOVE_CAP
    assert strict.decide(request_of(pmp={"private_auction": 1}), line)[1] == NoBidReason.PRIVATE_AUCTION
    assert strict.bid(request_of(), line) == 1.0


def test_reasons_map_to_openrtb() -> None:
    """Invalid requests are nbr 2; commercial reasons have no code."""
    invalid = {NoBidReason.INVALID_REQUEST, NoBidReason.INVALID_IMP, NoBidReason.INVALID_FLOOR}
    assert {reason for reason in NoBidReason if reason.nbr == 2} == invalid
    assert {reason.nbr for reason in set(NoBidReason) - invalid} == {0}


_money = st.floats(0.0, 1e9) | st.sampled_from([5e-324, 1e-300, 1e300, 1.0])


@given(
    value=_money,
    cap=_money.filter(lambda x: x > 0.0),
    pacing=st.floats(0.0, 2.0),
    floor=st.none() | _money | st.floats(),
    at=st.sampled_from([None, 1, 2, 3]),
    code=st.sampled_from([None, "EUR", "USD", "GBP", "JPY"]),
    country=st.sampled_from(["DEU", "USA", None, 7]),
)
def test_any_money_keeps_the_guard(
    scorer: Scorer,
    value: float,
    cap: float,
    pacing: float,
    floor: object,
    at: object,
    code: object,
    country: object,
) -> None:
    """Whatever the amounts: the reason is the independent reading's, the bid is inside its bounds."""
    line = scorer.line_item(creative="", value_per_click=value, cap_cpm=cap, pacing_multiplier=pacing)
    request = request_of(bidfloor=floor, bidfloorcur=code) | {
        "at": at,
        "device": {"geo": {"country": country}},
    }
    bid_cpm, reason = scorer.decide(request, line)
    assert_guarded(scorer, request, line, bid_cpm)
    wanted = terms_of(request)[0]
    assert (reason == wanted) if wanted is not NoBidReason.BID else (reason in (0, 7, 8, 9))
    assert (bid_cpm > 0.0) == (reason == NoBidReason.BID)
