"""Steps of a number as trees: the same sum, edges and missing values included."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bidml.features import tree_sums
from bidml.fit.binned_numbers import BinnedNumber, steps_as_trees
from bidml.tree_builder import joined

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


@given(seed=st.integers(0, 2**16), n_bins=st.integers(2, 9), other_bins=st.integers(2, 9))
def test_joined_trees_sum_what_both_do(seed: int, n_bins: int, other_bins: int) -> None:
    """A number that both read is one column."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(30, 3))
    cells[rng.random((30, 3)) < 0.1] = np.nan
    sums, parts = np.zeros(30), []
    for features, bins in (((0, 1), n_bins), ((1, 2), other_bins)):
        numbers = [BinnedNumber.of(f"x{i}", cells[:, i], n_bins=bins) for i in features]
        weights = [rng.normal(size=number.n_codes) for number in numbers]
        parts += steps_as_trees(numbers, weights)
        sums += sum(w[n.codes(cells[:, i])] for i, n, w in zip(features, numbers, weights, strict=True))
    columns, trees = joined(*parts)
    assert [column.feature for column in columns] == ["x0", "x1", "x2"]
    assert trees is not None
    np.testing.assert_allclose(tree_sums(cells, trees), sums, atol=1e-12)
    assert joined(*parts[:2], (), None) == tuple(parts[:2]) == joined((), None, *parts[:2])


def test_sixteen_bins_and_the_missing_are_a_tree_of_depth_five() -> None:
    """What the engine walks in one step."""
    binned = BinnedNumber.of("x", np.arange(1000.0), n_bins=16)
    _, trees = steps_as_trees([binned], [np.arange(1.0, binned.n_codes + 1.0)])
    assert trees is not None
    depth = [1] * trees.n_nodes
    for i in range(trees.n_nodes):
        for child, is_leaf in (
            (trees.true_child[i], trees.true_is_leaf[i]),
            (trees.false_child[i], trees.false_is_leaf[i]),
        ):
            if not is_leaf:
                depth[child] = depth[i] + 1
    assert max(depth) == 5
    assert trees.n_trees == 1


def test_no_weight_no_tree() -> None:
    """Numbers without effect leave the head."""
    flat = BinnedNumber.of("flat", np.arange(100.0))
    used = BinnedNumber.of("used", np.arange(100.0), n_bins=2)
    columns, trees = steps_as_trees([flat, used], [np.zeros(flat.n_codes), np.array([0.5, -0.5, 0.0])])
    assert [column.feature for column in columns] == ["used"]
    assert trees is not None
    assert trees.n_trees == 1
    assert steps_as_trees([flat], [np.zeros(flat.n_codes)]) == ((), None)
