"""Replay: bounds hold the truth, what is known is kept, no budget is exceeded; and it equals the obvious loop."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.errors import ConfigError, DataError
from bidml.pacing import BudgetPacer, DualDescent, TrafficForecast
from bidml.pricing import WinCurve, optimal_bid_cpm
from bidml.replay import Bounded, ReplayAuctions, ReplayResult, outcomes, replay, value_bidder
from bidml.simulate import Market, Simulation, simulate

MONEY = ("wins", "spend", "value", "surplus", "clicks")


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """Exchanges of every feedback regime and auction type, floors, non-price losses."""
    return simulate(30_000, rng=np.random.default_rng(5), market=Market(bid_noise=0.4))


def true_curve(simulation: Simulation) -> WinCurve:
    return WinCurve(simulation.truth.location, 1.0 / simulation.truth.scale)


def told(simulation: Simulation) -> ReplayAuctions:
    """As a real log tells it."""
    return ReplayAuctions.from_log(simulation.log.drop(columns="true_market_price_cpm"))


prices = st.floats(0.1, 8.0)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[ReplayAuctions, ReplayAuctions, np.ndarray]:
    """Auctions as they are, as a log tells of them, and bids."""
    n = draw(st.integers(1, 8))

    def column(strategy: st.SearchStrategy[float]) -> np.ndarray:
        return np.array(draw(st.lists(strategy, min_size=n, max_size=n)), dtype=np.float64)

    market, logged = column(prices), column(prices)
    winnable = column(st.sampled_from([1.0, 1.0, 1.0, 0.0])) > 0
    won = winnable & (logged >= market)
    tells = column(st.sampled_from([0.0, 1.0])) > 0
    lower = np.where(winnable & ~won, logged, 0.0)
    upper = np.where(won, logged, np.inf)
    exact = tells & winnable
    lower, upper = np.where(exact, market, lower), np.where(exact, market, upper)
    clicked = won & (column(st.sampled_from([0.0, 1.0])) > 0)
    truth = ReplayAuctions(
        lower_cpm=market,
        upper_cpm=market,
        winnable=winnable,
        floor_cpm=column(st.sampled_from([0.0, 0.0, 0.5, 2.0])),
        auction_type=column(st.sampled_from([1.0, 2.0])),
        value_cpm=column(st.floats(0.0, 10.0)),
        pctr=column(st.floats(0.0, 1.0)),
        bid_cpm=logged,
        won=won,
        clicked=clicked,
        realised_value_cpm=500.0 * clicked,
    )
    bids = column(prices | st.just(0.0))
    same = column(st.sampled_from([0.0, 1.0])) > 0
    return truth, replace(truth, lower_cpm=lower, upper_cpm=upper), np.where(same, logged, bids)


def by_hand(auctions: ReplayAuctions, bids: np.ndarray, budget: float) -> tuple[int, float, float, float]:
    """(wins, spend, surplus, clicks) one auction after the other, prices known."""
    wins, micro, value, clicks = 0, [], [], 0.0
    for i, bid in enumerate(bids):
        price = auctions.lower_cpm[i]
        if not (auctions.winnable[i] and bid > 0.0 and bid >= price and bid >= auctions.floor_cpm[i]):
            continue
        if math.fsum(micro) + bid > 1000.0 * budget * (1.0 + 1e-12):
            break
        micro.append(bid if auctions.auction_type[i] == 1.0 else max(price, auctions.floor_cpm[i]))
        value.append(auctions.value_cpm[i])
        wins += 1
        clicks += auctions.clicked[i] if auctions.won[i] else auctions.pctr[i]
    return wins, math.fsum(micro) / 1000.0, (math.fsum(value) - math.fsum(micro)) / 1000.0, clicks


@given(worlds(), st.floats(1e-3, 0.05) | st.just(1e3))
def test_known_prices_replay_as_the_obvious_loop(world, budget):
    truth, _, bids = world
    found = replay(bids, truth, budget=budget)
    expected = by_hand(truth, bids, budget)
    assert found.n_unknown == 0
    assert found.wins.is_known
    for have, want in zip((found.wins, found.spend, found.surplus, found.clicks), expected, strict=True):
        assert have.lower == pytest.approx(want, abs=1e-12)
        assert have.upper == pytest.approx(want, abs=1e-12)


@given(worlds(), st.none() | st.floats(1e-3, 0.05), st.floats(-1.0, 2.0), st.floats(0.3, 9.0))
def test_bounds_hold_what_would_have_happened(world, budget, location, shape):
    """Whatever the feedback, the auction types, the floors; and the estimate lies between, whatever the curve."""
    truth, logged, bids = world
    real = replay(bids, truth, budget=budget)
    found = replay(bids, logged, curve=WinCurve(location, shape), budget=budget)
    assert found.rigorous
    for name in (*MONEY, "bids", "ended_at", "win_rate"):
        have, actual = getattr(found, name), getattr(real, name).lower
        if name != "clicks":
            assert have.lower - 1e-12 <= actual <= have.upper + 1e-12, name
        assert have.lower <= have.estimate + 1e-12, name
        assert have.estimate <= have.upper + 1e-12, name
    if budget is not None:
        assert found.spend.upper <= budget * (1.0 + 1e-9)


@given(worlds())
def test_the_logged_bids_replay_as_logged(world):
    """What was done is known: no bound is open, no curve is asked, but for prices that second price never told."""
    _, logged, _ = world
    valid = logged[np.flatnonzero(logged.bid_cpm >= logged.floor_cpm)]
    if len(valid) == 0:
        return
    found = replay(valid.bid_cpm, valid)
    assert found.n_unknown == 0
    assert found.wins == Bounded(valid.won.sum(), found.wins.estimate, valid.won.sum())
    assert found.clicks.lower == found.clicks.upper == valid.clicked.sum() == found.clicks_seen


def test_taking_the_unknown_for_lost_is_outside_the_truth(simulation):
    """The broken twin: the usual replay, which counts an open auction as a loss, misses by far."""
    known = ReplayAuctions.from_log(simulation.log)
    bids = optimal_bid_cpm(1.5 * known.value_cpm, true_curve(simulation), floor_cpm=known.floor_cpm)
    truth = replay(bids, known).wins.lower
    found = replay(bids, told(simulation), curve=true_curve(simulation))
    assert found.wins.lower < 0.95 * truth
    assert truth in found.wins
    assert found.wins.estimate == pytest.approx(truth, rel=0.02)


def test_the_estimate_is_unbiased_with_the_true_curve(simulation):
    """Wins, spend and surplus within 4 standard errors of the true prices' replay, for each auction type by itself."""
    known, logged, curve = ReplayAuctions.from_log(simulation.log), told(simulation), true_curve(simulation)
    bids = optimal_bid_cpm(known.value_cpm, curve, floor_cpm=known.floor_cpm, auction_type=known.auction_type)
    for auction_type in (1.0, 2.0):
        rows = np.flatnonzero(known.auction_type == auction_type)
        imputed = outcomes(logged[rows], bids[rows], curve[rows])
        real = outcomes(known[rows], bids[rows])
        value = known.value_cpm[rows]
        assert np.count_nonzero(~imputed.known) > 500
        for of in (
            lambda o: o.win_rate,
            lambda o: np.where(o.win_rate > 0.0, o.win_rate * o.price_cpm, 0.0),
            lambda o, v=value: np.where(o.win_rate > 0.0, o.win_rate * (v - o.price_cpm), 0.0),
        ):
            difference = of(imputed) - of(real)
            assert abs(difference.sum()) < 4.0 * np.sqrt(len(rows)) * difference.std()


