"""A category's own steps along a number: levels that lose little, steps that are the weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.encoding import Categories
from bidml.fit.slopes import Slopes, levels


@given(seed=st.integers(0, 2**16), n=st.integers(1, 200), n_bins=st.integers(1, 6))
def test_levels_are_the_means_of_their_rows(seed: int, n: int, n_bins: int) -> None:
    """At most 32, none empty; so few rows have levels of their own."""
    rng = np.random.default_rng(seed)
    weights, counts = rng.normal(size=(n, n_bins)), 1.0 + rng.poisson(3.0, (n, n_bins))
    level, found = levels(weights, counts)
    assert set(level.tolist()) == set(range(len(found)))
    assert len(found) == n if n <= 32 else len(found) <= 32
    for i, each in enumerate(found):
        mine = level == i
        assert each == pytest.approx(
            np.average(weights[mine], axis=0, weights=counts[mine].sum(axis=1)), abs=1e-5
        )


@pytest.mark.parametrize(("rank", "most"), [(1, 0.01), (2, 0.08)])
def test_levels_lose_little(rank: int, most: float) -> None:
    """The share of the variance of 3,000 categories' rows that 32 levels do not say."""
    rng = np.random.default_rng(rank)
    weights = rng.normal(size=(3_000, rank)) @ rng.normal(size=(rank, 17))
    counts = rng.poisson(rng.gamma(0.5, 20.0, 3_000)[:, None] * np.ones(17)).astype(float)
    level, found = levels(weights, counts)
    of_row = counts.sum(axis=1)
    lost = np.average(((found[level] - weights) ** 2).sum(axis=1), weights=of_row)
    spread = np.average(
        ((weights - np.average(weights, axis=0, weights=of_row)) ** 2).sum(axis=1), weights=of_row
    )
    assert lost < most * spread


def test_rows_that_are_alike_are_one_level() -> None:
    weights = np.repeat(np.array([[0.0, 0.0], [1.0, -1.0], [2.0, 3.0]]), 50, axis=0)
    level, found = levels(weights, np.ones_like(weights))
    assert found[level] == pytest.approx(weights)
    assert len(np.unique(found, axis=0)) == 3


def test_steps_are_the_weights_of_the_cells() -> None:
    """Of an app's bins, of what is missing, and of unseen apps."""
    rng = np.random.default_rng(1)
    apps = rng.integers(0, 20, 500).astype(str).astype(object)
    x = rng.normal(size=500)
    x[::7] = np.nan
    category, number = Categories.of("app", apps), BinnedNumber.of("x", x, n_bins=4)
    slopes = Slopes(category, number, number.codes(x))
    weights = rng.normal(size=slopes.n_codes)
    assert slopes.steps(weights).of({"app": apps, "x": x}) == pytest.approx(weights[slopes.codes])
    unseen = slopes.steps(weights).of({"app": np.array(["never"], dtype=object), "x": np.array([np.nan])})
    assert unseen == pytest.approx(weights[-1:])
    assert len(slopes.cells) == slopes.n_codes
    assert (slopes.cells.first * number.n_codes + slopes.cells.second == np.arange(slopes.n_codes)).all()
