"""The native price against SciPy and a grid on random curves; clipping to floor and cap is exact."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.price_exactness import differences
from bidml.blueprint import WinFamily
from bidml.pricing import WinCurve, optimal_bid_cpm, surplus_cpm


@pytest.mark.parametrize("family", WinFamily)
@pytest.mark.parametrize("gamma", [0.1, 1.0, 8.0])
def test_native_bids_are_scipy_s_and_no_grid_point_earns_more(gamma, family):
    """10^5 rows in all; `python -m benchmarks.price_exactness` takes 10^7."""
    found = differences(35_000, gamma, np.random.default_rng(51), n_full_grid=300, family=family)
    assert found.exact, found
    assert found.n_bids > 20_000


@pytest.mark.parametrize("family", WinFamily)
def test_floor_cap_and_value_never_lose_surplus_to_their_neighbours(family):
    """At a bound the surplus points out of the interval, so that clipping is exact."""
    rng = np.random.default_rng(52)
    n = 50_000
    curve = WinCurve(
        rng.normal(0.0, 1.0, n), np.exp(rng.uniform(-2.0, 3.5, n)), np.exp(rng.normal(0.0, 1.0, n)), family
    )
    value = np.exp(curve.location + rng.normal(0.0, 2.0, n))
    floor, cap = value * rng.random(n), value * rng.uniform(0.0, 2.0, n)
    bid = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=cap)
    earned = surplus_cpm(value, bid, curve.win_rate(bid))
    for factor in (0.5, 0.9, 0.999, 1.001, 1.1, 2.0):
        other = np.minimum(np.maximum(factor * bid, floor), np.minimum(cap, value))
        other = np.where(bid > 0.0, other, 0.0)
        assert np.all(surplus_cpm(value, other, curve.win_rate(other)) <= earned * (1.0 + 1e-12))