def test_prices_of_second_price_are_those_of_the_true_market(simulation):
    """The imputed price of an open win is the mean of max(M, floor) below the bid: checked by drawing M."""
    rng = np.random.default_rng(3)
    curve, n = WinCurve(0.4, 2.5), 200_000
    market = curve.quantile_cpm(rng.random(n))
    logged, bid, floor = 1.2, 2.0, 0.9
    one = replace(told(simulation)[:1], lower_cpm=np.array([logged]), upper_cpm=np.array([np.inf]),
                  winnable=np.array([True]), floor_cpm=np.array([floor]), auction_type=np.array([2.0]),
                  won=np.array([False]), clicked=np.array([False]),
                  realised_value_cpm=np.array([0.0]))  # fmt: skip
    found = outcomes(one, np.array([bid]), curve)
    inside = (market > logged) & (market <= bid)
    assert found.win_rate[0] == pytest.approx(inside.sum() / (market > logged).sum(), abs=0.01)
    assert found.price_cpm[0] == pytest.approx(np.maximum(market[inside], floor).mean(), abs=0.01)


def test_a_higher_floor_and_another_auction_type_are_replayed(simulation):
    """Under another floor bids below it win nothing; under second price the same wins cost less."""
    log = simulation.log
    known = ReplayAuctions.from_log(log, auction_type=1)
    second = ReplayAuctions.from_log(log, auction_type=2)
    dear = ReplayAuctions.from_log(log, auction_type=1, floor_cpm=known.floor_cpm + 1.0)
    bids = log["bid_cpm"].to_numpy()
    first_price, second_price, floored = (replay(bids, auctions) for auctions in (known, second, dear))
    assert second_price.wins == first_price.wins
    assert second_price.spend.upper < first_price.spend.lower
    assert floored.wins.upper < first_price.wins.lower


