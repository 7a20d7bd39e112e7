"""Exploration keeps its bounds, and the density that it logs is the one it draws from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from bidml.errors import ConfigError
from bidml.pricing import density_around, explore


@given(
    bid=st.floats(0.01, 100.0), sigma=st.floats(0.05, 1.0), below=st.floats(0.0, 1.0), above=st.floats(1.0, 5.0),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_jitter_stays_within_its_bounds(bid, sigma, below, above, seed):
    bids, density = explore(np.full(50, bid), np.random.default_rng(seed), sigma, 1.0, lowest_cpm=below * bid,
                            highest_cpm=above * bid)  # fmt: skip
    assert np.all((bids >= below * bid) & (bids <= above * bid))
    if below < above:
        assert np.all(density > 0.0)


def test_a_bid_outside_its_bounds_is_left_alone():
    bids, density = explore([1.0, 1.0, np.nan], np.random.default_rng(1), 0.3, 1.0, lowest_cpm=[2.0, 0.0, 0.0],
                            highest_cpm=[3.0, 0.5, 1.0])  # fmt: skip
    np.testing.assert_array_equal(bids, [1.0, 1.0, np.nan])
    assert np.isnan(density).all()


def test_the_share_explores_and_the_rest_is_untouched():
    bid = np.linspace(0.0, 5.0, 50_000)
    bids, density = explore(bid, np.random.default_rng(1), 0.3, 0.2)
    explored = ~np.isnan(density)
    assert explored.mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_array_equal(bids[~explored], bid[~explored])
    assert bids[0] == 0.0
    assert np.isnan(density[0])
    assert np.all(bids[explored] != bid[explored])


def test_without_bounds_the_log_bid_is_normal():
    bids, density = explore(np.full(20_000, 2.0), np.random.default_rng(2), 0.4, 1.0)
    z = np.log(bids / 2.0) / 0.4
    assert kstest(z, "norm").pvalue > 1e-3
    np.testing.assert_allclose(density, np.exp(-0.5 * z**2) / (0.4 * np.sqrt(2.0 * np.pi)), rtol=1e-12)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_density_counts_the_cuts_and_the_share(share):
    """Reweighted to the uniform distribution on an interval inside the cuts, the log integrates to 1."""
    n = 100_000
    bids, density = explore(np.ones(n), np.random.default_rng(3), 0.5, share, lowest_cpm=0.8, highest_cpm=1.6)
    inside = (bids > 0.85) & (bids < 1.5)
    weights = np.where(inside & ~np.isnan(density), 1.0 / (np.log(1.5 / 0.85) * density), 0.0)
    assert weights.mean() == pytest.approx(1.0, abs=5.0 * weights.std() / np.sqrt(n))
    grid = np.linspace(np.log(0.8), np.log(1.6), 2_001)
    cut = density_around(np.exp(grid), np.ones(2_001), 0.5, lowest_cpm=0.8, highest_cpm=1.6)
    assert np.trapezoid(cut, grid) == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize(("sigma", "share"), [(0.0, 0.1), (np.nan, 0.1), (0.3, 1.1), (0.3, np.nan)])
def test_impossible_exploration_is_refused(sigma, share):
    with pytest.raises(ConfigError, match="jitter"):
        explore([1.0], np.random.default_rng(1), sigma, share)
