"""Numbers as steps: quantile bins for a linear model, and the same steps as trees of one split for the artifact."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Final, Self

import numpy as np

from bidml.blueprint import Column, NodeMode, Trees
from bidml.fit.crew import ALONE, Crew, sampled
from bidml.fit.encoding import Indices
from bidml.fit.observations import Doubles

_BINS: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class BinnedNumber:
    """Bin i of a feature is (edges[i − 1], edges[i]]; the last code is for missing values."""

    feature: str
    edges: Doubles

    @classmethod
    def of(cls, feature: str, cells: Doubles, *, n_bins: int = _BINS, crew: Crew = ALONE) -> Self:
        """At most `n_bins` bins of about equal counts of the finite `cells` (n_rows,), of a sample of all ranks."""
        present = sampled(crew, cells[~np.isnan(cells)])
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

    One split an edge, and one for missing values. (no columns, None) where every weight is 0.
    """
    used = [(number, w) for number, w in zip(numbers, weights, strict=True) if w.any()]
    trees = Trees(
        *(array("q"), array("q"), array("B"), array("d"), array("q"), array("q")),
        *(array("q"), array("q"), array("q"), array("d"), array("d")),
    )
    for column, (number, w) in enumerate(used):
        _add(trees, column, inf, w[0], w[-1], missing_true=False)
        for edge, step in zip(number.edges, np.diff(w[:-1]), strict=True):
            if step:
                _add(trees, column, float(edge), 0.0, float(step), missing_true=True)
    if not used:
        return (), None
    return tuple(Column(number.feature) for number, _ in used), trees


def _add(
    trees: Trees, column: int, threshold: float, if_true: float, if_false: float, *, missing_true: bool
) -> None:
    """A tree of one split."""
    trees.roots.append(trees.n_nodes)
    trees.column.append(column)
    trees.mode.append(NodeMode.LEQ)
    trees.threshold.append(threshold)
    trees.missing_true.append(int(missing_true))
    for leaf, child, is_leaf in (
        (if_true, trees.true_child, trees.true_is_leaf),
        (if_false, trees.false_child, trees.false_is_leaf),
    ):
        child.append(len(trees.leaf))
        is_leaf.append(1)
        trees.leaf.append(float(leaf))
