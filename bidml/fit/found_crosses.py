"""Pairs of features that the clicks ask for: whether what a model of their sum leaves over goes together by pair.

Let r be the residuals of the model and v their variances. If the pair (a, b) has an effect of its own, of variance τ²,
then E r_i r_j = v_i v_j τ² for two rows of one cell. So T = Σ_cells (Σr)² − Σv is the score of τ² at 0, with the
variance Σ(V + 2V²), V = Σv of a cell, where events are rare (Lin 1997, variance components by score tests).
No model is fitted to any pair: one costs a few sums over the rows.

What the model has not learnt of a or of b alone goes together by pair, too. What cells that share only a side have in
common tells how much that is (moments, as in an analysis of variance), and it is taken off. Where the model has learnt
a side's noise, on the other hand, it would be taken off with the wrong sign: so the smaller of both counts, with it and
without.

A category and a number: what goes together is seldom each bin by itself, but a slope that each category has of its
own (older people like one campaign, younger ones another), or a bend. With v the bins' place from the lowest to the
highest, or its square, centred in each category so that what the category alone does drops out, the slopes' scores are
G = Σ v r, less what all categories have in common, and T = Σ G² − Σ v² V as above.

Where there are a dozen cells or ten campaigns, T is far from normal. As a multiple of χ² with as many degrees of
freedom as give its variance, T + ΣV has a normal cube root (Wilson & Hilferty 1931); standard errors are its own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt
from typing import Final

import numpy as np

from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.crew import Crew, total
from bidml.fit.crosses import Pair
from bidml.fit.encoding import Categories, Doubles, Indices

LEAST_Z: Final = 2.5
"""Standard errors that a pair must be off by: it is the best of some hundred."""

LEAST_Z_OF_SLOPES: Final = 3.5
"""The same of a category and a number, of which there are some hundred more."""

_MOST_WORK: Final = 150_000_000  # pairs × rows; beyond it the last rows speak for all
MOST_SLOPE_CELLS: Final = 262_144
"""Of a category and a number; where there are more, a category has too little to have a slope."""

_MOST_CELLS: Final = 4_194_303  # pairs of more share them by chance: that dilutes an effect and makes none
_NESTED: Final = 0.7
_BENDS: Final = 2


def strongest_pair(
    categories: Sequence[Categories],
    y: Doubles,
    p: Doubles,
    *,
    weight: Doubles | None = None,
    without: Collection[frozenset[str]] = (),
) -> tuple[Pair, float] | None:
    """The pair of features that is most standard errors off, and how many; None without a pair to look at.

    `y` (n,): outcomes; `p` (n,): what a model expects of them. `without`: pairs that are in the model already. A pair
    that is nearly one of its sides (a placement and its app) is none.
    """
    features = [each for each in categories if each.n_keys > 1]
    pairs = [
        (one, other)
        for one, other in combinations(features, 2)
        if frozenset((one.feature, other.feature)) not in without
    ]
    if not pairs:
        return None
    last = _last_rows(len(y), len(pairs))
    residuals = _Residuals(y[last], p[last], None if weight is None else weight[last], features[0].crew)
    codes = {each.feature: each.codes[last] for each in features}
    alone = {each.feature: residuals.by(codes[each.feature], each.n_codes) for each in features}
    found = []
    for one, other in pairs:
        n_cells = one.n_codes * other.n_codes
        cell = (codes[one.feature] * other.n_codes + codes[other.feature]) % min(n_cells, _MOST_CELLS)
        together = residuals.by(cell, min(n_cells, _MOST_CELLS))
        z = _standard_errors(together, alone[one.feature], alone[other.feature])
        found.append(((one.feature, other.feature), z))
    return max(found, key=lambda each: each[1])


def strongest_slopes(
    categories: Sequence[Categories],
    numbers: Sequence[tuple[BinnedNumber, Indices]],
    y: Doubles,
    p: Doubles,
    *,
    weight: Doubles | None = None,
    without: Collection[frozenset[str]] = (),
) -> tuple[Pair, float] | None:
    """The category whose slopes along a number differ most, with that number, and by how many standard errors.

    `numbers`: with the bins of the rows, (n,). Else as `strongest_pair`.
    """
    pairs = [
        (category, number, bins)
        for category in categories
        for number, bins in numbers
        if category.n_keys > 1
        and len(number.edges) > 0
        and category.n_codes * number.n_codes <= MOST_SLOPE_CELLS
        and frozenset((category.feature, number.feature)) not in without
    ]
    if not pairs:
        return None
    last = _last_rows(len(y), len(pairs))
    residuals = _Residuals(y[last], p[last], None if weight is None else weight[last], pairs[0][0].crew)
    found = []
    for category, number, bins in pairs:
        cell = category.codes[last] * number.n_codes + bins[last]
        cells = residuals.cells(cell, category.n_codes * number.n_codes)
        g, h, variance = (each.reshape(-1, number.n_codes)[:, :-1] for each in cells)  # no bin is the missing
        z = _slopes(g, h, variance, residuals.kurtosis)
        found.append(((category.feature, number.feature), z))
    return max(found, key=lambda each: each[1])


def _last_rows(n_rows: int, n_pairs: int) -> slice:
    return slice(max(0, n_rows - _MOST_WORK // n_pairs), None)


def _slopes(g: Doubles, h: Doubles, variance: Doubles, kurtosis: float) -> float:
    """The most standard errors that slopes or bends are off by, given the scores of cells and their information,
    (n_codes, n_bins) all; -inf where there is nothing to see."""
    most = -inf
    of_bins = h.sum(axis=0)
    if not of_bins.sum() > 0.0:
        return most
    place = (np.cumsum(of_bins) - 0.5 * of_bins) / of_bins.sum() - 0.5
    of_category = np.maximum(h.sum(axis=1), 1e-300)
    for power in range(1, _BENDS + 1):
        v = place**power
        if power > 1:
            v = v - place * (of_bins * place * v).sum() / max((of_bins * place**2).sum(), 1e-300)
        v = v - (of_bins * v).sum() / of_bins.sum()
        centred = v - ((h @ v) / of_category)[:, None]
        information = (h * centred**2).sum(axis=1)
        if information.sum() <= (1.0 - _NESTED) * float((of_bins * v * v).sum()):
            continue  # the number is the category's
        score = (g * centred).sum(axis=1)
        share = information / information.sum()
        score -= share * score.sum()
        noise = (variance * centred**2).sum(axis=1)
        noise += share * (share * noise.sum() - 2.0 * noise)
        if not noise.sum() > (1.0 - _NESTED) * information.sum() * variance.sum() / h.sum():
            continue  # there is one category
        of_t = kurtosis * float((variance * centred**4).sum()) + 2.0 * float((noise**2).sum())
        most = max(most, _standard_normal(float((score**2).sum()), float(noise.sum()), of_t))
    return most


def _standard_normal(squares: float, expected: float, variance: float) -> float:
    """How many standard errors a sum of squares is above what is expected: as a multiple of χ² (Wilson & Hilferty)."""
    freedom = 2.0 * expected**2 / variance
    root = float(np.cbrt(max(squares / expected, 0.0)))
    return (root - 1.0) * sqrt(4.5 * freedom) + sqrt(2.0 / (9.0 * freedom))


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of some cells: T; Σ (Σ w v)², what τ² makes of it; without any effect, the mean of Σ (Σ r)² and the variance."""

    score: float
    squares: float
    expected: float
    variance: float


