"""Trees node by node, and heads whose trees are those of two."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace

from bidml.blueprint import Column, NodeMode, Trees


class TreeBuilder:
    """`trees` as they grow. Nodes are added in preorder: the true side first, but a leaf after the branch beside it
    (see `bounds`)."""

    def __init__(self) -> None:
        self.trees = Trees(
            *(array("q"), array("q"), array("B"), array("d"), array("q"), array("q")),
            *(array("q"), array("q"), array("q"), array("d"), array("d")),
        )

    def begin(self) -> None:
        """The next node is the root of a tree."""
        self.trees.roots.append(self.trees.n_nodes)

    def node(self, column: int, mode: NodeMode, threshold: float, *, missing_true: bool) -> int:
        """Its index; its children are linked later."""
        trees = self.trees
        trees.column.append(column)
        trees.mode.append(mode)
        trees.threshold.append(threshold)
        trees.missing_true.append(int(missing_true))
        for values in (trees.true_child, trees.false_child, trees.true_is_leaf, trees.false_is_leaf):
            values.append(0)
        return trees.n_nodes - 1

    def leaf(self, value: float, parent: int, side: bool) -> None:
        """A new one below a side of the node `parent`: True or False, what its test says."""
        self.trees.leaf.append(value)
        self.link(parent, side, len(self.trees.leaf) - 1, is_leaf=True)

    def link(self, parent: int, side: bool, child: int, *, is_leaf: bool) -> None:
        """The node or leaf number `child` goes below a side of the node `parent`."""
        trees = self.trees
        (trees.true_child if side else trees.false_child)[parent] = child
        (trees.true_is_leaf if side else trees.false_is_leaf)[parent] = int(is_leaf)


def joined(
    columns: Sequence[Column], trees: Trees | None, more_columns: Sequence[Column], more: Trees | None
) -> tuple[tuple[Column, ...], Trees | None]:
    """The columns and trees of both, in this order; a number that both read is one column."""
    if trees is None or more is None:
        return (tuple(columns), trees) if more is None else (tuple(more_columns), more)
    found = list(columns)
    at = []
    for column in more_columns:
        if column.lookup is not None or column not in found:
            found.append(column)
            at.append(len(found) - 1)
        else:
            at.append(found.index(column))

    def shifted(values: array[int], is_leaf: array[int]) -> array[int]:
        by = (trees.n_nodes, len(trees.leaf))
        return array("q", [value + by[leaf] for value, leaf in zip(values, is_leaf, strict=True)])

    return tuple(found), replace(
        trees,
        roots=trees.roots + array("q", [root + trees.n_nodes for root in more.roots]),
        column=trees.column + array("q", [at[i] for i in more.column]),
        mode=trees.mode + more.mode,
        threshold=trees.threshold + more.threshold,
        true_child=trees.true_child + shifted(more.true_child, more.true_is_leaf),
        false_child=trees.false_child + shifted(more.false_child, more.false_is_leaf),
        true_is_leaf=trees.true_is_leaf + more.true_is_leaf,
        false_is_leaf=trees.false_is_leaf + more.false_is_leaf,
        missing_true=trees.missing_true + more.missing_true,
        membership=trees.membership + more.membership,
        leaf=trees.leaf + more.leaf,
    )
