"""A category's own steps along a number: what a campaign does with age, an app with the hour.

The weights of all cells, a row of bins for each category, are of low rank (`fit.low_rank`). The artifact has no tables
of categories by bins, but trees that read a category by its lookup: so categories of like rows become a level, at most
32, and a tree searches the level, then the bin. Levels are K-means (Lloyd 1982) of the rows, from cells of equal
information along the rows' first two directions; categories of so few have levels of their own.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from bidml.blueprint import Lookup
from bidml.fit.binned_numbers import BinnedNumber, Steps
from bidml.fit.encoding import Categories, Doubles, Indices
from bidml.fit.low_rank import Sides

_MOST_LEVELS: Final = 32
_PARTS: Final = (8, 4)  # of the directions
_ROUNDS: Final = 10


@dataclass(frozen=True, eq=False)
class Slopes:
    """The cells of a category and a number whose `bins` (n_rows,) are known."""

    category: Categories
    number: BinnedNumber
    bins: Indices

    @property
    def n_codes(self) -> int:
        return self.category.n_codes * self.number.n_codes

    @cached_property
    def codes(self) -> Indices:
        """Of each row, (n_rows,)."""
        found: Indices = self.category.codes * self.number.n_codes + self.bins
        return found

    @cached_property
    def cells(self) -> Sides:
        """Where they lie."""
        first, second = np.divmod(np.arange(self.n_codes), self.number.n_codes)
        return Sides(first, second, self.category.n_codes, self.number.n_codes, likeness(self.number))

    def steps(self, weights: Doubles) -> Steps:
        """As they are served; `weights` (n_codes,)."""
        counts = self.category.crew.sum(
            np.bincount(self.codes, minlength=self.n_codes).astype(np.float64)
        ).reshape(-1, self.number.n_codes)
        level, rows = levels(weights.reshape(counts.shape), counts)
        served = level.astype(np.float64)
        keys = self.category.keys
        lookup = Lookup(self.category.feature, keys, array("d", served[:-1].tobytes()), float(served[-1]))
        return Steps(self.number, rows, lookup)


def likeness(number: BinnedNumber) -> Doubles:
    """The inverse of how alike bins are, (n_codes, n_codes): C = exp(−|i − j| / ℓ) with ℓ half of the line; what is
    missing is like none."""
    at = np.arange(number.n_codes - 1)
    alike = np.eye(number.n_codes)
    alike[:-1, :-1] = np.exp(-np.abs(at[:, None] - at) / (0.5 * number.n_codes))
    return np.asarray(np.linalg.inv(alike), dtype=np.float64)


def levels(weights: Doubles, counts: Doubles) -> tuple[Indices, Doubles]:
    """(each row's level, the weights of each level, (n_levels, n_bins)) for `weights` and `counts` (n_rows, n_bins)."""
    if len(weights) <= _MOST_LEVELS:
        return np.arange(len(weights)), weights
    share = counts.sum(axis=0) / counts.sum()
    of_row = counts.sum(axis=1) + counts.sum() / len(counts) * 1e-6
    points = weights * np.sqrt(share)
    level = _parts(points, of_row)
    for _ in range(_ROUNDS):
        level, centres = _centres(points, of_row, level)
        distance = (centres * centres).sum(axis=1) - 2.0 * points @ centres.T
        level = distance.argmin(axis=1)
    level, found = _centres(weights, of_row, level)
    return level, found


def _parts(points: Doubles, of_row: Doubles) -> Indices:
    """Where to begin: as many rows' worth below as above, along the first direction, then along the second."""
    middle = np.average(points, axis=0, weights=of_row)
    centred = points - middle
    _, directions = np.linalg.eigh((centred * of_row[:, None]).T @ centred)
    found = np.zeros(len(points), dtype=np.intp)
    for n_parts, direction in zip(_PARTS, directions.T[::-1], strict=False):
        place = centred @ direction
        order = np.lexsort((place, found))
        below = np.cumsum(of_row[order])
        begin = np.searchsorted(found[order], found[order])
        before = np.where(begin > 0, below[begin - 1], 0.0)
        whole = np.bincount(found, weights=of_row)[found[order]]
        part = (n_parts * (below - 0.5 * of_row[order] - before) / whole).astype(np.intp)
        found[order] = found[order] * n_parts + np.clip(part, 0, n_parts - 1)
    return found


def _centres(points: Doubles, of_row: Doubles, level: Indices) -> tuple[Indices, Doubles]:
    """(levels without gaps, their means)."""
    _, level = np.unique(level, return_inverse=True)
    n = np.bincount(level, weights=of_row)
    sums = [np.bincount(level, weights=of_row * column) for column in points.T]
    return level, np.column_stack(sums) / n[:, None]
