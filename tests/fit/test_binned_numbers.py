"""Steps of a number as trees: the same sum, edges and missing values included."""

from __future__ import annotations

from array import array

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Head, Lookup, Trees
from bidml.features import encode, tree_sums
from bidml.fit.binned_numbers import BinnedNumber, Steps, steps_as_trees
from bidml.tree_builder import joined

numbers = st.lists(st.floats(-5.0, 5.0) | st.just(float("nan")) | st.integers(-3, 3).map(float), min_size=1)


@given(cells=numbers, seed=st.integers(0, 2**16))
def test_trees_of_steps_sum_the_weights_of_bins(cells: list[float], seed: int) -> None:
    """On the data, on every edge, one ulp beside it, and far outside."""
    x = np.array(cells)
    binned = BinnedNumber.of("x", x, n_bins=6)
    w = np.random.default_rng(seed).normal(size=binned.n_codes)
    columns, trees = steps_as_trees([Steps(binned, w[None])])
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
        parts += steps_as_trees([Steps(n, w[None]) for n, w in zip(numbers, weights, strict=True)])
        sums += sum(w[n.codes(cells[:, i])] for i, n, w in zip(features, numbers, weights, strict=True))
    columns, trees = joined(*parts)
    assert [column.feature for column in columns] == ["x0", "x1", "x2"]
    assert trees is not None
    np.testing.assert_allclose(tree_sums(cells, trees), sums, atol=1e-12)
    assert joined(*parts[:2], (), None) == tuple(parts[:2]) == joined((), None, *parts[:2])


def test_sixteen_bins_and_the_missing_are_a_tree_of_depth_five() -> None:
    """What the engine walks in one step."""
    binned = BinnedNumber.of("x", np.arange(1000.0), n_bins=16)
    _, trees = steps_as_trees([Steps(binned, np.arange(1.0, binned.n_codes + 1.0)[None])])
    assert trees is not None
    assert depth_of(trees) == 5
    assert trees.n_trees == 1


def depth_of(trees: Trees) -> int:
    depth = [1] * trees.n_nodes
    for i in range(trees.n_nodes):
        for child, is_leaf in (
            (trees.true_child[i], trees.true_is_leaf[i]),
            (trees.false_child[i], trees.false_is_leaf[i]),
        ):
            if not is_leaf:
                depth[child] = depth[i] + 1
    return max(depth)


@given(seed=st.integers(0, 2**16), n_levels=st.integers(1, 32), n_bins=st.integers(1, 16))
def test_a_category_has_steps_of_its_own(seed: int, n_levels: int, n_bins: int) -> None:
    """As by the table; unseen texts have the default's level. 32 levels of 16 bins are a depth of 10."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=200)
    x[rng.random(200) < 0.1] = np.nan
    raw = {"x": x, "app": rng.choice(np.array(["a", "b", "c", "d", "unseen"], dtype=object), 200)}
    keys = ("a", "b", "c", "d")
    lookup = Lookup("app", keys, array("d", rng.integers(0, n_levels, 4)), float(n_levels - 1))
    number = BinnedNumber.of("x", x, n_bins=n_bins)
    steps = [
        Steps(number, rng.normal(size=(n_levels, number.n_codes)), lookup),
        Steps(number, rng.normal(size=(1, number.n_codes))),
    ]
    columns, trees = steps_as_trees(steps)
    assert trees is not None
    level = [dict(zip(keys, lookup.values, strict=True)).get(text, lookup.default) for text in raw["app"]]
    by_table = steps[0].weights[np.array(level, dtype=int), number.codes(x)]
    np.testing.assert_array_equal(steps[0].of(raw), by_table)
    found = tree_sums(encode(raw, Head(columns, None)), trees)
    np.testing.assert_allclose(found, by_table + steps[1].weights[0][number.codes(x)], atol=1e-12)
    assert [column.feature for column in columns] == ["x", "app"]
    assert depth_of(trees) <= 10


def test_no_weight_no_tree() -> None:
    """Numbers without effect leave the head."""
    flat = BinnedNumber.of("flat", np.arange(100.0))
    used = BinnedNumber.of("used", np.arange(100.0), n_bins=2)
    nothing = Steps(flat, np.zeros((1, flat.n_codes)))
    columns, trees = steps_as_trees([nothing, Steps(used, np.array([[0.5, -0.5, 0.0]]))])
    assert [column.feature for column in columns] == ["used"]
    assert trees is not None
    assert trees.n_trees == 1
    assert steps_as_trees([nothing]) == ((), None)
