"""Tree ensembles for tests and benchmarks of the engine: from a LightGBM booster, or random."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bidml.blueprint import LIGHTGBM_ZERO, Head, NodeMode, Trees


class TreesBuilder:
    """Appends trees to the arrays of `Trees`, each node before its children."""

    def __init__(self) -> None:
        self.trees = Trees(
            *(array("q"), array("q"), array("B"), array("d"), array("q"), array("q")),
            *(array("q"), array("q"), array("q"), array("d"), array("d")),
        )

    def leaf(self, value: float) -> int:
        self.trees.leaf.append(value)
        return len(self.trees.leaf) - 1

    def node(self, column: int, threshold: float, *, missing_true: bool) -> int:
        """A node `x <= threshold`; its children are set by `link`."""
        return self._append(column, NodeMode.LEQ, threshold, missing_true)

    def member(self, column: int, members: list[float], *, missing_true: bool) -> int:
        """A node `x in members`."""
        self.trees.membership.extend([*members, float("nan")])
        return self._append(column, NodeMode.MEMBER, 0.0, missing_true)

    def _append(self, column: int, mode: NodeMode, threshold: float, missing_true: bool) -> int:
        trees = self.trees
        trees.column.append(column)
        trees.mode.append(mode)
        trees.threshold.append(threshold)
        trees.missing_true.append(int(missing_true))
        for name in ("true_child", "false_child", "true_is_leaf", "false_is_leaf"):
            getattr(trees, name).append(0)
        return len(trees.column) - 1

    def link(self, node: int, side: bool, child: int, *, is_leaf: bool) -> None:
        """Puts a node or a leaf on the true or false side of `node`."""
        name = "true" if side else "false"
        getattr(self.trees, f"{name}_child")[node] = child
        getattr(self.trees, f"{name}_is_leaf")[node] = int(is_leaf)

    def root(self, node: int) -> None:
        self.trees.roots.append(node)

    def stump_of_one_leaf(self, value: float) -> None:
        """A tree of a single leaf, in the form the blueprint gives it."""
        leaf = self.leaf(value)
        node = self.node(0, 0.0, missing_true=False)
        self.link(node, True, leaf, is_leaf=True)
        self.link(node, False, leaf, is_leaf=True)
        self.root(node)


def trees_of_booster(booster: Any) -> Trees:
    """The trees of a LightGBM booster of numeric columns. `missing_type` Zero is not supported here."""
    builder = TreesBuilder()
    for info in booster.dump_model()["tree_info"]:
        structure = info["tree_structure"]
        if "split_index" not in structure:
            builder.stump_of_one_leaf(structure["leaf_value"])
        else:
            builder.root(_add(builder, structure))
    return builder.trees


def _add(builder: TreesBuilder, split: dict[str, Any]) -> int:
    if split["decision_type"] == "==":
        members = [float(text) for text in split["threshold"].split("||")]
        node = builder.member(split["split_feature"], members, missing_true=False)
    else:
        threshold = split["threshold"]
        missing_true = split["default_left"] if split["missing_type"] == "NaN" else threshold >= 0.0
        node = builder.node(split["split_feature"], threshold, missing_true=missing_true)
    for side, name in ((True, "left_child"), (False, "right_child")):
        child = split[name]
        if "split_index" in child:
            builder.link(node, side, _add(builder, child), is_leaf=False)
        else:
            builder.link(node, side, builder.leaf(child["leaf_value"]), is_leaf=True)
    return node


def stumps(n_columns: int, thresholds: Sequence[float]) -> Trees:
    """A tree of one node, -1 or 1, for each column and threshold."""
    builder = TreesBuilder()
    low, high = builder.leaf(-1.0), builder.leaf(1.0)
    for column in range(n_columns):
        for threshold in thresholds:
            node = builder.node(column, threshold, missing_true=False)
            builder.link(node, True, low, is_leaf=True)
            builder.link(node, False, high, is_leaf=True)
            builder.root(node)
    return builder.trees


@dataclass
class RandomShape:
    """What a random ensemble looks like. Thresholds and members are drawn from the pool `values`."""

    n_trees: int
    max_depth: int
    leaf_chance: float  # of a child to be a leaf before max_depth
    n_columns: int
    values: NDArray[np.float64]
    member_chance: float = 0.0
    missing_chance: float = (
        0.5  # of a node to send NaN to the true side; "by sign" as LightGBM does where it is None
    )
    missing_by_sign: bool = False  # instead, by the sign of the threshold: LightGBM's missing_type None


def random_trees(shape: RandomShape, rng: np.random.Generator) -> Trees:
    """A random ensemble; one tree in ten is a single leaf, deep ones are chains where leaf_chance is high."""
    builder = TreesBuilder()
    for _ in range(shape.n_trees):
        if rng.random() < 0.1 or shape.max_depth == 0:
            builder.stump_of_one_leaf(rng.normal())
        else:
            builder.root(_grow(builder, shape, rng, 1))
    return builder.trees


def _grow(builder: TreesBuilder, shape: RandomShape, rng: np.random.Generator, depth: int) -> int:
    column = int(rng.integers(shape.n_columns))
    if rng.random() < shape.member_chance:
        members = rng.choice(shape.values[np.isfinite(shape.values)], size=int(rng.integers(0, 5))).tolist()
        node = builder.member(column, members, missing_true=bool(rng.random() < shape.missing_chance))
    else:
        threshold = float(rng.choice(shape.values))
        missing_true = (
            threshold >= 0.0 if shape.missing_by_sign else bool(rng.random() < shape.missing_chance)
        )
        node = builder.node(column, threshold, missing_true=missing_true)
    for side in (True, False):
        if depth >= shape.max_depth or rng.random() < shape.leaf_chance:
            builder.link(node, side, builder.leaf(rng.normal()), is_leaf=True)
        else:
            builder.link(node, side, _grow(builder, shape, rng, depth + 1), is_leaf=False)
    return node


def trap_numbers(
    heads: Sequence[Head], n_rows: int, n_numbers: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(n_rows, n_numbers) raw numbers of which most lie on a threshold or member, or one ulp beside it."""
    forests = [head.trees for head in heads if head.trees is not None]
    points = [point for trees in forests for point in (*trees.threshold, *trees.membership)]
    special = [0.0, -0.0, 1e-35, -1e-35, LIGHTGBM_ZERO, -LIGHTGBM_ZERO, 5e-324, -5e-324, 1.7e308, -1.7e308]
    special += [float("inf"), float("-inf"), float("nan"), 0.999, -0.999]
    pool = np.unique(np.array(points + special))
    with np.errstate(over="ignore"):
        beside = [np.nextafter(pool, np.inf), np.nextafter(pool, -np.inf), pool + 0.5]
    rows = rng.choice(np.concatenate([pool, *beside, [np.nan] * 8]), size=(n_rows, n_numbers))
    smooth = rng.random(rows.shape) < 0.3
    rows[smooth] = rng.normal(size=int(smooth.sum())) * 3
    return rows
