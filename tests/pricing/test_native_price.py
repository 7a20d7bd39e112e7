"""The native price against SciPy on random curves: the location and the slope of each row come from a category."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from price_by_scipy import optimum_by_root_cpm

from bidml.blueprint import Blueprint, CtrBlueprint, Head, Lookup, WinBlueprint
from bidml.contract import MAX_LOG_SLOPE, MIN_LOG_SLOPE, Feature, FeatureKind, FeatureSpec
from bidml.metadata import SelfCheck
from bidml.pricing import WinCurve, optimal_bid_cpm, surplus_cpm
from bidml.score import Scorer
from bidml.score.reader import Artifact

TOLERANCE = 1e-12
N_LEVELS = 3_000
SPEC = FeatureSpec(
    (
        Feature("location", FeatureKind.CATEGORY, "app.bundle"),
        Feature("slope", FeatureKind.CATEGORY, "imp.tagid"),
    )
)


def scorer_of_random_curves(gamma: float, rng: np.random.Generator) -> Scorer:
    """An artifact whose win curve is any of N_LEVELS² by the two categories; pctr is 1/2."""
    keys = tuple(sorted(str(i) for i in range(N_LEVELS)))
    ln_k = rng.uniform(MIN_LOG_SLOPE, MAX_LOG_SLOPE, N_LEVELS)
    location = Lookup("location", keys, array("d", rng.uniform(-60.0, 60.0, N_LEVELS)), 0.0)
    slope = Lookup("slope", keys, array("d", ln_k), 0.0)
    win = WinBlueprint(
        Head((), None, (location,)), Head((), None, (slope,)), reference_log_bid_cpm=0.3, gamma=gamma
    )
    blueprint = Blueprint(spec=SPEC, ctr=CtrBlueprint(Head((), None)), win=win, currency="USD")
    return Scorer(Artifact(blueprint, SelfCheck({}, {}), ""))


def native_errors(n: int, gamma: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """The largest relative differences of the native bid from SciPy's and from NumPy's, and of the win rate."""
    scorer = scorer_of_random_curves(gamma, rng)
    columns = {name: rng.integers(0, N_LEVELS, n).astype(str).tolist() for name in SPEC.names}
    found = {name: np.empty(n) for name in ("win_location", "win_shape", "bid_cpm", "win_rate")}
    curve_only = {name: found[name] for name in ("win_location", "win_shape")}
    scorer.score_many(columns, curve_only)
    m, k = found["win_location"], found["win_shape"]
    ln_value = np.clip(m + rng.uniform(-12.0, 12.0, n), -300.0, 300.0)
    value = np.exp(ln_value)
    floor = np.where(rng.random(n) < 0.3, value * np.exp(rng.normal(-1.0, 1.5, n)), 0.0)
    cap = np.where(rng.random(n) < 0.3, value * np.exp(rng.normal(-0.5, 1.0, n)), np.inf)
    prices = {"floor_cpm": floor, "cap_cpm": cap, "pacing_multiplier": 1.0, "auction_type": 1.0}
    scorer.score_many({**columns, "value_per_click": value / 500.0, **prices}, found)
    value = 1000.0 * 0.5 * (value / 500.0)
    curve = WinCurve(m, k, gamma)
    root = optimum_by_root_cpm(value, curve)
    valid = (cap >= floor) & (value > floor)
    scipy_bid = np.where(valid, np.minimum(np.maximum(root, floor), np.minimum(cap, value)), 0.0)
    numpy_bid = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=cap)
    bid = found["bid_cpm"]
    assert np.array_equal(bid > 0.0, scipy_bid > 0.0)
    assert not np.isnan(bid).any()
    has_bid = (bid > 0.0) & (found["win_rate"] > 1e-290)  # subnormal rates have no 12 digits
    rates = curve[has_bid].win_rate(bid[has_bid])
    return (
        _largest(bid[has_bid], scipy_bid[has_bid]),
        _largest(bid[has_bid], numpy_bid[has_bid]),
        _largest(found["win_rate"][has_bid], rates),
    )


def _largest(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted) / wanted))


@pytest.mark.parametrize("gamma", [0.1, 1.0, 8.0])
def test_native_bids_are_scipy_s(gamma):
    by_scipy, by_numpy, rates = native_errors(40_000, gamma, np.random.default_rng(51))
    assert by_scipy <= TOLERANCE
    assert by_numpy <= TOLERANCE
    assert rates <= TOLERANCE


def test_floor_cap_and_value_never_lose_surplus_to_their_neighbours():
    """At a bound the surplus points out of the interval, so that clipping is exact."""
    rng = np.random.default_rng(52)
    n = 50_000
    curve = WinCurve(
        rng.normal(0.0, 1.0, n), np.exp(rng.uniform(-2.0, 3.5, n)), np.exp(rng.normal(0.0, 1.0, n))
    )
    value = np.exp(curve.location + rng.normal(0.0, 2.0, n))
    floor, cap = value * rng.random(n), value * rng.uniform(0.0, 2.0, n)
    bid = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=cap)
    earned = surplus_cpm(value, bid, curve.win_rate(bid))
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        other = np.minimum(np.maximum(factor * bid, floor), np.minimum(cap, value))
        other = np.where(bid > 0.0, other, 0.0)
        assert np.all(surplus_cpm(value, other, curve.win_rate(other)) <= earned * (1.0 + 1e-12))
