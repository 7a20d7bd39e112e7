"""Three numbers for the shape: F ← G(s η + t)^γ, fitted on held-out rows (of the log-logistic, a Dagum distribution).

It mends what one family cannot: γ > 1 a heavier upper tail, γ < 1 a heavier lower one, and the over- or
under-confidence of the heads. G(·)^γ stays log-concave in ln b, so the optimal bid stays unique (SCIENCE.md 2.3, 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import optimize

from bidml.blueprint import WinFamily
from bidml.fit.censored import clamped
from bidml.fit.censored_normal import ln_cdf_and_hazard
from bidml.fit.crew import ALONE, Crew, mean, total
from bidml.fit.encoding import Indices
from bidml.fit.observations import Doubles, MarketPriceObservations

_PRIOR_SD: Final = np.array([0.3, 0.5, 1.0])  # of ln s, t, ln γ
_BOUNDS: Final = ((-0.7, 0.7), (-2.0, 2.0), (-1.6, 2.3))


@dataclass(frozen=True, slots=True)
class Dagum:
    """The exponents of `blueprint.WinBlueprint`; the default changes nothing."""

    slope_scale: float = 1.0
    logit_shift: float = 0.0
    gamma: float = 1.0


def fit_dagum(
    observations: MarketPriceObservations,
    beta: Doubles,
    a: Doubles,
    *,
    reference_log_bid_cpm: float,
    family: WinFamily = WinFamily.LOG_LOGISTIC,
    crew: Crew = ALONE,
) -> Dagum:
    """The posterior mode on held-out rows (n,) with heads β and a (n,)."""
    beta, a = clamped(beta, a)
    (weight,) = total(crew, observations.weight.sum())

    def objective(theta: Doubles) -> float:
        found = Dagum(float(np.exp(theta[0])), float(theta[1]), float(np.exp(theta[2])))
        loss = dagum_nll(
            observations, beta, a, found, reference_log_bid_cpm=reference_log_bid_cpm, family=family
        )
        return mean(crew, loss, observations.weight) + 0.5 * float(((theta / _PRIOR_SD) ** 2).sum()) / weight

    found = optimize.minimize(objective, np.zeros(3), method="L-BFGS-B", bounds=_BOUNDS)
    if not found.fun < objective(np.zeros(3)):
        return Dagum()
    return Dagum(float(np.exp(found.x[0])), float(found.x[1]), float(np.exp(found.x[2])))


def dagum_nll(
    observations: MarketPriceObservations,
    beta: Doubles,
    a: Doubles,
    dagum: Dagum,
    *,
    reference_log_bid_cpm: float,
    family: WinFamily = WinFamily.LOG_LOGISTIC,
) -> Doubles:
    """−ln likelihood of each row (n,), not weighted; for exact prices of the density per CPM."""
    beta, a = clamped(beta, a)
    k = dagum.slope_scale * np.exp(a)
    m = reference_log_bid_cpm - beta - dagum.logit_shift / k
    return curve_nll(observations, m, k, dagum.gamma, family)


def curve_nll(
    observations: MarketPriceObservations,
    location: Doubles,
    shape: Doubles,
    gamma: Doubles | float,
    family: WinFamily = WinFamily.LOG_LOGISTIC,
) -> Doubles:
    """−ln likelihood of each row (n,) under F(b) = G(k (ln b − m))^γ; for exact prices of the density per CPM."""
    n = len(observations)
    exponent: Doubles = np.broadcast_to(np.asarray(gamma, dtype=np.float64), (n,))
    loss: Doubles = np.zeros(n)
    lower, upper, below = observations.lower_cpm, observations.upper_cpm, observations.truncation_cpm
    exact = observations.exact

    def ln_f(rows: Indices, price: Doubles) -> Doubles:
        z = shape[rows] * (np.log(price[rows]) - location[rows])
        if family is WinFamily.LOG_NORMAL:
            return exponent[rows] * ln_cdf_and_hazard(z)[0]
        found: Doubles = -exponent[rows] * np.logaddexp(0.0, -z)
        return found

    rows = np.flatnonzero(exact)
    z = shape[rows] * (np.log(upper[rows]) - location[rows])
    ln_hazard = ln_cdf_and_hazard(z)[1] if family is WinFamily.LOG_NORMAL else -np.logaddexp(0.0, z)
    ln_density = np.log(exponent[rows] * shape[rows] / upper[rows]) + ln_hazard
    loss[rows] = -(ln_f(rows, upper) + ln_density)
    rows = np.flatnonzero((lower == 0.0) & (upper < np.inf))
    loss[rows] = -ln_f(rows, upper)
    rows = np.flatnonzero((lower > 0.0) & (upper == np.inf))
    loss[rows] = -_ln_one_minus_exp(ln_f(rows, lower))
    rows = np.flatnonzero((lower > 0.0) & (upper < np.inf) & ~exact)
    ln_upper = ln_f(rows, upper)
    loss[rows] = -(ln_upper + _ln_one_minus_exp(ln_f(rows, lower) - ln_upper))
    rows = np.flatnonzero(below > 0.0)
    loss[rows] += _ln_one_minus_exp(ln_f(rows, below))
    return loss


def _ln_one_minus_exp(x: Doubles) -> Doubles:
    """ln(1 − eˣ) for x < 0, exact at both ends; at least ln of the smallest normal double."""
    x = np.minimum(x, -1e-300)
    with np.errstate(divide="ignore"):
        found: Doubles = np.where(x > -0.693, np.log(-np.expm1(x)), np.log1p(-np.exp(x)))
    return found
