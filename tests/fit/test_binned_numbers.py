"""Steps of a number as trees: the same sum, edges and missing values included."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bidml.features import tree_sums
from bidml.fit.binned_numbers import BinnedNumber, steps_as_trees

numbers = st.lists(st.floats(-5.0, 5.0) | st.just(float("nan")) | st.integers(-3, 3).map(float), min_size=1)


@given(cells=numbers, seed=st.integers(0, 2**16))
def test_trees_of_steps_sum_the_weights_of_bins(cells: list[float], seed: int) -> None:
    """On the data, on every edge, one ulp beside it, and far outside."""
    x = np.array(cells)
    binned = BinnedNumber.of("x", x, n_bins=6)
    w = np.random.default_rng(seed).normal(size=binned.n_codes)
    columns, trees = steps_as_trees([binned], [w])
    assert trees is not None
    around = [np.nextafter(binned.edges, -np.inf), binned.edges, np.nextafter(binned.edges, np.inf)]
    rows = np.concatenate([x, *around, [-1e300, 1e300, np.nan]])
    assert [column.feature for column in columns] == ["x"]
    np.testing.assert_allclose(tree_sums(rows[:, None], trees), w[binned.codes(rows)], atol=1e-12)


def test_no_weight_no_tree() -> None:
    """Numbers without effect leave the head."""
    flat = BinnedNumber.of("flat", np.arange(100.0))
    used = BinnedNumber.of("used", np.arange(100.0), n_bins=2)
    columns, trees = steps_as_trees([flat, used], [np.zeros(flat.n_codes), np.array([0.5, -0.5, 0.0])])
    assert [column.feature for column in columns] == ["used"]
    assert trees is not None
    assert trees.n_trees == 2
    assert steps_as_trees([flat], [np.zeros(flat.n_codes)]) == ((), None)
