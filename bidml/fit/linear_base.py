"""What every category adds to the log-odds of winning, jointly, shrunk by what the data say about each feature.

A mixed model on the unified likelihood with one slope: β(x) = b + Σ_f w_f(x_f), w_f(c) ~ N(0, 1/κ_f), fitted by
backfitting. The categories of one feature are disjoint, so its Newton step is one sum per category:
w ← (H w − G) / (H + κ), with G and H the gradient and the information of the category's rows; κ_f is empirical Bayes
(`encoding.empirical_shrinkage`). No matrix is built: a pass costs a few `bincount`s per feature, at any cardinality.

The weights serve twice: as terms of the location head, and as the number by which trees see a category (one Newton
step of the likelihood given the bid and all other categories, never a plain win rate, which is confounded with our
bids; SCIENCE.md 1.3). A training row must not see its own outcome, so its weights are those of the other folds: one
more Newton step with the fold's G and H left out, which is exact for a category with rows in one fold only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bidml.blueprint import Lookup
from bidml.fit.censored import CensoredLikelihood, global_curve, newton_shift
from bidml.fit.encoding import Categories, FittedColumn, Indices, Visibility, empirical_shrinkage
from bidml.fit.observations import Doubles

_SWEEPS: Final = 12
_LARGEST_STEP: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class LinearBase:
    """`effects`: one column per feature, weights for serving and, for the training rows, of the other folds.

    `intercept`, `log_slope`: the constants around them. `number_weights`: of the bins of each number, (n_codes,).
    """

    intercept: float
    log_slope: float
    effects: tuple[FittedColumn, ...]
    number_weights: tuple[Doubles, ...]
    n_rows: int

    @property
    def terms(self) -> tuple[Lookup, ...]:
        """The weights as terms of a head; features without an effect are left out."""
        return tuple(e.lookup for e in self.effects if any(e.lookup.values) or e.lookup.default)

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
    numbers: Sequence[tuple[Indices, int]] = (),
) -> LinearBase:
    """The base on the likelihood's rows (n,); `features` and `visibility` are of the same rows.

    `numbers`: codes (n,) and number of codes of binned numbers, fitted along so that categories are not credited with
    their effects.
    """
    b, a = global_curve(likelihood)
    beta, slope = np.full(likelihood.n_rows, b), np.full(likelihood.n_rows, a)
    groups = [(f.codes, f.n_codes) for f in features] + list(numbers)
    seen = [np.bincount(codes, minlength=n_codes) > 0 for codes, n_codes in groups]
    weights = [np.zeros(n_codes) for _, n_codes in groups]
    shrinkage = [1.0] * len(groups)
    for _ in range(_SWEEPS if groups else 0):
        for i, (codes, n_codes) in enumerate(groups):
            g, h = _sums(likelihood, beta, slope, codes, n_codes)
            score = h * weights[i] - g
            if i < len(features):
                shrinkage[i] = empirical_shrinkage(score, h)
            step = score / (h + shrinkage[i]) - weights[i]
            step = np.clip(step, -_LARGEST_STEP, _LARGEST_STEP)
            weights[i] += step
            beta += step[codes]
            mean = float(weights[i][seen[i]].mean())  # the prior is around 0: the common part belongs to b
            weights[i][seen[i]] -= mean
            b += mean
        step_b, step_a = newton_shift(likelihood, beta, slope)
        b, a = b + step_b, a + step_a
        beta += step_b
        slope += step_a
    derivatives = likelihood.derivatives(beta, slope)
    evidence = np.column_stack((derivatives.gradient_location, derivatives.hessian_location))
    effects = []
    for categories, w, kappa in zip(features, weights, shrinkage, strict=False):
        g, h = visibility.sums(categories.codes, categories.n_codes, evidence).T
        effects.append(categories.column((h * w[categories.codes] - g) / (h + kappa), w))
    return LinearBase(b, a, tuple(effects), tuple(weights[len(features) :]), likelihood.n_rows)


def _sums(
    likelihood: CensoredLikelihood, beta: Doubles, slope: Doubles, codes: Indices, n_codes: int
) -> tuple[Doubles, Doubles]:
    d = likelihood.derivatives(beta, slope)
    g = np.bincount(codes, weights=d.gradient_location, minlength=n_codes)
    h = np.bincount(codes, weights=d.hessian_location, minlength=n_codes)
    return g.astype(np.float64), h.astype(np.float64)
