"""The log-normal win curve in plain Python: Φ and the first-price optimum, as `pricing/log_normal.py` explains them."""

from __future__ import annotations

from math import erfc, exp, log, pi, sqrt

from bidml.contract import HALLEY_STEPS

_ROOT_OF_2_PI = sqrt(2.0 * pi)
_HAZARD_AT_0 = sqrt(2.0 / pi)


def log_normal_cdf(z: float) -> float:
    """ln Φ(z)."""
    x = abs(z)
    tail = scaled_normal_tail(x)
    return log(tail) - 0.5 * x * x if z < 0.0 else log(1.0 - exp(-0.5 * x * x) * tail)


def scaled_normal_tail(x: float) -> float:
    """T = P(Z > x) e^{x²/2}, x ≥ 0: by erfc, and from x = 5 by Laplace's continued fraction of Mills' ratio."""
    if x < 5.0:
        return 0.5 * erfc(x / sqrt(2.0)) * exp(0.5 * x * x)
    ratio = x
    for i in range(60, 0, -1):
        ratio = x + i / ratio
    return 1.0 / (ratio * _ROOT_OF_2_PI)


def log_normal_optimum(v: float, m: float, k: float, gamma: float) -> float:
    """argmax over b of (v − b) Φ(k (ln b − m))^γ."""
    w = _ROOT_OF_2_PI / (gamma * k)
    c = log(max(v, 1e-300)) - m
    z = _above_the_root(k, gamma, w, c)
    for _ in range(HALLEY_STEPS):
        top, bottom, lead = _parts(z, w)
        whole = top + bottom
        f = z + k * (lead + log(whole) - c)
        rho = w * top / (_ROOT_OF_2_PI * bottom)
        fall = max(z + rho, 0.0)
        shaded = bottom / whole
        f1 = 1.0 + k * fall * shaded
        f2 = k * shaded * (max(1.0 - rho * fall, 0.0) + fall * fall * (top / whole))
        z -= 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2)
    top, bottom, _ = _parts(z, w)
    return v * (top / (top + bottom))


def _parts(z: float, w: float) -> tuple[float, float, float]:
    """(n, d, l) with A = n/d and ln(1 + 1/A) = l + ln(n + d)."""
    x = abs(z)
    tail = scaled_normal_tail(x)
    if z < 0.0:
        return 1.0, w * tail, 0.0
    e = exp(-0.5 * x * x)
    return e, w * (1.0 - e * tail), 0.5 * x * x


def _above_the_root(k: float, gamma: float, w: float, c: float) -> float:
    half_w = 0.5 * w
    at_0 = log(1.0 + half_w)
    tangent = k * (c - at_0) / (1.0 + k * _HAZARD_AT_0 * (half_w / (1.0 + half_w)))
    if c < at_0:
        q, far = gamma + 1.0 / k, gamma * k * c
        return min(tangent, 0.5 * (q + far - sqrt((q - far) * (q - far) + 4.0 * gamma)) / gamma)
    p = max(c + log((1.0 - exp(-c)) / half_w), 0.0)
    return min(tangent, sqrt(2.0 * p), p / _HAZARD_AT_0)
