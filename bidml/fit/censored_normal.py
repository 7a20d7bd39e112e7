"""The unified likelihood of a log-normal market price: F(b) = Φ(η(b)), η(b) = eᵃ (ln b − c + β).

A row `lower < M ≤ upper`, seen because M > t, contributes with u, l, s = η at upper, lower, t

    −ln [Φ(u) − Φ(l)] + ln Φ(−s),  or of an exact price  u²/2 − a  (+ ½ ln 2π + ln M) + ln Φ(−s).

Φ and its hazards are taken of the side where they are small (`scipy.special.log_ndtr`, `erfcx`), an interval narrower
than a hundredth of what its density changes over as density times width to second order: nothing cancels where η
is ±40. Curvatures: exact in β without truncation; in a, and across, of the two ends moving with a (Gauss–Newton),
which is positive and of an exact price u² + 1, the limit of a narrow interval.
"""

from __future__ import annotations

from math import log, pi
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import log_ndtr

from bidml.blueprint import WinFamily
from bidml.fit.encoding import Indices
from bidml.fit.observations import Doubles
from bidml.pricing import family

HALF_LOG_2_PI: Final = 0.5 * log(2.0 * pi)
_NARROW: Final = 1e-2


class Moves(NamedTuple):
    """Of −ln likelihood, (n,) each: `g`, `h` first and second in η; `ga`, `ha` in a; `cross` in η and a."""

    g: Doubles
    h: Doubles
    ga: Doubles
    ha: Doubles
    cross: Doubles


def hazard(z: Doubles) -> Doubles:
    """φ(z)/Φ(z), (n,)."""
    return family.hazard(z, WinFamily.LOG_NORMAL)


def nll_below(z: Doubles) -> Doubles:
    """−ln Φ(z), (n,)."""
    return -np.asarray(log_ndtr(z))


def moves_below(z: Doubles) -> Moves:
    """Of −ln Φ(z), the row's end at z."""
    rho = hazard(z)
    h = np.clip(rho * (z + rho), 0.0, 1.0)
    return Moves(-rho, h, -z * rho, z * z * h, z * h)


def moves_above(z: Doubles) -> Moves:
    """Of −ln Φ(−z)."""
    g, h, ga, ha, cross = moves_below(-z)
    return Moves(-g, h, ga, ha, -cross)


def moves_at(z: Doubles) -> Moves:
    """Of an exact price, z²/2 − a."""
    one = np.ones(len(z))
    return Moves(z, one, z * z - 1.0, z * z + 1.0, z)


def nll_between(middle: Doubles, width: Doubles) -> Doubles:
    """−ln [Φ(middle + width/2) − Φ(middle − width/2)], (n,), width > 0."""
    middle = -np.abs(middle)  # where Φ is small
    low, high = middle - 0.5 * width, middle + 0.5 * width
    is_narrow = _is_narrow(middle, width)
    bent = 1.0 + (middle * middle - 1.0) * width * width / 24.0
    narrow = 0.5 * middle * middle + HALF_LOG_2_PI - np.log(width * np.where(is_narrow, bent, 1.0))
    ln_high = log_ndtr(high)
    gap = np.where(is_narrow, 1.0, ln_high - log_ndtr(low))
    return np.where(is_narrow, narrow, -(ln_high + np.log(-np.expm1(-gap))))


def moves_between(middle: Doubles, width: Doubles) -> Moves:
    """Of −ln [Φ(middle + width/2) − Φ(middle − width/2)]."""
    left, right = middle - 0.5 * width, middle + 0.5 * width
    is_narrow = _is_narrow(middle, width)
    ln_mass = -nll_between(middle, width)
    with np.errstate(over="ignore", invalid="ignore"):
        at_right, at_left = (np.exp(-0.5 * z * z - HALF_LOG_2_PI - ln_mass) for z in (right, left))
        g = at_left - at_right
        moved = right * at_right - left * at_left
        h = np.clip(g * g + moved, 0.0, 1.0)
        ha = moved * moved + right**3 * at_right - left**3 * at_left
        cross = -g * moved + right * right * at_right - left * left * at_left
    square = width * width / 24.0
    bent = 1.0 + (middle * middle - 1.0) * square
    narrow_g = middle - 2.0 * middle * square / bent
    narrow_ga = middle * middle - 1.0 - (4.0 * middle * middle - 2.0) * square / bent
    return Moves(
        np.where(is_narrow, narrow_g, g),
        np.where(is_narrow, 1.0 - 2.0 * square, h),
        np.where(is_narrow, narrow_ga, -moved),
        np.where(is_narrow, middle * middle + 1.0, np.maximum(ha, 0.0)),
        np.where(is_narrow, middle, cross),
    )


def ln_cdf_and_hazard(z: Doubles) -> tuple[Doubles, Doubles]:
    """ln Φ and ln (φ/Φ), (n,) both."""
    ln_cdf = np.asarray(log_ndtr(z))
    return ln_cdf, -0.5 * z * z - HALF_LOG_2_PI - ln_cdf


def add(sums: Moves, rows: Indices, found: Moves, *, sign: float = 1.0) -> None:
    """Adds `found`, (n_rows,) each, to the sums at `rows`."""
    for whole, part in zip(sums, found, strict=True):
        whole[rows] += sign * part


def _is_narrow(middle: Doubles, width: Doubles) -> npt.NDArray[np.bool_]:
    return np.asarray(width * np.maximum(np.abs(middle), 1.0) < _NARROW)
