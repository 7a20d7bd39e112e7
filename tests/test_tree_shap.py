"""Exact contributions: Shapley's formula by enumeration, LightGBM's own, and the sum."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import lightgbm as lgb
import numpy as np
import pytest
from artifacts import trees_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.blueprint import Column, Trees
from bidml.errors import DataError
from bidml.features import tree_sums
from bidml.lightgbm_trees import head_of_booster
from bidml.tree_shap import tree_contributions

NAN = float("nan")
values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, NAN])


@st.composite
def small_trees(draw: st.DrawFn, depth: int = 3):
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.floats(-4.0, 4.0))
    test = draw(st.sampled_from([-0.5, 0.25, 0.75, 1.5, frozenset({1.0, 2.0})]))
    sides = draw(small_trees(depth - 1)), draw(small_trees(depth - 1))
    return (draw(st.integers(0, 3)), test, draw(st.booleans()), *sides)


def goes_true(trees: Trees, node: int, x: float) -> bool:
    if np.isnan(x):
        return bool(trees.missing_true[node])
    if trees.mode[node]:
        return x in {1.0, 2.0}
    return x <= trees.threshold[node]


def value_of(trees: Trees, row: np.ndarray, known: frozenset[int], background: np.ndarray) -> float:
    """v(S) by its definition, one node at a time."""

    def below(at: int, is_leaf: int, rows: list[np.ndarray]) -> float:
        if is_leaf:
            return trees.leaf[at]
        column = trees.column[at]
        true_side = (trees.true_child[at], trees.true_is_leaf[at])
        false_side = (trees.false_child[at], trees.false_is_leaf[at])
        there = [r for r in rows if goes_true(trees, at, r[column])]
        others = [r for r in rows if not goes_true(trees, at, r[column])]
        share = len(there) / len(rows) if rows else 0.5
        if column in known:
            return (
                below(*true_side, there) if goes_true(trees, at, row[column]) else below(*false_side, others)
            )
        return share * below(*true_side, there) + (1.0 - share) * below(*false_side, others)

    return sum(below(root, 0, list(background)) for root in trees.roots)


def shapley(trees: Trees, row: np.ndarray, background: np.ndarray) -> list[float]:
    n = len(row)
    found = []
    for j in range(n):
        others = [i for i in range(n) if i != j]
        total = 0.0
        for size in range(n):
            for chosen in map(frozenset, combinations(others, size)):
                weight = factorial(size) * factorial(n - 1 - size) / factorial(n)
                with_j = value_of(trees, row, chosen | {j}, background)
                total += weight * (with_j - value_of(trees, row, chosen, background))
        found.append(total)
    return found


@settings(max_examples=60)
@given(
    st.lists(small_trees(), min_size=1, max_size=2),
    st.lists(st.tuples(*[values] * 4), min_size=1, max_size=5),
    st.tuples(*[values] * 4),
)
def test_contributions_are_shapley_values(roots, background, row):
    """Against the definition: all subsets of four columns; also where no background row comes."""
    trees = trees_of(*roots)
    rows, past = np.array([row]), np.array(background)
    found = tree_contributions(rows, trees, past)
    np.testing.assert_allclose(found.contributions[0], shapley(trees, rows[0], past), atol=1e-12)
    assert found.base == pytest.approx(value_of(trees, rows[0], frozenset(), past), abs=1e-12)
    assert found.base + found.contributions.sum() == pytest.approx(tree_sums(rows, trees)[0], abs=1e-12)


@pytest.mark.parametrize("max_depth", [5, -1])
def test_contributions_are_lightgbm_s(max_depth: int):
    """`pred_contrib` to 1e-9: NaN, a category, 40 trees of 31 leaves; the training rows are the background."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(3_000, 6))
    x[:, 3] = rng.integers(0, 12, len(x))
    x[rng.random(x.shape) < 0.1] = NAN
    y = (
        np.nan_to_num(x[:, 0]) * np.nan_to_num(x[:, 1]) + (x[:, 3] == 3) + rng.normal(size=len(x)) > 0.3
    ) * 1.0
    booster = lgb.train(
        {"objective": "binary", "num_leaves": 31, "max_depth": max_depth, "verbose": -1, "num_threads": 1,
         "min_data_in_leaf": 5, "max_cat_to_onehot": 1},
        lgb.Dataset(x, y, categorical_feature=[3]), num_boost_round=40,
    )  # fmt: skip
    head = head_of_booster(booster, [Column(f"x{i}") for i in range(6)])
    assert head.trees is not None
    assert any(head.trees.mode)
    order = [int(column.feature[1:]) for column in head.columns]
    inputs = np.where(np.isfinite(x), x, NAN)[:, order]
    inputs[:, order.index(3)] = np.trunc(inputs[:, order.index(3)])
    found = tree_contributions(inputs[:25], head.trees, inputs)
    expected = booster.predict(x[:25], pred_contrib=True)
    np.testing.assert_allclose(found.contributions, expected[:, order], atol=1e-9)
    np.testing.assert_allclose(found.base, expected[:, -1], atol=1e-9)
    # the twin: another background gives other contributions, of the same sum
    other = tree_contributions(inputs[:25], head.trees, inputs[:50])
    assert np.abs(other.contributions - expected[:, order]).max() > 0.01
    np.testing.assert_allclose(
        other.base + other.contributions.sum(axis=1), found.base + found.contributions.sum(axis=1), atol=1e-9
    )


def test_a_column_that_no_tree_reads_contributes_nothing():
    trees = trees_of((1, 0.5, False, 1.0, 3.0))
    found = tree_contributions(np.array([[9.0, 0.0]]), trees, np.array([[0.0, 0.0], [0.0, 1.0]]))
    assert found.base == 2.0
    assert found.contributions.tolist() == [[0.0, -1.0]]


def test_a_background_has_rows():
    with pytest.raises(DataError, match="background has rows"):
        tree_contributions(np.zeros((1, 2)), trees_of(1.0), np.zeros((0, 2)))
