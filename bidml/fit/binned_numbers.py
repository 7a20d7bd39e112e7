"""Numbers as steps: quantile bins for a linear model, and the same steps, or those of each category, as one
tree a number for the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Self, TypeAlias

import numpy as np

from bidml.blueprint import Column, Lookup, NodeMode, Trees
from bidml.features import RawColumns, looked_up
from bidml.fit.crew import ALONE, Crew, sampled
from bidml.fit.encoding import Indices
from bidml.fit.observations import Doubles
from bidml.tree_builder import TreeBuilder

_BINS: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class BinnedNumber:
    """Bin i of a feature is (edges[i − 1], edges[i]]; the last code is for missing values."""

    feature: str
    edges: Doubles

    @classmethod
    def of(cls, feature: str, cells: Doubles, *, n_bins: int = _BINS, crew: Crew = ALONE) -> Self:
        """At most `n_bins` bins of about equal counts of the finite `cells` (n_rows,), of a sample of all ranks."""
        present = sampled(crew, cells[np.isfinite(cells)])
        if not present.size:
            return cls(feature, np.zeros(0))
        return cls(feature, np.unique(np.quantile(present, np.linspace(0.0, 1.0, n_bins + 1)[1:-1])))

    @property
    def n_codes(self) -> int:
        """The bins and the missing."""
        return len(self.edges) + 2

    def codes(self, cells: Doubles) -> Indices:
        """The bin of each cell, (n_rows,)."""
        bins = np.searchsorted(self.edges, cells)
        return np.where(np.isnan(cells), self.n_codes - 1, bins).astype(np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A weight for each bin of a number: `weights` (1, n_codes); with a `lookup`, whose values are rows of `weights`
    (n_levels, n_codes), for each level of a category."""

    number: BinnedNumber
    weights: Doubles
    lookup: Lookup | None = None

    def of(self, raw: RawColumns) -> Doubles:
        """The weight of each row, (n_rows,)."""
        level: Indices | int = 0
        if self.lookup is not None:
            level = looked_up(self.lookup, raw).astype(np.intp)
        found: Doubles = self.weights[level, self.number.codes(raw[self.number.feature])]
        return found


def steps_as_trees(steps: Sequence[Steps]) -> tuple[tuple[Column, ...], Trees | None]:
    """Columns and trees whose sum is that of the steps. (no columns, None) where every weight is 0.

    A tree for each: a balanced search of the levels, missing values, a balanced search of the edges; 16 bins are a
    depth of 5, 32 levels of them one of 10.
    """
    builder, columns = TreeBuilder(), list[Column]()

    def column(wanted: Column) -> int:
        if wanted.lookup is None and wanted in columns:
            return columns.index(wanted)
        columns.append(wanted)
        return len(columns) - 1

    for each in steps:
        if not each.weights.any():
            continue
        builder.begin()
        at = column(Column(each.number.feature))
        if each.lookup is None:
            _bins(builder, at, each.number.edges, each.weights[0], None)
        else:
            level = column(Column(each.lookup.feature, each.lookup))
            _levels(builder, level, at, each, 0, len(each.weights), None)
    return (tuple(columns), builder.trees) if columns else ((), None)


_Place: TypeAlias = tuple[int, bool] | None  # the node above and the side of it; None for a root


def _branch(builder: TreeBuilder, place: _Place, column: int, threshold: float, *, missing_true: bool) -> int:
    node = builder.node(column, NodeMode.LEQ, threshold, missing_true=missing_true)
    if place is not None:
        builder.link(*place, node, is_leaf=False)
    return node


def _levels(
    builder: TreeBuilder, level: int, column: int, steps: Steps, first: int, end: int, place: _Place
) -> None:
    """The levels from `first` to before `end`."""
    if end - first == 1:
        _bins(builder, column, steps.number.edges, steps.weights[first], place)
        return
    middle = (first + end) // 2
    node = _branch(builder, place, level, middle - 0.5, missing_true=True)
    _levels(builder, level, column, steps, first, middle, (node, True))
    _levels(builder, level, column, steps, middle, end, (node, False))


def _bins(builder: TreeBuilder, column: int, edges: Doubles, w: Doubles, place: _Place) -> None:
    """All bins of a number and, first, what is missing; `w` (n_codes,)."""
    root = _branch(builder, place, column, inf, missing_true=False)
    _search(builder, column, edges, w[:-1], root, side=True)
    builder.leaf(float(w[-1]), root, False)


def _search(
    builder: TreeBuilder, column: int, edges: Doubles, w: Doubles, parent: int, *, side: bool
) -> None:
    """The bins between `edges` (n,), of weights `w` (n + 1,), below a side of `parent`."""
    if not len(edges):
        builder.leaf(float(w[0]), parent, side)
        return
    middle = len(edges) // 2
    node = _branch(builder, (parent, side), column, float(edges[middle]), missing_true=True)
    below, above = slice(0, middle), slice(middle + 1, None)  # below has as many edges, or one more
    _search(builder, column, edges[below], w[: middle + 1], node, side=True)
    _search(builder, column, edges[above], w[middle + 1 :], node, side=False)
