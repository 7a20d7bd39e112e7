"""The linear base of a click model: a shrunk weight for each category and each bin of a number, and for each training
row its score beforehand.

s = b + Σ_f w_f(x_f) is a mixed model (`fit.mixed_model`) whose priors are those of few clicks. Pairs that the clicks
ask for (`fit.found_crosses`) become features of it, if wanted: two categories, whose cells have a mean of low rank
(`fit.low_rank`) and what they do beyond it; or a category and a number, whose cells are of low rank altogether
(`fit.slopes`).

A row's score must not know its outcome, nor what came later: the log is cut into periods of about equally
many rows, and the rows of each are scored by a model of the periods before, which goes on from the one before. The
first period is scored by the base rate. (Which pairs there are, all rows tell.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bidml.blueprint import CrossLookup, Lookup
from bidml.fit.binned_numbers import BinnedNumber, Steps
from bidml.fit.crew import ALONE, Crew, sampled, total
from bidml.fit.crosses import CrossedCategories, Pair
from bidml.fit.encoding import Categories, Doubles, Indices, as_ticks
from bidml.fit.found_crosses import LEAST_Z, LEAST_Z_OF_SLOPES, strongest_pair, strongest_slopes
from bidml.fit.mixed_model import Group, MixedModel, Prior
from bidml.fit.slopes import Slopes

_BINS: Final = 16
_PERIODS: Final = 8
_SWEEPS_A_PERIOD: Final = 3
_SWEEPS_AFTER: Final = 6
_SWEEPS_TO_FIND: Final = 8
_SWEEPS_TO_GO_ON: Final = 4
_MOST_FOUND: Final = 3  # of two categories, and as many of a category and a number
_RANK_OF_PAIRS: Final = 5
_RANK_OF_SLOPES: Final = 2
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
    """`terms`: a weight per category or pair, and `steps` of numbers, to be added to `whole.intercept`. `of_terms`:
    scores by the terms alone, at their own level. `found`: the pairs that were asked for, and by how many standard
    errors."""

    terms: tuple[Lookup | CrossLookup, ...]
    steps: tuple[Steps, ...]
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
    bins = [number.codes(cells) for number, (_, cells) in zip(binned, numbers, strict=True)]
    learner = _Learner(features, list(zip(binned, bins, strict=True)), y, weight, base_log_odds, crew)
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
    served = list(zip(learner.parts, final.weights, strict=True))
    return MixedBase(
        tuple(part.lookup(w) for part, w in served if isinstance(part, Categories)),
        tuple(part.steps(w) for part, w in served if not isinstance(part, Categories)),
        Scores(final.intercept, whole, final.total),
        Scores(level, of_terms, level + learner.by_terms(final, every)),
        found,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Bins:
    number: BinnedNumber
    codes: Indices

    @property
    def n_codes(self) -> int:
        return self.number.n_codes

    def steps(self, weights: Doubles) -> Steps:
        return Steps(self.number, weights[None])


class _Learner:
    """`parts`: what has weights; those that are found come last."""

    def __init__(
        self,
        features: Sequence[Categories],
        numbers: Sequence[tuple[BinnedNumber, Indices]],
        y: Doubles,
        weight: Doubles | None,
        base: float,
        crew: Crew,
    ) -> None:
        self.parts: list[Categories | _Bins | Slopes] = [*features, *(_Bins(*each) for each in numbers)]
        self._numbers = {number.feature: (number, bins) for number, bins in numbers}
        self._y, self._base, self._crew = y, base, crew
        self._given = weight
        self._weight = np.ones(len(y)) if weight is None else weight

    def codes(self, rows: Rows) -> list[Indices]:
        """Of each part."""
        return [part.codes[rows] for part in self.parts]

    def find(self, crossing: Crossing) -> dict[Pair, float]:
        """Adds the pairs that are asked for, one after another, the strongest first."""
        found: dict[Pair, float] = {}
        every = [part for part in self.parts if isinstance(part, Categories)]
        crossed = [part for part in every if isinstance(part, CrossedCategories)]
        singles = [part for part in every if not isinstance(part, CrossedCategories)]
        known = {frozenset(side.feature for side in each.sides) for each in crossed}
        model: MixedModel | None = None
        while True:
            model = self.learn(slice(None), _SWEEPS_TO_FIND if model is None else _SWEEPS_TO_GO_ON, model)
            strongest = self._strongest(expit(model.total), singles, found, known)
            if strongest is None:
                return found
            pair, z = strongest
            found[pair] = z
            known.add(frozenset(pair))
            if pair[1] in self._numbers:
                category = next(each for each in singles if each.feature == pair[0])
                self.parts.append(Slopes(category, *self._numbers[pair[1]]))
            else:
                self.parts.append(crossing(pair))

    def _strongest(
        self, p: Doubles, singles: Sequence[Categories], found: Collection[Pair], known: Set[frozenset[str]]
    ) -> tuple[Pair, float] | None:
        """Of the kinds of pairs that there may be more of, the one that is asked for most."""
        n_slopes = sum(pair[1] in self._numbers for pair in found)
        numbers = list(self._numbers.values())
        asked = []
        if len(found) - n_slopes < _MOST_FOUND:
            pair = strongest_pair(singles, self._y, p, weight=self._given, without=known)
            asked += [pair] if pair is not None and pair[1] >= LEAST_Z else []
        if n_slopes < _MOST_FOUND:
            slopes = strongest_slopes(singles, numbers, self._y, p, weight=self._given, without=known)
            asked += [slopes] if slopes is not None and slopes[1] >= LEAST_Z_OF_SLOPES else []
        return max(asked, key=lambda each: each[1], default=None)

    def learn(self, rows: Rows, n_sweeps: int, start: MixedModel | None) -> MixedModel:
        y, w = self._y[rows], self._weight[rows]
        groups = [_group(part, rows, self._crew) for part in self.parts]
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
        for part, weights in zip(self.parts, model.weights, strict=True):
            if isinstance(part, Categories):
                found += weights[part.codes[rows]]
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


def _group(part: Categories | _Bins | Slopes, rows: Rows, crew: Crew) -> Group:
    codes, n_codes = part.codes[rows], part.n_codes
    if isinstance(part, Slopes):
        return Group(codes, n_codes, crew=crew, sides=part.cells, rank=_RANK_OF_SLOPES, beyond=False)
    if isinstance(part, CrossedCategories):
        return Group(codes, n_codes, crew=crew, sides=part.cells, rank=_RANK_OF_PAIRS)
    return Group(codes, n_codes, crew=crew, is_ordered=isinstance(part, _Bins))


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
