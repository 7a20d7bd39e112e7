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
from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.crew import Crew, mean
from bidml.fit.crosses import Pair
from bidml.fit.encoding import Categories
from bidml.fit.ftrl import fit_ftrl
from bidml.fit.late_level import late_level
from bidml.fit.mixed_base import Crossing, fit_mixed_base

BASES: Final = ("auto", "mixed", "linear", "none")
_LEAST_GAIN: Final = 2.0  # over a mixed base, which knows all but what goes together


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """`intercept`, `terms` and `steps`, weights of a number's bins, are served; `margin` (n_rows,) are the log-odds of
    training rows, out of sample.

    `at_end` (n_rows,): log-odds of training rows as if of the end of the log, right in the mean; where the base can
    tell. `least_gain`: by how many standard errors trees must lower the loss of held-out rows to be worth their noise.
    `found`: crosses that were asked for.
    """

    intercept: float
    terms: tuple[Lookup | CrossLookup, ...]
    margin: Doubles
    steps: tuple[tuple[BinnedNumber, Doubles], ...] = ()
    at_end: Doubles | None = None
    least_gain: float = -inf
    found: Mapping[Pair, float] = field(default_factory=dict)


def fit_base(
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
) -> Base:
    """The base `name` of `BASES`; without `time` in a random order. `find` makes crosses that are asked for."""
    rate = mean(crew, y, weight)
    intercept = log(rate) - log(1.0 - rate)
    by_name = [categories[feature.name] for feature in spec.categories()]
    by_name += [found for found in categories.values() if not any(found is known for known in by_name)]
    if name == "linear":
        linear = fit_ftrl(by_name, y, base_log_odds=intercept, weight=weight, time=time, rng=rng, crew=crew)
        return Base(linear.intercept, linear.terms, linear.progressive)
    if name == "none" or (name == "auto" and time is None):
        return Base(intercept, (), np.full(len(y), intercept))
    numbers = [(feature.name, raw[feature.name]) for feature in spec.numbers()]
    order = rng.permutation(len(y)) if time is None else time
    mixed = fit_mixed_base(
        by_name, numbers, y, base_log_odds=intercept, time=order, weight=weight, find=find, crew=crew
    )
    at_end = mixed.afterwards
    if time is not None:
        at_end = at_end + late_level(at_end, y, time, weight=weight, crew=crew)
    steps = tuple(zip(mixed.numbers, mixed.number_weights, strict=True))
    return Base(mixed.intercept, mixed.terms, mixed.beforehand, steps, at_end, _LEAST_GAIN, mixed.found)
