"""Where the families of win curves differ: G, its hazard from below ρ = G'/G, and how fast ρ falls; all in z, (n,).

Of the log-normal, G = Φ and ρ is the inverse Mills ratio of the lower tail, by SciPy's scaled functions: relative
accuracy down to where G is 1e-300 and beyond.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Final

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtri_exp

from bidml.blueprint import WinFamily
from bidml.pricing.arrays import Doubles, sigmoid, softplus

_ROOT_OF_2: Final = sqrt(2.0)
_ROOT_OF_2_PER_PI: Final = sqrt(2.0 / pi)


def log_cdf(z: Doubles, family: WinFamily) -> Doubles:
    """ln G(z)."""
    if family is WinFamily.LOG_NORMAL:
        return np.asarray(log_ndtr(z))
    return -softplus(-z)


def hazard(z: Doubles, family: WinFamily) -> Doubles:
    """ρ(z) = G'(z) / G(z); it falls in z."""
    if family is WinFamily.LOG_NORMAL:
        return np.asarray(_ROOT_OF_2_PER_PI / erfcx(-z / _ROOT_OF_2))
    return sigmoid(-z)


def fall_of_hazard(z: Doubles, family: WinFamily) -> Doubles:
    """−d ln ρ / dz ≥ 0: σ(z) of the log-logistic, z + ρ(z) of the log-normal."""
    if family is WinFamily.LOG_NORMAL:
        return np.maximum(z + hazard(z, family), 0.0)
    return sigmoid(z)


def quantile(log_p: Doubles, family: WinFamily) -> Doubles:
    """z with ln G(z) = log_p < 0."""
    if family is WinFamily.LOG_NORMAL:
        return np.asarray(ndtri_exp(log_p))
    return np.asarray(log_p - np.log(-np.expm1(log_p)))
