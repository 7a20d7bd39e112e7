"""Logistic regression on categories by FTRL-Proximal (McMahan et al. 2013), in one pass over the rows.

Every row is scored before it is learnt from, so its *progressive* score is out of sample, for free: trees can be
trained on top of it without having seen an outcome twice. What is served is the mean of the weights over the last
rows: a single moment's weights of frequent categories still follow the latest clicks, by several percent.

Per coordinate with gradient g = p − y: `σ = (√(n + g²) − √n)/α; z += g − σ w; n += g²`, and
`w = 0 if |z| ≤ λ₁ else −(z − sign(z) λ₁)/((β + √n)/α + λ₂)`. Deviations from the paper: rows come in batches that share
their weights (a batch ends where time advances, and has at most a two-hundredth of the rows before it), so that a
batch is a few array operations; and α is the one of a few whose progressive log loss is least. A crew's batches are of
all ranks' rows in one order of time: one sum over ranks a batch, and the same weights on every rank.

Limits: categories only, and crosses of two. A number's place is in the trees.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import CrossLookup, Lookup
from bidml.fit.crew import ALONE, Crew, sampled, total
from bidml.fit.encoding import Categories, Doubles, as_ticks

ALPHAS: Final = (0.01, 0.05, 0.15, 0.5)
_BETA: Final = 1.0
_SMALLEST_BATCH: Final = 16
_LARGEST_BATCH: Final = 4_096
_GROWTH: Final = 200
_AVERAGED_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class FtrlLinear:
    """`terms`: a weight per category or pair, to be added to `intercept`. `progressive` (n_rows,): each row's log-odds
    before it was learnt from, `alpha` the learning rate that was best by them."""

    intercept: float
    terms: tuple[Lookup | CrossLookup, ...]
    progressive: Doubles
    alpha: float


def fit_ftrl(
    features: Sequence[Categories],
    y: Doubles,
    *,
    base_log_odds: float,
    weight: Doubles | None = None,
    time: npt.NDArray[Any] | None = None,
    rng: np.random.Generator,
    alphas: Sequence[float] = ALPHAS,
    l1: float = 0.0,
    l2: float = 1.0,
    crew: Crew = ALONE,
) -> FtrlLinear:
    """Learn from outcomes `y` (n_rows,) in [0, 1], in the order of `time` or, without it, in a random one.

    `base_log_odds`: where the intercept starts. Rows of one instant do not see each other.
    """
    n_rows = len(y)
    order = rng.permutation(n_rows) if time is None else np.argsort(time, kind="stable")
    instants = np.arange(n_rows) / n_rows if time is None else time[order]
    offsets = np.cumsum([1, *(feature.n_codes for feature in features)])
    coordinates = np.zeros((n_rows, len(features) + 1), dtype=np.int32)  # coordinate 0 is the intercept
    for i, feature in enumerate(features):
        coordinates[:, i + 1] = feature.codes[order] + int(offsets[i])
    sorted_y = y[order]
    sorted_weight = np.ones(n_rows) if weight is None else weight[order]
    learners = [_Learner(int(offsets[-1]), alpha, l1, l2, base_log_odds) for alpha in alphas]
    scores = np.empty((len(learners), n_rows))
    sums = np.zeros((len(learners), offsets[-1]))
    n_averaged = 0
    batches = _batches(instants, crew)
    sizes = crew.sum(np.array([rows.stop - rows.start for rows in batches], dtype=np.float64)).astype(int)
    for rows, size, done in zip(batches, sizes, np.cumsum(sizes), strict=True):
        if done > (1.0 - _AVERAGED_SHARE) * sizes.sum():
            n_averaged += int(size)
            for i, learner in enumerate(learners):
                sums[i] += size * learner.weights()
        touched, where = np.unique(coordinates[rows], return_inverse=True)
        where = where.reshape(-1, coordinates.shape[1])
        steps = np.empty((len(touched), 2 * len(learners)))
        for i, learner in enumerate(learners):
            scores[i, rows], steps[:, 2 * i : 2 * i + 2] = learner.scored(
                touched, where, sorted_y[rows], sorted_weight[rows]
            )
        at, steps = crew.sums_at(touched.astype(np.int64), steps)
        for i, learner in enumerate(learners):
            learner.learn(at, steps[:, 2 * i], steps[:, 2 * i + 1])
    losses = total(
        crew, *((sorted_weight * (np.logaddexp(0.0, found) - sorted_y * found)).sum() for found in scores)
    )
    best = int(np.argmin(losses))
    weights = sums[best] / n_averaged
    progressive = np.empty(n_rows)
    progressive[order] = scores[best]
    terms = tuple(
        feature.lookup(weights[start : start + feature.n_codes])
        for feature, start in zip(features, offsets, strict=False)
    )
    return FtrlLinear(base_log_odds + float(weights[0]), terms, progressive, alphas[best])


class _Learner:
    def __init__(self, n: int, alpha: float, l1: float, l2: float, base: float) -> None:
        self._alpha, self._l1, self._l2, self._base = alpha, l1, l2, base
        self._z, self._n = np.zeros(n), np.zeros(n)

    def weights(self, at: npt.NDArray[Any] | slice = slice(None)) -> Doubles:
        z, n = self._z[at], self._n[at]
        shrunk = z if self._l1 == 0.0 else np.sign(z) * np.maximum(np.abs(z) - self._l1, 0.0)
        found: Doubles = -shrunk / ((_BETA + np.sqrt(n)) / self._alpha + self._l2)
        return found

    def scored(
        self, touched: npt.NDArray[Any], where: npt.NDArray[np.intp], y: Doubles, weight: Doubles
    ) -> tuple[Doubles, Doubles]:
        """The log-odds of a batch (n,) whose coordinates are `touched[where]`, where (n, k); and what it says of each
        one touched, the sums of its gradients and of their squares, (m, 2)."""
        scores: Doubles = self.weights(touched)[where].sum(axis=1) + self._base
        g = weight * (1.0 / (1.0 + np.exp(-scores)) - y)
        per_cell = np.broadcast_to(g[:, None], where.shape).ravel()
        return scores, np.column_stack(
            [np.bincount(where.ravel(), weights=of, minlength=len(touched)) for of in (per_cell, per_cell**2)]
        )

    def learn(self, touched: npt.NDArray[Any], gradient: Doubles, squares: Doubles) -> None:
        """One step."""
        n = self._n[touched]
        sigma = (np.sqrt(n + squares) - np.sqrt(n)) / self._alpha
        self._z[touched] += gradient - sigma * self.weights(touched)
        self._n[touched] = n + squares


def _batches(instants: npt.NDArray[Any], crew: Crew) -> list[slice]:
    """Slices of growing length of the sorted `instants` (n,) that never cut an instant in two: on each rank the rows of
    one time, which is found in a sample of all ranks' instants."""
    if crew.size == 1:
        return [slice(*pair) for pair in itertools.pairwise(_ends(instants, 1.0))]
    ticks = as_ticks(instants)
    (n_rows,) = total(crew, len(ticks))
    known = np.sort(sampled(crew, ticks))
    cuts = known[_ends(known, n_rows / len(known))[1:-1]]
    ends = [0, *np.searchsorted(ticks, cuts).tolist(), len(ticks)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _ends(instants: npt.NDArray[Any], rows_each: float) -> list[int]:
    """Where batches of sorted `instants` end, each of which stands for so many rows; 0 first."""
    begins = np.flatnonzero(np.append(True, instants[1:] != instants[:-1]))
    ends, n = [0], len(instants)
    while ends[-1] < n:
        before = int(ends[-1] * rows_each)
        wanted = ends[-1] + min(max(_SMALLEST_BATCH, before // _GROWTH), _LARGEST_BATCH) / rows_each
        i = int(np.searchsorted(begins, max(wanted, ends[-1] + 1)))
        ends.append(int(begins[i]) if i < len(begins) else n)
    return ends
