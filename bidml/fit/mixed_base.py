"""The linear base of a click model: a shrunk weight for each category and each bin of a number, and for each training
row its score beforehand.

s = b + Σ_f w_f(x_f) is a mixed model (`fit.mixed_model`) whose priors are those of few clicks. Pairs of categories that
the clicks ask for (`fit.found_crosses`) become features of it, if wanted.

A row's score must not know its outcome, nor what came later: the log is cut into periods of about equally
many rows, and the rows of each are scored by a model of the periods before, which goes on from the one before. The
first period is scored by the base rate. (Which pairs there are, all rows tell.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bidml.blueprint import CrossLookup, Lookup
from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.crew import ALONE, Crew, sampled, total
from bidml.fit.crosses import CrossedCategories, Pair
from bidml.fit.encoding import Categories, Doubles, Indices, as_ticks
from bidml.fit.found_crosses import LEAST_Z, strongest_pair
from bidml.fit.mixed_model import Group, MixedModel, Prior

_BINS: Final = 16
_PERIODS: Final = 8
_SWEEPS_A_PERIOD: Final = 3
_SWEEPS_AFTER: Final = 6
_SWEEPS_TO_FIND: Final = 8
_MOST_FOUND: Final = 3
_LEVEL_STEPS: Final = 4

Rows: TypeAlias = Indices | slice
Crossing: TypeAlias = Callable[[Pair], CrossedCategories]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """`beforehand` (n_rows,): the log-odds of each row by what it may see; `afterwards` (n_rows,): by all rows."""

    intercept: float
    beforehand: Doubles
    afterwards: Doubles


@dataclass(frozen=True, slots=True, eq=False)
class MixedBase:
    """`terms`: a weight per category or pair, and `numbers` with `number_weights` (n_codes,) each, to be added to
    `whole.intercept`. `of_terms`: scores by the terms alone, at their own level. `found`: the pairs that were asked
    for, and by how many standard errors."""

    terms: tuple[Lookup | CrossLookup, ...]
    numbers: tuple[BinnedNumber, ...]
    number_weights: tuple[Doubles, ...]
    whole: Scores
    of_terms: Scores
    found: Mapping[Pair, float]


def fit_mixed_base(
    features: Sequence[Categories],
    numbers: Sequence[tuple[str, Doubles]],
    y: Doubles,
    *,
    base_log_odds: float,
    time: npt.NDArray[Any],
    weight: Doubles | None = None,
    find: Crossing | None = None,
    crew: Crew = ALONE,
) -> MixedBase:
    """Learn from outcomes `y` (n_rows,) in [0, 1] of rows in any order. `numbers`: name and cells (n_rows,).

    `base_log_odds`: of the first period, and where the intercept starts. `time` (n_rows,): anything that sorts; rows of
    one instant do not see each other. `find`: makes crosses of pairs that are asked for; None asks for none.
    """
    binned = [BinnedNumber.of(name, cells, n_bins=_BINS, crew=crew) for name, cells in numbers]
    of_numbers = [(each.codes(cells), each.n_codes) for each, (_, cells) in zip(binned, numbers, strict=True)]
    learner = _Learner(features, of_numbers, y, weight, base_log_odds, crew)
    found = {} if find is None else learner.find(find)
    whole, of_terms = (np.full(len(y), base_log_odds) for _ in range(2))
    last: MixedModel | None = None
    for before, rows in _periods(time, crew):
        last = learner.learn(before, _SWEEPS_A_PERIOD, last)
        whole[rows] = last.of(learner.codes(rows))
        of_terms[rows] = learner.level_of_terms(last, before) + learner.by_terms(last, rows)
    every = slice(None)
    final = learner.learn(every, _SWEEPS_AFTER, last)
    level = learner.level_of_terms(final, every)
    n = len(learner.features)
    return MixedBase(
        tuple(each.lookup(w) for each, w in zip(learner.features, final.weights[:n], strict=True)),
        tuple(binned),
        tuple(final.weights[n:]),
        Scores(final.intercept, whole, final.total),
        Scores(level, of_terms, level + learner.by_terms(final, every)),
        found,
    )


class _Learner:
    def __init__(
        self,
        features: Sequence[Categories],
        numbers: Sequence[tuple[Indices, int]],
        y: Doubles,
        weight: Doubles | None,
        base: float,
        crew: Crew,
    ) -> None:
        self.features, self._numbers = list(features), numbers
        self._y, self._base, self._crew = y, base, crew
        self._given = weight
        self._weight = np.ones(len(y)) if weight is None else weight

    def codes(self, rows: Rows) -> list[Indices]:
        """Of each group."""
        return [*(each.codes[rows] for each in self.features), *(codes[rows] for codes, _ in self._numbers)]

    def find(self, crossing: Crossing) -> dict[Pair, float]:
        """Adds the pairs that are asked for, one after another, as features."""
        found: dict[Pair, float] = {}
        singles = [each for each in self.features if not isinstance(each, CrossedCategories)]
        known = {
            frozenset(side.feature for side in each.sides)
            for each in self.features
            if isinstance(each, CrossedCategories)
        }
        while len(found) < _MOST_FOUND:
            model = self.learn(slice(None), _SWEEPS_TO_FIND, None)
            strongest = strongest_pair(
                singles, self._y, expit(model.total), weight=self._given, without=known
            )
            if strongest is None or strongest[1] < LEAST_Z:
                break
            pair, z = strongest
            found[pair] = z
            known.add(frozenset(pair))
            self.features.append(crossing(pair))
        return found

    def learn(self, rows: Rows, n_sweeps: int, start: MixedModel | None) -> MixedModel:
        y, w = self._y[rows], self._weight[rows]
        sizes = [*(each.n_codes for each in self.features), *(n_codes for _, n_codes in self._numbers)]
        groups = [
            Group(codes, n_codes, crew=self._crew)
            for codes, n_codes in zip(self.codes(rows), sizes, strict=True)
        ]
        model = MixedModel(groups, intercept=self._base, n_rows=len(y), prior=Prior.EFFECTIVE, start=start)

        def evidence(s: Doubles) -> tuple[Doubles, Doubles]:
            p = expit(s)
            return w * (p - y), w * (p * (1.0 - p))

        for _ in range(n_sweeps):
            model.sweep(evidence)
            model.shift(self._step(model.total, rows))
        return model

    def by_terms(self, model: MixedModel, rows: Rows) -> Doubles:
        """Σ weights of the categories, without the numbers and the intercept."""
        found = np.zeros(len(self._y[rows]))
        for each, weights in zip(self.features, model.weights, strict=False):
            found += weights[each.codes[rows]]
        return found

    def level_of_terms(self, model: MixedModel, rows: Rows) -> float:
        """The intercept that is right for `rows` with the terms alone."""
        others, level = self.by_terms(model, rows), model.intercept
        for _ in range(_LEVEL_STEPS):
            level += self._step(level + others, rows)
        return level

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
