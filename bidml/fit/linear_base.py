"""What every category adds to ln price and to ln slope, jointly, given the bid and the other categories.

Two mixed models (`mixed_model`) on the unified likelihood. The location's weights serve twice: as terms of the
location head, and as the number by which trees see a rich category (one Newton step of the likelihood given the bid,
never a plain win rate, which is confounded with our bids; SCIENCE.md 1.3). A training row must not see its own outcome,
so its weights are those of the other folds.

What our bids reveal: we bid more where clicks are worth more, others do too, and the level of our bids in a placement
is known after a few rows when its win rate is not. So a rich category's weight shrinks to what the mean of ln bid
there, itself a mixed model, predicts. Not doing so also flattens the slope: a high bid then hints at a high price.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bidml.blueprint import CrossLookup, Lookup
from bidml.fit.censored import CensoredLikelihood, global_curve, newton_shift
from bidml.fit.crew import Crew, mean
from bidml.fit.encoding import Categories, FittedColumn, Indices, Visibility
from bidml.fit.mixed_model import Evidence, Group, MixedModel
from bidml.fit.observations import Doubles

FEW_KEYS: Final = 24
"""Up to here a category has rows enough to speak for itself, and trees tell its values apart by their rank."""

_SWEEPS: Final = 12
_SLOPE_SWEEPS: Final = 8
_SWEEPS_AFTER_SLOPES: Final = 4
_SMALLEST_SLOPE_SD: Final = 0.02  # of ln k: below it a lookup is not worth its time
_LARGEST_SLOPE_SD: Final = 0.3  # few categories of unequal size say little about their spread
_BID_SWEEPS: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class LinearBase:
    """`effects`: one column per feature, weights for serving and, for the training rows, of the other folds.

    `slope_effects`: alike for ln k, of the features that move it. `intercept`, `log_slope`: the constants around them.
    `number_weights`: of the bins of each number, (n_codes,).
    """

    intercept: float
    log_slope: float
    effects: tuple[FittedColumn, ...]
    slope_effects: tuple[FittedColumn, ...]
    number_weights: tuple[Doubles, ...]
    n_rows: int

    @property
    def terms(self) -> tuple[Lookup | CrossLookup, ...]:
        """The weights as terms of the location head; features without an effect are left out."""
        return tuple(e.lookup for e in self.effects if any(e.lookup.values) or e.lookup.default)

    @property
    def slope_terms(self) -> tuple[Lookup | CrossLookup, ...]:
        """The weights as terms of the slope head."""
        return tuple(e.lookup for e in self.slope_effects)

    @property
    def training_margin(self) -> Doubles:
        """Σ weights of the training rows (n,), each by the other folds."""
        total = np.zeros(self.n_rows)
        for effect in self.effects:
            total += effect.values
        return total


def fit_linear_base(
    likelihood: CensoredLikelihood,
    features: Sequence[Categories],
    *,
    visibility: Visibility,
    log_bid_cpm: Doubles | None,
    slopes_differ: bool,
    numbers: Sequence[tuple[Indices, int]] = (),
) -> LinearBase:
    """The base on the likelihood's rows (n,); `features`, `visibility` and `log_bid_cpm` (n,; None: do not
    learn from the level of our bids) are of the same rows.

    `slopes_differ`: also the weights of ln k. `numbers`: codes (n,) and number of codes of binned numbers, fitted along
    so that categories are not credited with their effects.
    """
    b, a = global_curve(likelihood)
    n = likelihood.n_rows
    crew = likelihood.crew
    groups = _groups(features, numbers, log_bid_cpm, crew)
    model = MixedModel(groups, intercept=b, n_rows=n, unit=likelihood.unit(a))
    slope_groups = [Group(f.codes, f.n_codes, crew=crew) for f in features] if slopes_differ else []
    slope = MixedModel(slope_groups, intercept=a, n_rows=n, largest_sd=_LARGEST_SLOPE_SD)

    def evidence(beta: Doubles) -> tuple[Doubles, Doubles]:
        return likelihood.location_derivatives(beta, slope.total)

    def sweep(times: int) -> None:
        for _ in range(times if model.groups else 0):
            model.sweep(evidence)
            step_b, step_a = newton_shift(likelihood, model.total, slope.total, keeps_odds=True)
            model.scale(float(np.exp(-step_a)))
            model.shift(step_b)
            slope.shift(step_a)

    sweep(_SWEEPS)
    slope_evidence = _slope_evidence(likelihood, model.total_out_of_fold(evidence, visibility))
    for _ in range(_SLOPE_SWEEPS if slope_groups else 0):
        slope.sweep(slope_evidence)
    if slope_groups:
        sweep(_SWEEPS_AFTER_SLOPES)
    effects = tuple(
        categories.column(model.out_of_fold(i, evidence, visibility), model.weights[i])
        for i, categories in enumerate(features)
    )
    slope_effects = tuple(
        features[i].column(slope.out_of_fold(i, slope_evidence, visibility), slope.weights[i])
        for i, kappa in enumerate(slope.shrinkage)
        if kappa < _SMALLEST_SLOPE_SD**-2
    )
    weights = tuple(model.weights[len(features) :])
    return LinearBase(model.intercept, slope.intercept, effects, slope_effects, weights, n)


def _slope_evidence(likelihood: CensoredLikelihood, beta: Doubles) -> Evidence:
    """About ln k at β (n,), moved by what that leaves on average.

    β of other folds: where it has seen a row, the row's price is near by construction, and rare categories look steep.
    """

    def evidence(log_slope: Doubles) -> tuple[Doubles, Doubles]:
        shift, _ = newton_shift(likelihood, beta, log_slope)
        d = likelihood.derivatives(beta + shift, log_slope)
        return d.gradient_slope, d.hessian_slope

    return evidence


def _groups(
    features: Sequence[Categories],
    numbers: Sequence[tuple[Indices, int]],
    log_bid_cpm: Doubles | None,
    crew: Crew,
) -> list[Group]:
    """Categories, the rich ones with the level of our bids as covariate; then numbers."""
    binned = [Group(codes, n_codes, empirical=False, crew=crew) for codes, n_codes in numbers]
    plain = [Group(f.codes, f.n_codes, crew=crew) for f in features]
    rich = [len(f.keys) > FEW_KEYS for f in features]
    if log_bid_cpm is None or not any(rich):
        return plain + binned
    level = mean(crew, log_bid_cpm)
    variance = mean(crew, (log_bid_cpm - level) ** 2)
    if not variance > 0.0:
        return plain + binned
    bids = MixedModel(plain + binned, intercept=level, n_rows=len(log_bid_cpm))

    def evidence(mean: Doubles) -> tuple[Doubles, Doubles]:
        return (mean - log_bid_cpm) / variance, np.full(len(mean), 1.0 / variance)

    for _ in range(_BID_SWEEPS):
        bids.sweep(evidence)
        variance = max(mean(crew, (bids.total - log_bid_cpm) ** 2), 1e-6)
    return [
        Group(f.codes, f.n_codes, covariate=bids.weights[i] if rich[i] else None, crew=crew)
        for i, f in enumerate(features)
    ] + binned
