"""What the win curve's trees and linear part see of an auction: numbers as they are, categories through lookups.

A category of few values is its rank by frequency, a richer one its weight in the linear base. Training rows get the
values of the other folds, all later rows the lookups (see `linear_base`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bidml.blueprint import Column, Head, WinFamily
from bidml.contract import FeatureSpec
from bidml.features import RawColumns, encode, looked_up
from bidml.fit.binned_numbers import BinnedNumber
from bidml.fit.censored import CensoredLikelihood
from bidml.fit.crew import ALONE, Crew
from bidml.fit.encoding import Categories, Indices, OtherFolds, rank_column
from bidml.fit.linear_base import FEW_KEYS, LinearBase, fit_linear_base
from bidml.fit.observations import Doubles, MarketPriceObservations
from bidml.fit.two_boosters import TrainingRows

_MIN_COUNT: Final = 2


@dataclass(frozen=True, slots=True, eq=False)
class WinInputs:
    """The linear base and the trees' columns, fitted on training rows; `training` holds those rows as trees see them.

    `has_terms`: the base's weights are part of the heads (`base="linear"`).
    """

    base: LinearBase
    columns: tuple[Column, ...]
    training: TrainingRows
    has_terms: bool

    def rows(self, raw: RawColumns, likelihood: CensoredLikelihood) -> TrainingRows:
        """Other rows (n,) as the artifact will see them."""
        n = likelihood.n_rows
        beta = np.full(n, self.base.intercept)
        if self.has_terms:
            for effect in self.base.effects:
                beta += looked_up(effect.lookup, raw)
        a = np.full(n, self.base.log_slope)
        for effect in self.base.slope_effects:
            a += looked_up(effect.lookup, raw)
        return TrainingRows(self.matrix(raw), likelihood, beta, a)

    def matrix(self, raw: RawColumns) -> Doubles:
        """The trees' inputs (n, n_columns) of rows, every category through its lookup."""
        return encode(raw, Head(self.columns, None))


def fit_win_inputs(
    spec: FeatureSpec,
    raw: RawColumns,
    observations: MarketPriceObservations,
    *,
    reference_log_bid_cpm: float,
    folds: Indices,
    has_terms: bool,
    slopes_differ: bool,
    family: WinFamily = WinFamily.LOG_LOGISTIC,
    crew: Crew = ALONE,
) -> WinInputs:
    """Fits base and columns on the rows of `raw`, `observations` and `folds` (n,)."""
    likelihood = CensoredLikelihood(
        observations, reference_log_bid_cpm=reference_log_bid_cpm, family=family, crew=crew
    )
    n = likelihood.n_rows
    categories = [
        Categories.of(feature.name, raw[feature.name], min_count=_MIN_COUNT, crew=crew)
        for feature in spec.categories()
    ]
    numbers = {feature.name: raw[feature.name] for feature in spec.numbers()}
    binned = (
        [(BinnedNumber.of(name, cells, crew=crew), cells) for name, cells in numbers.items()]
        if categories
        else []
    )
    base = fit_linear_base(
        likelihood,
        categories,
        visibility=OtherFolds(folds, crew),
        log_bid_cpm=np.log(observations.bid_cpm),
        slopes_differ=slopes_differ and has_terms,
        numbers=[(bins.codes(cells), bins.n_codes) for bins, cells in binned],
    )
    columns, values = [Column(name) for name in numbers], list(numbers.values())
    for found, effect in zip(categories, base.effects, strict=True):
        encoding = rank_column(found) if len(found.keys) <= FEW_KEYS else effect
        columns.append(Column(found.feature, encoding.lookup))
        values.append(encoding.values)
    beta = base.intercept + base.training_margin if has_terms else np.full(n, base.intercept)
    a = np.full(n, base.log_slope)
    for effect in base.slope_effects:
        a += effect.values
    training = TrainingRows(np.column_stack(values), likelihood, beta, a)
    return WinInputs(base, tuple(columns), training, has_terms)
