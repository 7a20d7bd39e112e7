"""Which of two forecasts knows more: the weights that outcomes give them beside each other.

ln odds(y) = a + w₁ x₁ + w₂ x₂ with x the forecasts' log-odds, by maximum likelihood: forecast encompassing (Chong and
Hendry 1986; Harvey, Leybourne and Newbold 1998) for events. A forecast that adds nothing to the other gets weight 0;
two that are equally good, and err apart, get equal weights. So `share` = w₁ / (w₁ + w₂) is about ½ for a model of equal
quality, learnt from as much data, and tells less good ones apart long before the difference of log losses does: it asks
only about the errors in which they differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import special

from bidml.features import Doubles

_EPSILON: Final = 1e-12
_SD_OF_LEVEL: Final = 0.5  # weak priors: a weight is 1 over the number of forecasts, give or take 1
_SD_OF_WEIGHT: Final = 1.0
_STEPS: Final = 50


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """σ(level + Σ weights · log-odds); `covariance` (1 + k, 1 + k) is that of (level, *free weights).

    `free` are the weights as they were found, negative ones included; in `weights` those are 0, the rest fitted again.
    """

    level: float
    weights: Doubles
    free: Doubles
    covariance: npt.NDArray[np.float64] = field(repr=False)
    free_covariance: npt.NDArray[np.float64] = field(repr=False)

    def __call__(self, forecasts: Sequence[Doubles]) -> Doubles:
        """The mixture of forecasts (n,) each, in the order in which it was fitted."""
        log_odds = sum(w * log_odds_of(p) for w, p in zip(self.weights, forecasts, strict=True))
        return np.asarray(special.expit(self.level + log_odds))

    def draws(self, n: int, rng: np.random.Generator) -> list[Mixture]:
        """Mixtures as the outcomes allow them: normal around the fit, no weight below 0."""
        centre = np.concatenate([[self.level], self.weights])
        found = rng.multivariate_normal(centre, self.covariance, size=n, method="eigh")
        return [
            Mixture(float(row[0]), np.maximum(row[1:], 0.0), self.free, self.covariance, self.free_covariance)
            for row in found
        ]

    def share(self, n: int, rng: np.random.Generator) -> Doubles:
        """n draws of the first weight's part of all weights, (n,); NaN where they cancel."""
        found = rng.multivariate_normal(self.free, self.free_covariance[1:, 1:], size=n, method="eigh")
        total = found.sum(axis=1)
        return np.where(total > 0.0, found[:, 0] / np.where(total > 0.0, total, 1.0), np.nan)


def fit_mixture(
    forecasts: Sequence[Doubles], y: npt.ArrayLike, weight: npt.ArrayLike | None = None
) -> Mixture:
    """From probabilities (n,) each and their outcomes (n,), bool; `weight` (n,): for how many rows each stands.

    Rows that stand for many are no more rows: weights are scaled to (Σw)² / Σw², so that certainty is that of a sample.
    """
    outcome = np.asarray(y, dtype=np.float64)
    w = np.ones(len(outcome)) if weight is None else np.asarray(weight, dtype=np.float64)
    w = w * (w.sum() / (w**2).sum())
    x = np.column_stack([log_odds_of(p) for p in forecasts])
    centre = x.mean(axis=0)
    theta, covariance = _newton(x - centre, outcome, w, np.ones(x.shape[1], dtype=bool))
    free, free_covariance = theta, covariance
    allowed = np.ones(x.shape[1], dtype=bool)
    while (theta[1:] < 0.0).any():
        allowed &= theta[1:] >= 0.0
        theta, covariance = _newton(x - centre, outcome, w, allowed)
    to_level = np.eye(len(theta))
    to_level[0, 1:] = -centre  # the level belongs to centred log-odds
    theta, covariance = to_level @ theta, to_level @ covariance @ to_level.T
    return Mixture(float(theta[0]), theta[1:], free[1:], covariance, free_covariance)


def log_odds_of(p: Doubles) -> Doubles:
    """ln p / (1 − p), finite."""
    return np.asarray(special.logit(np.clip(p, _EPSILON, 1.0 - _EPSILON)))


def _newton(
    x: npt.NDArray[np.float64], y: Doubles, w: Doubles, allowed: npt.NDArray[np.bool_]
) -> tuple[Doubles, npt.NDArray[np.float64]]:
    """(level, *weights) at the penalised maximum, and its covariance; weights that are not `allowed` are 0, surely."""
    k = int(allowed.sum())
    design = np.column_stack([np.ones(len(x)), x[:, allowed]])
    base = ((w * y).sum() + 0.5) / (w.sum() + 1.0)
    prior_mean = np.concatenate([[special.logit(base)], np.full(k, 1.0 / max(k, 1))])
    precision = np.diag(np.array([_SD_OF_LEVEL] + [_SD_OF_WEIGHT] * k) ** -2.0)
    theta = prior_mean.copy()
    for _ in range(_STEPS):
        q = special.expit(design @ theta)
        hessian = (design * (w * q * (1.0 - q))[:, None]).T @ design + precision
        step = np.linalg.solve(hessian, design.T @ (w * (y - q)) - precision @ (theta - prior_mean))
        step *= min(1.0, 2.0 / max(np.abs(step).max(), 1e-300))  # damped where odds are far off
        theta = theta + step
        if np.abs(step).max() < 1e-10:
            break
    keep = np.concatenate([[True], allowed])
    full, covariance = np.zeros(len(keep)), np.zeros((len(keep), len(keep)))
    full[keep] = theta
    covariance[np.ix_(keep, keep)] = np.linalg.inv(hessian)
    return full, covariance
