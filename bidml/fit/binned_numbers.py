"""Numbers as steps: quantile bins for a linear model, and the same steps as one tree a number for the artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Self

import numpy as np

from bidml.blueprint import Column, NodeMode, Trees
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


def steps_as_trees(
    numbers: Sequence[BinnedNumber], weights: Sequence[Doubles]
) -> tuple[tuple[Column, ...], Trees | None]:
    """Columns and trees whose sum is Σ weights[i][bin of number i]; `weights[i]` has shape (n_codes,).

    A tree for each number: missing values first, then a balanced search of the edges; 16 bins are a depth of 5.
    (no columns, None) where every weight is 0.
    """
    used = [(number, w) for number, w in zip(numbers, weights, strict=True) if w.any()]
    if not used:
        return (), None
    builder = TreeBuilder()
    for column, (number, w) in enumerate(used):
        builder.begin()
        root = builder.node(column, NodeMode.LEQ, inf, missing_true=False)
        _search(builder, column, number.edges, w[:-1], root, side=True)
        builder.leaf(float(w[-1]), root, False)
    return tuple(Column(number.feature) for number, _ in used), builder.trees


def _search(
    builder: TreeBuilder, column: int, edges: Doubles, w: Doubles, parent: int, *, side: bool
) -> None:
    """The bins between `edges` (n,), of weights `w` (n + 1,), below a side of `parent`."""
    if not len(edges):
        builder.leaf(float(w[0]), parent, side)
        return
    middle = len(edges) // 2
    node = builder.node(column, NodeMode.LEQ, float(edges[middle]), missing_true=True)
    builder.link(parent, side, node, is_leaf=False)
    below, above = slice(0, middle), slice(middle + 1, None)  # below has as many edges, or one more
    _search(builder, column, edges[below], w[: middle + 1], node, side=True)
    _search(builder, column, edges[above], w[middle + 1 :], node, side=False)
