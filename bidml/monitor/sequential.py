"""Tests that may be read after every observation, forever, and still err with the probability that they state.

E-processes: a nonnegative process whose mean is at most 1 while the hypothesis holds exceeds 1/α at any time with
probability at most α (Ville 1939; Ramdas, Grünwald, Vovk and Shafer, "Game-theoretic statistics and safe anytime-valid
inference", Statistical Science 2023). Counts: while N has intensity at most λ·dA, r^N e^(−(r−1)λA) is one for each
r > 1 (Brémaud, *Point Processes and Queues*, 1981, VI.2; for indicators instead of Poisson counts by 1 + x ≤ e^x), and
so is its mixture over r (Robbins 1970); the mixture here is a gamma distribution cut at 1.

Means: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central
limit theory and asymptotic confidence sequences", Annals of Statistics 2024, theorem 2.2: Robbins' normal mixture, the
same boundary as the mSPRT of Johari, Koomen, Pekelis and Walsh (2017). Asymptotic: its first few hundred observations
are on trust, so callers name a least number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from bidml.metrics import Interval

_SHAPE: Final = 10.0  # of the gamma mixture, mean 1: alternatives of some 30 %, where alarms matter
_BROAD_SHAPE: Final = 2.0  # of the mixture behind an interval


def log_e_above(n: float, expected: float, *, at_most: float = 1.0) -> float:
    """ln of the e-value that n events speak against an intensity of at most `at_most` times the expected.

    >>> log_e_above(100, 100.0) < 0.0 < log_e_above(160, 100.0)
    True
    """
    return _log_mixture(n, at_most * expected, special.gammaincc)


def log_e_below(n: float, expected: float, *, at_least: float = 1.0) -> float:
    """The same against an intensity of at least `at_least` times the expected."""
    return _log_mixture(n, at_least * expected, special.gammainc)


def ratio_sequence(n: float, expected: float, *, confidence: float) -> Interval:
    """events / expected with its confidence sequence: it covers the true ratio at all times with `confidence`.

    The ratios ρ against which a gamma mixture around 1 does not speak: marginal likelihood over that of ρ below 1/α.

    >>> found = ratio_sequence(120, 100.0, confidence=0.95)
    >>> found.low < 1.0 < found.value < found.high
    True
    """
    if expected <= 0.0:
        return Interval(math.nan, 0.0, math.inf)
    a = _BROAD_SHAPE
    marginal = (
        a * math.log(a) - special.gammaln(a) + special.gammaln(a + n) - (a + n) * math.log(a + expected)
    )
    most = float(-math.log(1.0 - confidence) - marginal)

    def excess(ratio: float) -> float:
        return ratio * expected - n * math.log(ratio) - most

    value = n / expected
    low = float(optimize.brentq(excess, value * 1e-12, value)) if n else 0.0
    high = max(value, 1.0 / expected)
    while excess(high) <= 0.0:
        high *= 2.0
    return Interval(value, low, float(optimize.brentq(excess, max(value, 1e-12 / expected), high)))


def _log_mixture(n: float, expected: float, tail: Callable[..., Any]) -> float:
    """ln ∫ r^n e^(−(r−1)·expected) π(r) dr, π a gamma distribution of shape and rate `_SHAPE`, cut by `tail`.

    −∞ where next to none of the mixture is on that side: nothing speaks against the hypothesis.
    """
    a = _SHAPE
    whole = (
        expected
        + a * math.log(a)
        - special.gammaln(a)
        + special.gammaln(a + n)
        - (a + n) * math.log(a + expected)
    )
    mass = tail(a + n, a + expected)
    return float(whole + math.log(mass) - math.log(tail(a, a))) if mass > 0.0 else -math.inf


def mean_sequence(
    n: int, mean: float, variance: float, *, confidence: float, tightest_at: float = 5_000.0
) -> Interval:
    """The mean of n observations with its asymptotic confidence sequence, tightest around `tightest_at` of them.

    `variance` is the observations' own, by n.
    """
    if n < 2:
        return Interval(mean, -math.inf, math.inf)
    alpha = 1.0 - confidence
    # rho² that makes the boundary least at `tightest_at` (their equation 10, first order)
    rho2 = (-2.0 * math.log(alpha) + math.log(-2.0 * math.log(alpha) + 1.0)) / tightest_at
    t = n * rho2 + 1.0
    half = math.sqrt(variance) * math.sqrt(2.0 * t / (n * n * rho2) * math.log(math.sqrt(t) / alpha))
    return Interval(mean, mean - half, mean + half)


def assigned_difference(
    outcomes: npt.ArrayLike, is_treated: npt.ArrayLike, *, share: float, confidence: float, tightest_at: float
) -> Interval:
    """Mean of the treated minus that of the others, a confidence sequence; shape (n,), in order of time.

    Each was assigned with probability `share`, by hash. Per observation (y − m)(a/share − (1 − a)/(1 − share)):
    unbiased for the difference whatever m; m is the mean of all, so that the level adds no noise.
    """
    a = np.asarray(is_treated, dtype=np.float64)
    y = np.asarray(outcomes, dtype=np.float64)
    if not len(y):
        return Interval(math.nan, -math.inf, math.inf)
    scores = (y - y.mean()) * (a / share - (1.0 - a) / (1.0 - share))
    return mean_sequence(
        len(y), float(scores.mean()), float(scores.var()), confidence=confidence, tightest_at=tightest_at
    )
