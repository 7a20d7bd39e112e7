"""What the trees of a click model start from, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import CrossLookup, Lookup
from bidml.contract import FeatureSpec
from bidml.features import Doubles, RawColumns
from bidml.fit.binned_numbers import Steps
from bidml.fit.crew import Crew, mean
from bidml.fit.crosses import Pair
from bidml.fit.encoding import Categories
from bidml.fit.ftrl import fit_ftrl
from bidml.fit.late_level import late_level
from bidml.fit.mixed_base import Crossing, fit_mixed_base

BASES: Final = ("auto", "mixed", "linear", "none")
_LEAST_GAIN: Final = 1.0  # over a mixed base, which knows all but what goes together


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """`intercept`, `terms` and `steps` of numbers are served; `margin` (n_rows,) are the log-odds of training rows, out
    of sample.

    `afterwards` (n_rows,): log-odds of training rows by what is served, right in the mean of the log, where the base
    can tell. `late`: what is to be added at the log's end. `found`: crosses that were asked for.
    """

    intercept: float
    terms: tuple[Lookup | CrossLookup, ...]
    margin: Doubles
    steps: tuple[Steps, ...] = ()
    afterwards: Doubles | None = None
    late: float = 0.0
    found: Mapping[Pair, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """The first is the base if trees are not worth their noise: if they do not lower the loss of held-out rows by
    `least_gain` standard errors. With trees it is the one that goes best with them."""

    bases: tuple[Base, ...]
    least_gain: float = -inf


def fit_bases(
    name: str,
    raw: RawColumns,
    spec: FeatureSpec,
    categories: Mapping[str, Categories],
    y: Doubles,
    *,
    time: npt.NDArray[Any] | None,
    weight: Doubles | None,
    find: Crossing | None,
    rng: np.random.Generator,
    crew: Crew,
) -> Bases:
    """What `name` of `BASES` stands for; without `time` in a random order. `find` makes crosses that are asked for.

    A mixed base has its numbers, or leaves them to the trees: where they go together with categories, what they add by
    themselves is in the way.
    """
    rate = mean(crew, y, weight)
    intercept = log(rate) - log(1.0 - rate)
    by_name = [categories[feature.name] for feature in spec.categories()]
    by_name += [found for found in categories.values() if not any(found is known for known in by_name)]
    if name == "linear":
        linear = fit_ftrl(by_name, y, base_log_odds=intercept, weight=weight, time=time, rng=rng, crew=crew)
        return Bases((Base(linear.intercept, linear.terms, linear.progressive),))
    if name == "none" or (name == "auto" and time is None):
        return Bases((Base(intercept, (), np.full(len(y), intercept)),))
    numbers = [(feature.name, raw[feature.name]) for feature in spec.numbers()]
    order = rng.permutation(len(y)) if time is None else time
    mixed = fit_mixed_base(
        by_name, numbers, y, base_log_odds=intercept, time=order, weight=weight, find=find, crew=crew
    )
    bases = []
    for scores, served in ((mixed.whole, mixed.steps), (mixed.of_terms, ())):
        known = scores.afterwards
        late = 0.0 if time is None else late_level(known, y, time, weight=weight, crew=crew)
        bases.append(Base(scores.intercept, mixed.terms, scores.beforehand, served, known, late, mixed.found))
    return Bases(tuple(bases[: 2 if numbers else 1]), _LEAST_GAIN)
