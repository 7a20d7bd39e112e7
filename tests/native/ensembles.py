"""Tree ensembles for the engine's tests and benchmarks: from a LightGBM booster, or at random to set traps."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from bidml.blueprint import LIGHTGBM_ZERO, NodeMode, Rewrite, Trees


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
        missing_true = split["default_left"] if split["missing_type"] == "NaN" else 0.0 <= threshold
        node = builder.node(split["split_feature"], threshold, missing_true=missing_true)
    for side, name in ((True, "left_child"), (False, "right_child")):
        child = split[name]
        if "split_index" in child:
            builder.link(node, side, _add(builder, child), is_leaf=False)
        else:
            builder.link(node, side, builder.leaf(child["leaf_value"]), is_leaf=True)
    return node
