"""Laws of the price, and its agreement with the oracle, the native scorer and SciPy."""

from __future__ import annotations

import dataclasses
from array import array

import numpy as np
import pytest
from artifacts import complete_blueprint, log_normal_blueprint
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.price_by_scipy import best_on_grid_cpm, optimum_by_root_cpm
from bidml.blueprint import WinFamily
from bidml.contract import MAX_LOG_SLOPE, MIN_LOG_SLOPE
from bidml.errors import DataError
from bidml.metadata import SelfCheck
from bidml.oracle import _price
from bidml.pricing import WinCurve, first_price_optimum_cpm, optimal_bid_cpm, surplus_cpm, value_cpm
from bidml.score import Scorer
from bidml.score.reader import Artifact

TOLERANCE = 1e-12


@dataclasses.dataclass(frozen=True)
class Auctions:
    """Random (v, m, k, γ, floor, cap), (n,) each."""

    value_cpm: np.ndarray
    curve: WinCurve
    floor_cpm: np.ndarray
    cap_cpm: np.ndarray


def random_auctions(n: int, seed: int, family: WinFamily = WinFamily.LOG_LOGISTIC) -> Auctions:
    rng = np.random.default_rng(seed)
    location = rng.uniform(-8.0, 8.0, n)
    shape = np.exp(rng.uniform(MIN_LOG_SLOPE, MAX_LOG_SLOPE, n))
    gamma = np.exp(rng.uniform(-2.0, 2.0, n))
    value = np.exp(location + rng.uniform(-10.0, 10.0, n))
    floor = np.where(rng.random(n) < 0.5, 0.0, value * np.exp(rng.normal(-1.0, 1.5, n)))
    cap = np.where(rng.random(n) < 0.5, np.inf, value * np.exp(rng.normal(0.0, 1.0, n)))
    cap = np.where(rng.random(n) < 0.05, floor, cap)
    return Auctions(value, WinCurve(location, shape, gamma, family), floor, cap)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest relative difference; rows that are 0 in both count as equal."""
    return float(np.max(np.abs(found - wanted) / np.where(wanted == 0.0, 1.0, np.abs(wanted))))


positive = st.floats(1e-6, 1e6)
curves = st.builds(
    WinCurve, st.floats(-8.0, 8.0), st.floats(0.05, 55.0), st.floats(0.1, 10.0), st.sampled_from(WinFamily)
)
both_families = pytest.mark.parametrize("family", WinFamily)


@given(value=positive, curve=curves, floor=st.just(0.0) | positive, cap=st.just(np.inf) | positive,
       auction_type=st.sampled_from([1, 2]), pacing=st.floats(0.0, 2.0))  # fmt: skip
def test_bid_is_zero_or_between_floor_and_cap_and_paced_value(value, curve, floor, cap, auction_type, pacing):
    bid = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=cap, auction_type=auction_type,
                          pacing_multiplier=pacing)[0]  # fmt: skip
    if value * pacing > floor and cap >= floor:
        assert floor <= bid <= min(cap, value * pacing)
        assert bid > 0.0
    else:
        assert bid == 0.0


@given(value=positive, factor=st.floats(1.0, 100.0), curve=curves)
def test_bid_grows_with_value_and_never_faster_than_it(value, factor, curve):
    low, high = optimal_bid_cpm([value, value * factor], curve)
    assert low <= high * (1.0 + TOLERANCE)
    assert high <= low * factor * (1.0 + TOLERANCE)  # the elasticity 1 − kF/(k+1) is below 1


@given(value=positive, curve=curves, factor=st.floats(1e-3, 1e3))
def test_a_change_of_currency_scales_the_bid(value, curve, factor):
    bid = optimal_bid_cpm(value, curve)
    scaled = optimal_bid_cpm(
        value * factor, WinCurve(curve.location + np.log(factor), curve.shape, curve.gamma, curve.family)
    )
    assert scaled == pytest.approx(bid * factor, rel=1e-11)


@both_families
def test_no_bid_on_a_grid_of_ten_thousand_earns_more(family):
    auctions = random_auctions(400, seed=1, family=family)
    bid = optimal_bid_cpm(auctions.value_cpm, auctions.curve, floor_cpm=auctions.floor_cpm,
                          cap_cpm=auctions.cap_cpm)  # fmt: skip
    earned = surplus_cpm(auctions.value_cpm, bid, auctions.curve.win_rate(bid))
    best = best_on_grid_cpm(auctions.value_cpm, auctions.curve, auctions.floor_cpm, auctions.cap_cpm)
    assert np.all(earned >= best * (1.0 - 1e-13))
    assert np.count_nonzero(bid) > 200


@both_families
def test_optimum_is_the_root_of_the_first_order_condition(family):
    auctions = random_auctions(200_000, seed=2, family=family)
    found = first_price_optimum_cpm(auctions.value_cpm, auctions.curve)
    wanted = optimum_by_root_cpm(auctions.value_cpm, auctions.curve)
    assert relative(found, wanted) <= TOLERANCE


@both_families
def test_bid_agrees_with_the_pure_python_oracle(family):
    auctions = random_auctions(20_000, seed=3, family=family)
    rng = np.random.default_rng(3)
    pacing, kind = rng.uniform(0.0, 1.5, 20_000), rng.integers(0, 4, 20_000)
    bid = optimal_bid_cpm(auctions.value_cpm, auctions.curve, floor_cpm=auctions.floor_cpm,
                          cap_cpm=auctions.cap_cpm, pacing_multiplier=pacing, auction_type=kind)  # fmt: skip
    curve = auctions.curve
    oracle = np.array([
        _price(1.0, m, k, gamma, v / 1000.0, floor, cap, p, float(at), family=family)
        for v, m, k, gamma, floor, cap, p, at in zip(
            auctions.value_cpm, curve.location, curve.shape, curve.gamma, auctions.floor_cpm, auctions.cap_cpm,
            pacing, kind, strict=True)
    ])  # fmt: skip
    assert relative(bid, oracle[:, 0]) <= TOLERANCE
    has_bid = bid > 0.0
    assert relative(curve[has_bid].win_rate(bid[has_bid]), oracle[has_bid, 1]) <= TOLERANCE
    assert 5_000 < np.count_nonzero(has_bid) < 15_000


@pytest.mark.parametrize("blueprint", [complete_blueprint(), log_normal_blueprint()])
def test_bid_agrees_with_the_native_scorer(blueprint):
    rng = np.random.default_rng(4)
    n = 20_000
    scorer = Scorer(Artifact(blueprint, SelfCheck({}, {}), ""))
    columns = {
        "hour": rng.uniform(0.0, 24.0, n),
        "country": rng.choice(["", "DEU", "USA", "Ελλάδα", "FRA"], n).tolist(),
        "lat": rng.uniform(-90.0, 90.0, n),
        "creative": rng.choice(["320x50", "other"], n).tolist(),
        "unused_number": np.zeros(n),
        "unused_text": [""] * n,
        "value_per_click": np.exp(rng.normal(-1.0, 2.0, n)),
        "floor_cpm": rng.choice([0.0, 0.1, 1.0, np.nan, -1.0], n),
        "cap_cpm": rng.choice([np.inf, 3.0, 1.0, np.nan], n, p=[0.5, 0.3, 0.1, 0.1]),
        "pacing_multiplier": rng.uniform(0.0, 1.5, n),
        "auction_type": rng.choice([1.0, 2.0, 3.0], n, p=[0.7, 0.2, 0.1]),
    }
    out = {
        name: array("d", bytes(8 * n))
        for name in ("pctr", "win_location", "win_shape", "bid_cpm", "win_rate")
    }
    scorer.score_many(columns, out)
    native = {name: np.frombuffer(buffer) for name, buffer in out.items()}
    curve = WinCurve(native["win_location"], native["win_shape"], blueprint.win.gamma, blueprint.win.family)
    prices = {name: columns[name] for name in ("floor_cpm", "cap_cpm", "pacing_multiplier", "auction_type")}
    bid = optimal_bid_cpm(value_cpm(native["pctr"], columns["value_per_click"]), curve, **prices)
    assert relative(bid, native["bid_cpm"]) <= TOLERANCE
    rate = np.where(bid > 0.0, curve.win_rate(np.where(bid > 0.0, bid, 1.0)), 0.0)
    assert relative(rate, native["win_rate"]) <= TOLERANCE
    assert 3_000 < np.count_nonzero(bid) < 17_000


def test_second_price_bids_the_value():
    auctions = random_auctions(1_000, seed=5)
    bid = optimal_bid_cpm(auctions.value_cpm, auctions.curve, auction_type=2)
    np.testing.assert_array_equal(bid, auctions.value_cpm)


@pytest.mark.parametrize("nonsense", [np.nan, -1.0, -np.inf])
def test_nonsense_is_a_no_bid(nonsense):
    curve = WinCurve(0.0, 2.0)
    for argument in ("floor_cpm", "cap_cpm", "pacing_multiplier", "auction_type"):
        assert optimal_bid_cpm(2.0, curve, **{argument: nonsense}) == 0.0
    assert optimal_bid_cpm(nonsense, curve) == 0.0
    assert (
        optimal_bid_cpm(nonsense, curve, pacing_multiplier=nonsense) == 0.0
    )  # twice negative is not positive
    assert optimal_bid_cpm(np.inf, curve) == 0.0
    assert optimal_bid_cpm(2.0, curve, floor_cpm=np.inf) == 0.0


@both_families
def test_edges_of_value_slope_and_probability(family):
    flat, steep, tiny, sure = (
        WinCurve(0.0, 1e-4, family=family),
        WinCurve(0.0, 2e4, family=family),
        value_cpm(1e-8, 0.5),
        value_cpm(1.0, 0.5),
    )
    at_even_odds = 0.5 if family is WinFamily.LOG_LOGISTIC else np.sqrt(2.0 / np.pi)  # G'/G
    # nothing to gain by bidding more
    assert optimal_bid_cpm(2.0, flat)[0] == pytest.approx(0.0002 * at_even_odds, rel=1e-3)
    assert optimal_bid_cpm(2.0, steep)[0] == pytest.approx(1.0, rel=1e-3)  # the price is known: pay it
    assert optimal_bid_cpm(0.5, steep)[0] == pytest.approx(0.5, rel=1e-3)  # out of reach: nearly the value
    plain = WinCurve(0.0, 2.0, family=family)
    assert 0.0 < optimal_bid_cpm(tiny, plain)[0] < tiny
    assert 0.0 < optimal_bid_cpm(sure, plain)[0] < sure
    assert optimal_bid_cpm(2.0, plain, floor_cpm=1.5, cap_cpm=1.5)[0] == 1.5
    assert optimal_bid_cpm(2.0, plain, floor_cpm=2.0)[0] == 0.0


@given(curve=curves, win_rate=st.floats(0.01, 0.99))
def test_quantile_is_the_inverse_of_the_win_rate(curve, win_rate):
    price = curve.quantile_cpm(win_rate)
    if np.all((price > 1e-200) & (price < 1e200)):
        assert curve.win_rate(price)[0] == pytest.approx(win_rate, rel=1e-9)


@given(curve=curves, logit=st.floats(-5.0, 5.0))
def test_density_is_the_slope_of_the_win_rate(curve, logit):
    bid = np.exp(curve.location + logit / curve.shape)
    step = 1e-5 * bid / curve.shape
    slope = (curve.win_rate(bid + step) - curve.win_rate(bid - step)) / (2.0 * step)
    assert curve.density(bid)[0] == pytest.approx(slope[0], rel=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"family": "weibull"},
        {"shape": 0.0},
        {"shape": np.nan},
        {"shape": np.inf},
        {"location": np.inf},
        {"gamma": -1.0},
    ],
)
def test_an_impossible_curve_is_refused(wrong):
    with pytest.raises(DataError, match="win curve"):
        WinCurve(**{"location": 0.0, "shape": 1.0, **wrong})
    with pytest.raises(DataError, match="one row per auction"):
        optimal_bid_cpm([1.0, 2.0], WinCurve([0.0, 0.0, 0.0], 1.0))
