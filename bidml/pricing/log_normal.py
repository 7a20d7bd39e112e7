"""The first-price optimum of a log-normal win curve, F(b) = Φ(z)^γ: the vectorised NumPy reference.

With ρ = φ/Φ, A = γ k ρ(z) is decreasing in z, the best bid is v A/(1 + A), and z is the one root of

    f(z) = z + k ln(1 + 1/A(z)) − k (ln v − m)

which is increasing and convex, since z + ρ(z) > 0 increases. Let Q = P(Z > |z|) = E T, E = e^{−z²/2}, T the scaled
tail, and w = √(2π)/(γ k). Then 1/A = w T where z < 0, and w (1 − E T)/E elsewhere, so that

    ln(1 + 1/A) = ln(1 + w T),   z²/2 + ln(E + w (1 − E T))

and nothing overflows, underflows or cancels. Halley steps from an upper bound of the root, the least of

- the root of the tangent at 0;
- for a root above 0, that of f(z) − z: ρ is known there, and √(2p) and p/ρ(0) are above ln(ρ(0)/ρ)'s inverse at p;
- for a root below 0, that of a lower bound of f: with x = |z|, ln(1 + u) ≥ u/(1 + u) and √(2π) T ≥ 1/(1 + x) make it a
  quadratic.

For γ from 1e-3 to 1e3 the fourth step ends within rounding.
`native/log_normal.h`, `graph_log_normal.py` and `bidml.oracle` are the twins.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Final

import numpy as np
from scipy.special import erfcx

from bidml.contract import HALLEY_STEPS
from bidml.pricing.arrays import Doubles

ROOT_OF_2_PI: Final = sqrt(2.0 * pi)
HAZARD_AT_0: Final = sqrt(2.0 / pi)
_ROOT_OF_2: Final = sqrt(2.0)


def log_normal_optimum_cpm(value_cpm: Doubles, location: Doubles, shape: Doubles, gamma: Doubles) -> Doubles:
    """argmax over b > 0 of (value − b) Φ(shape (ln b − location))^gamma, (n,); `value_cpm` > 0 and finite."""
    k, w = shape, ROOT_OF_2_PI / (gamma * shape)
    c = np.log(value_cpm) - location
    z = _above_the_root(k, gamma, w, c)
    for _ in range(HALLEY_STEPS):
        top, bottom, lead = _parts(z, w)
        whole = top + bottom
        f = z + k * (lead + np.log(whole) - c)
        rho = w * top / (ROOT_OF_2_PI * bottom)
        fall = np.maximum(z + rho, 0.0)
        shaded = bottom / whole  # 1/(1 + A)
        f1 = 1.0 + k * fall * shaded
        f2 = k * shaded * (np.maximum(1.0 - rho * fall, 0.0) + fall * fall * (top / whole))
        z = z - 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2)
    top, bottom, _ = _parts(z, w)
    return np.asarray(value_cpm * (top / (top + bottom)))


def _parts(z: Doubles, w: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """(n, d, l) with A = n/d and ln(1 + 1/A) = l + ln(n + d)."""
    x = np.abs(z)
    with np.errstate(under="ignore"):
        e = np.exp(-0.5 * x * x)
    scaled_tail = 0.5 * erfcx(x / _ROOT_OF_2)
    low = z < 0.0
    return (
        np.where(low, 1.0, e),
        w * np.where(low, scaled_tail, 1.0 - e * scaled_tail),
        np.where(low, 0.0, 0.5 * x * x),
    )


def _above_the_root(k: Doubles, gamma: Doubles, w: Doubles, c: Doubles) -> Doubles:
    half_w = 0.5 * w
    at_0 = np.log(1.0 + half_w)
    tangent = k * (c - at_0) / (1.0 + k * HAZARD_AT_0 * (half_w / (1.0 + half_w)))
    high = np.maximum(c, at_0)
    p = np.maximum(high + np.log((1.0 - np.exp(-high)) / half_w), 0.0)
    above = np.minimum(np.sqrt(2.0 * p), p / HAZARD_AT_0)
    q, far = gamma + 1.0 / k, gamma * k * c
    below = 0.5 * (q + far - np.sqrt((q - far) ** 2 + 4.0 * gamma)) / gamma
    return np.asarray(np.minimum(tangent, np.where(c < at_0, below, above)))
