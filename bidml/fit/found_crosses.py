"""Pairs of categories that the clicks ask for: whether what a model of their sum leaves over goes together by pair.

Let r be the residuals of the model and v their variances. If the pair (a, b) has an effect of its own, of variance τ²,
then E r_i r_j = v_i v_j τ² for two rows of one cell. So T = Σ_cells (Σr)² − Σv is the score of τ² at 0, with the
standard deviation √Σ(V + 2V²), V = Σv of a cell, where events are rare (Lin 1997, variance components by score tests).
No model is fitted to any pair: one costs a few sums over the rows.

What the model has not learnt of a or of b alone goes together by pair, too. What cells that share only a side have in
common tells how much that is (moments, as in an analysis of variance), and it is taken off. Where the model has learnt
a side's noise, on the other hand, it would be taken off with the wrong sign: so the smaller of both counts, with it and
without.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt
from typing import Final

import numpy as np

from bidml.fit.crew import Crew, total
from bidml.fit.crosses import Pair
from bidml.fit.encoding import Categories, Doubles, Indices

LEAST_Z: Final = 3.0
"""Standard errors that a pair must be off by: it is the best of some hundred."""

_MOST_WORK: Final = 150_000_000  # pairs × rows; beyond it the last rows speak for all
_MOST_CELLS: Final = 4_194_303  # pairs of more share them by chance: that dilutes an effect and makes none
_NESTED: Final = 0.7


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
    last = slice(max(0, len(y) - _MOST_WORK // len(pairs)), None)
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


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of some cells: T; Σ (Σ w v)², what τ² makes of it; the standard deviation of T without any effect."""

    score: float
    squares: float
    sd: float


class _Residuals:
    def __init__(self, y: Doubles, p: Doubles, weight: Doubles | None, crew: Crew) -> None:
        w = np.ones(len(y)) if weight is None else weight
        information = w * p * (1.0 - p)
        self._columns = [w * (y - p), information]
        if weight is not None:
            self._columns.append(w * information)
        (self._fourth,) = total(crew, float((w**3 * information).sum()))
        self._crew = crew

    def by(self, code: Indices, n_codes: int) -> _Moments:
        in_cells, information, *weighted = (
            self._crew.sum(np.bincount(code, weights=each, minlength=n_codes).astype(np.float64))
            for each in self._columns
        )
        variance = weighted[0] if weighted else information
        return _Moments(
            float((in_cells**2 - variance).sum()),
            float((information**2).sum()),
            sqrt(self._fourth + 2.0 * float((variance**2).sum())),
        )


def _standard_errors(together: _Moments, one: _Moments, other: _Moments) -> float:
    least = min(one.squares, other.squares)
    if not 0.0 < together.squares <= _NESTED * least:
        return -inf
    effect = together.score / together.squares
    of_sides = sum((side.score - together.score) / (side.squares - together.squares) for side in (one, other))
    return min(effect, effect - of_sides) * together.squares / together.sd
