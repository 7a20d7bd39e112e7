"""The linear base of a click model: a shrunk weight for each category, and for each training row its score beforehand.

s = b + Σ_f w_f(x_f) is a mixed model (`fit.mixed_model`) whose priors are those of few clicks. Bins of the numbers are
fitted along, so that categories are not credited with their effects, but are left to the trees.

A row's score must not know its outcome, nor what came later: the log is cut into periods of about equally
many rows, and the rows of each are scored by a model of the periods before, which goes on from the one before. The
first period is scored by the base rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bidml.blueprint import CrossLookup, Lookup
from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.crew import ALONE, Crew, sampled, total
from bidml.fit.encoding import Categories, Doubles, Indices, as_ticks
from bidml.fit.mixed_model import Group, MixedModel, Prior

_BINS: Final = 16
_PERIODS: Final = 8
_SWEEPS_A_PERIOD: Final = 3
_SWEEPS_AFTER: Final = 6
_LEVEL_STEPS: Final = 4

Rows: TypeAlias = Indices | slice


@dataclass(frozen=True, slots=True, eq=False)
class MixedBase:
    """`terms`: a weight per category or pair, to be added to `intercept`. `beforehand` (n_rows,): the log-odds of each
    row by what it may see; `afterwards` (n_rows,): by all rows."""

    intercept: float
    terms: tuple[Lookup | CrossLookup, ...]
    beforehand: Doubles
    afterwards: Doubles


def fit_mixed_base(
    features: Sequence[Categories],
    numbers: Sequence[tuple[str, Doubles]],
    y: Doubles,
    *,
    base_log_odds: float,
    time: npt.NDArray[Any],
    weight: Doubles | None = None,
    crew: Crew = ALONE,
) -> MixedBase:
    """Learn from outcomes `y` (n_rows,) in [0, 1] of rows in any order. `numbers`: name and cells (n_rows,).

    `base_log_odds`: of the first period, and where the intercept starts. `time` (n_rows,): anything that sorts; rows of
    one instant do not see each other.
    """
    codes = [(each.codes, each.n_codes) for each in features]
    for name, cells in numbers:
        binned = BinnedNumber.of(name, cells, n_bins=_BINS, crew=crew)
        codes.append((binned.codes(cells), binned.n_codes))
    learner = _Learner(codes, len(features), y, weight, base_log_odds, crew)
    beforehand = np.full(len(y), base_log_odds)
    last: MixedModel | None = None
    for before, rows in _periods(time, crew):
        last = learner.learn(before, _SWEEPS_A_PERIOD, last)
        beforehand[rows] = learner.scores(last, before, rows)
    final = learner.learn(slice(None), _SWEEPS_AFTER, last)
    terms = tuple(each.lookup(weights) for each, weights in zip(features, final.weights, strict=False))
    every = slice(None)
    return MixedBase(learner.level(final, every), terms, beforehand, learner.scores(final, every, every))


class _Learner:
    def __init__(
        self,
        codes: Sequence[tuple[Indices, int]],
        n_features: int,
        y: Doubles,
        weight: Doubles | None,
        base: float,
        crew: Crew,
    ) -> None:
        self._codes, self._n_features, self._y, self._crew = codes, n_features, y, crew
        self._weight = np.ones(len(y)) if weight is None else weight
        self._base = base

    def learn(self, rows: Rows, n_sweeps: int, start: MixedModel | None) -> MixedModel:
        y, w = self._y[rows], self._weight[rows]
        groups = [Group(codes[rows], n_codes, crew=self._crew) for codes, n_codes in self._codes]
        model = MixedModel(groups, intercept=self._base, n_rows=len(y), prior=Prior.EFFECTIVE, start=start)

        def evidence(s: Doubles) -> tuple[Doubles, Doubles]:
            p = expit(s)
            return w * (p - y), w * (p * (1.0 - p))

        for _ in range(n_sweeps):
            model.sweep(evidence)
            model.shift(self._step(model.total, rows))
        return model

    def scores(self, model: MixedModel, learnt: Rows, rows: Rows) -> Doubles:
        """By the categories alone, at the level that is right for the rows `learnt`."""
        return self.level(model, learnt) + self._by_categories(model, rows)

    def level(self, model: MixedModel, rows: Rows) -> float:
        """The intercept that is right with the categories alone."""
        others, level = self._by_categories(model, rows), model.intercept
        for _ in range(_LEVEL_STEPS):
            level += self._step(level + others, rows)
        return level

    def _by_categories(self, model: MixedModel, rows: Rows) -> Doubles:
        found = np.zeros(len(self._y[rows]))
        for (codes, _), weights in zip(self._codes[: self._n_features], model.weights, strict=False):
            found += weights[codes[rows]]
        return found

    def _step(self, s: Doubles, rows: Rows) -> float:
        """One of Newton's towards the level at which the outcomes of the rows add up."""
        p, w = expit(s), self._weight[rows]
        missing, slope = total(
            self._crew, float((w * (self._y[rows] - p)).sum()), float((w * p * (1.0 - p)).sum())
        )
        return float(np.clip(missing / slope, -1.0, 1.0)) if slope > 0.0 else 0.0


def _periods(time: npt.NDArray[Any], crew: Crew) -> Iterator[tuple[Rows, Rows]]:
    """(rows before, rows of) each period but the first, of all ranks' rows; slices where rows are in order of time."""
    ticks = as_ticks(time)
    in_order = bool((ticks[1:] >= ticks[:-1]).all())
    known = np.sort(sampled(crew, ticks))
    begins = np.unique(known[np.arange(1, _PERIODS) * len(known) // _PERIODS])
    for begin, end in zip(begins, [*begins[1:], None], strict=True):
        if in_order:
            at = int(np.searchsorted(ticks, begin))
            until = len(ticks) if end is None else int(np.searchsorted(ticks, end))
            before: Rows = slice(0, at)
            rows: Rows = slice(at, until)
        else:
            is_later = ticks >= begin
            before = np.flatnonzero(~is_later)
            rows = np.flatnonzero(is_later if end is None else is_later & (ticks < end))
        (n_before,) = total(crew, float((ticks < begin).sum()))
        if n_before:
            yield before, rows