def test_a_pacer_keeps_its_budget_over_the_day(simulation):
    """Spend stays below the budget in every scenario, reaches the end of the day, and buys more than a hard stop."""
    auctions, curve = told(simulation), true_curve(simulation)
    bidder = value_bidder(
        lambda values: optimal_bid_cpm(values, WinCurve(np.median(curve.location), 3.0)), auctions.value_cpm
    )
    free = replay(bidder, auctions, curve=curve)
    budget = 0.3 * free.spend.estimate
    pacer = BudgetPacer(budget, TrafficForecast.flat(96, len(auctions)), DualDescent())
    before = pacer.to_json()
    paced = replay(bidder, auctions, curve=curve, pacer=pacer)
    stopped = replay(bidder, auctions, curve=curve, budget=budget)
    assert pacer.to_json() == before
    assert paced.spend.upper <= budget * (1.0 + 1e-9)
    assert paced.ended_at.estimate > 0.97 * len(auctions)
    assert stopped.ended_at.upper < len(auctions)
    assert 0.9 * budget < paced.spend.estimate
    assert paced.surplus.estimate > 1.1 * stopped.surplus.estimate
    assert not paced.rigorous
    assert "scenarios" in paced.censoring
    assert stopped.rigorous
    ends = np.r_[np.arange(1, 96) * 10, len(auctions)]
    assert (
        replay(bidder, auctions, curve=curve, pacer=pacer, window_ends=ends).spend.upper <= budget * 1.000001
    )


def test_without_a_curve_there_are_bounds_only(simulation):
    bids = 0.5 * told(simulation).value_cpm
    found = replay(bids, told(simulation), budget=5.0)
    assert found.surplus.estimate is None
    assert found.ecpc is None
    assert found.spend.lower < found.spend.upper <= 5.0
    assert "no win curve" in str(found)


def test_a_result_says_its_units_and_its_bias_and_is_json(simulation):
    found = replay(told(simulation).value_cpm, told(simulation), curve=true_curve(simulation))
    text = str(found)
    for words in ("USD", "impressions", "surplus", "the log does not tell", "bounds"):
        assert words in text
    document = json.loads(json.dumps(found.to_json()))
    assert document["surplus"]["lower"] <= document["surplus"]["estimate"] <= document["surplus"]["upper"]
    assert document["censoring"] == found.censoring
    assert isinstance(found, ReplayResult)


def test_errors_say_what_to_do(simulation):
    log, auctions = simulation.log, told(simulation)[:5]
    with pytest.raises(DataError, match="one finite bid"):
        replay(np.array([1.0, np.nan, 1.0, 1.0, 1.0]), auctions)
    with pytest.raises(DataError, match="one bid per auction"):
        replay(np.ones(4), auctions)
    with pytest.raises(ConfigError, match="budget is above 0"):
        replay(np.ones(5), auctions, budget=0.0)
    with pytest.raises(DataError, match="win curve per auction"):
        replay(np.ones(5), auctions, curve=WinCurve([0.0, 1.0], 1.0))
    with pytest.raises(DataError, match="what a click is likely to be"):
        ReplayAuctions.from_log(log.drop(columns="true_pctr"))
    with pytest.raises(DataError, match="every auction"):
        ReplayAuctions.from_log(log.assign(sampling_rate=0.5))
    with pytest.raises(DataError, match="what a click is worth"):
        ReplayAuctions.from_log(log.drop(columns="value_per_click"))
    with pytest.raises(DataError, match="has auctions"):
        replay(np.ones(0), auctions[:0])
    pacer = BudgetPacer(1.0, TrafficForecast.flat(3, 5), DualDescent())
    with pytest.raises(ConfigError, match="pacer changes bids"):
        replay(np.ones(5), auctions, pacer=pacer)
    with pytest.raises(ConfigError, match="brings its budget"):
        replay(lambda rows, m: np.ones(5), auctions, pacer=pacer, budget=2.0)
    with pytest.raises(DataError, match="windows end in order"):
        replay(lambda rows, m: np.ones(5), auctions, pacer=pacer, window_ends=[1, 2, 3])
