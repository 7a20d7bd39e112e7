"""Logistic regression on categories by FTRL-Proximal (McMahan et al. 2013), in one pass over the rows.

Every row is scored before it is learnt from, so its *progressive* score is out of sample, for free: trees can be
trained on top of it without having seen an outcome twice. What is served is the mean of the weights over the last
rows: a single moment's weights of frequent categories still follow the latest clicks, by several percent.

Per coordinate with gradient g = p − y: `σ = (√(n + g²) − √n)/α; z += g − σ w; n += g²`, and
`w = 0 if |z| ≤ λ₁ else −(z − sign(z) λ₁)/((β + √n)/α + λ₂)`. Deviations from the paper: rows come in batches that share
their weights (a batch ends where time advances, and has at most a two-hundredth of the rows before it), so that a
batch is a few array operations; and α is the one of a few whose progressive log loss is least.

Limits: categories only. A number's place is in the trees; a cross of categories has no form in the artifact.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import Lookup
from bidml.fit.encoding import Categories, Doubles

ALPHAS: Final = (0.01, 0.05, 0.15, 0.5)
_BETA: Final = 1.0
_SMALLEST_BATCH: Final = 16
_LARGEST_BATCH: Final = 4_096
_GROWTH: Final = 200
_AVERAGED_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class FtrlLinear:
    """`terms`: a weight per category, to be added to `intercept`. `progressive` (n_rows,): each row's log-odds before
    it was learnt from, `alpha` the learning rate that was best by them."""

    intercept: float
    terms: tuple[Lookup, ...]
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
) -> FtrlLinear:
    """Learn from outcomes `y` (n_rows,) in [0, 1], in the order of `time` or, without it, in a random one.

    `base_log_odds`: where the intercept starts. Rows of one instant do not see each other.
    """
    n_rows = len(y)
    order = rng.permutation(n_rows) if time is None else np.argsort(time, kind="stable")
    instants = np.arange(n_rows) if time is None else time[order]
    offsets = np.cumsum([1, *(feature.n_codes for feature in features)])
    coordinates = np.zeros((n_rows, len(features) + 1), dtype=np.int32)  # coordinate 0 is the intercept
    for i, feature in enumerate(features):
        coordinates[:, i + 1] = feature.codes[order] + int(offsets[i])
    sorted_y = y[order]
    sorted_weight = np.ones(n_rows) if weight is None else weight[order]
    batches = list(_batches(instants))
    every = np.arange(offsets[-1])
    best: tuple[float, float, Doubles, Doubles] | None = None
    for alpha in alphas:
        learner = _Learner(int(offsets[-1]), alpha, l1, l2, base_log_odds)
        scores = np.empty(n_rows)
        total, n_averaged = np.zeros(offsets[-1]), 0
        for rows in batches:
            if rows.stop > (1.0 - _AVERAGED_SHARE) * n_rows:
                total += (rows.stop - rows.start) * learner.weights(every)
                n_averaged += rows.stop - rows.start
            scores[rows] = learner.learn(coordinates[rows], sorted_y[rows], sorted_weight[rows])
        loss = float((sorted_weight * (np.logaddexp(0.0, scores) - sorted_y * scores)).sum())
        if best is None or loss < best[0]:
            best = loss, alpha, scores, total / n_averaged
    assert best is not None, "there is an alpha"
    _, alpha, scores, weights = best
    progressive = np.empty(n_rows)
    progressive[order] = scores
    terms = tuple(
        Lookup(
            feature.feature,
            feature.keys,
            array("d", weights[start : start + len(feature.keys)].tobytes()),
            float(weights[start + len(feature.keys)]),
        )
        for feature, start in zip(features, offsets, strict=False)
    )
    return FtrlLinear(base_log_odds + float(weights[0]), terms, progressive, alpha)


class _Learner:
    def __init__(self, n: int, alpha: float, l1: float, l2: float, base: float) -> None:
        self._alpha, self._l1, self._l2, self._base = alpha, l1, l2, base
        self._z, self._n = np.zeros(n), np.zeros(n)

    def weights(self, at: npt.NDArray[Any]) -> Doubles:
        z, n = self._z[at], self._n[at]
        shrunk = z if self._l1 == 0.0 else np.sign(z) * np.maximum(np.abs(z) - self._l1, 0.0)
        found: Doubles = -shrunk / ((_BETA + np.sqrt(n)) / self._alpha + self._l2)
        return found

    def learn(self, coordinates: npt.NDArray[Any], y: Doubles, weight: Doubles) -> Doubles:
        """The log-odds of a batch, (n,), then one step from it."""
        w = self.weights(coordinates)
        scores: Doubles = w.sum(axis=1) + self._base
        g = weight * (1.0 / (1.0 + np.exp(-scores)) - y)
        touched, where = np.unique(coordinates, return_inverse=True)
        where = where.reshape(coordinates.shape)
        per_cell = np.broadcast_to(g[:, None], coordinates.shape)
        gradient = np.bincount(where.ravel(), weights=per_cell.ravel(), minlength=len(touched))
        squares = np.bincount(where.ravel(), weights=per_cell.ravel() ** 2, minlength=len(touched))
        n = self._n[touched]
        sigma = (np.sqrt(n + squares) - np.sqrt(n)) / self._alpha
        self._z[touched] += gradient - sigma * self.weights(touched)
        self._n[touched] = n + squares
        return scores


def _batches(instants: npt.NDArray[Any]) -> Iterator[slice]:
    """Slices of growing length that never cut an instant in two."""
    begins = np.flatnonzero(np.append(True, instants[1:] != instants[:-1]))
    start, n_rows = 0, len(instants)
    while start < n_rows:
        wanted = start + min(max(_SMALLEST_BATCH, start // _GROWTH), _LARGEST_BATCH)
        i = int(np.searchsorted(begins, wanted))
        stop = int(begins[i]) if i < len(begins) else n_rows
        yield slice(start, stop)
        start = stop