class _Residuals:
    def __init__(self, y: Doubles, p: Doubles, weight: Doubles | None, crew: Crew) -> None:
        w = np.ones(len(y)) if weight is None else weight
        information = w * p * (1.0 - p)
        self._columns = [w * (y - p), information]
        if weight is not None:
            self._columns.append(w * information)
        self._fourth, self._second = total(
            crew, float((w**3 * information).sum()), float((w * information).sum())
        )
        self._crew = crew

    @property
    def kurtosis(self) -> float:
        """Σ E r⁴ / Σ E r²: 1 but for weights."""
        return self._fourth / self._second

    def cells(self, code: Indices, n_codes: int) -> tuple[Doubles, Doubles, Doubles]:
        """Σ of residuals, of information, of variances, (n_codes,) each."""
        in_cells, information, *weighted = (
            self._crew.sum(np.bincount(code, weights=each, minlength=n_codes).astype(np.float64))
            for each in self._columns
        )
        return in_cells, information, weighted[0] if weighted else information

    def by(self, code: Indices, n_codes: int) -> _Moments:
        in_cells, information, variance = self.cells(code, n_codes)
        return _Moments(
            float((in_cells**2 - variance).sum()),
            float((information**2).sum()),
            float(variance.sum()),
            self._fourth + 2.0 * float((variance**2).sum()),
        )


def _standard_errors(together: _Moments, one: _Moments, other: _Moments) -> float:
    least = min(one.squares, other.squares)
    if not 0.0 < together.squares <= _NESTED * least:
        return -inf
    effect = together.score / together.squares
    of_sides = sum((side.score - together.score) / (side.squares - together.squares) for side in (one, other))
    score = min(effect, effect - of_sides) * together.squares
    return _standard_normal(together.expected + score, together.expected, together.variance)
