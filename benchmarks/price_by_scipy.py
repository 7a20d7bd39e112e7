"""The price by general-purpose tools: slow, obvious, and written another way than the package.

With b = v σ(t) the first-order condition (v − b) f(b) = F(b) is t = ln(γ k) + ln ρ(z), ρ = G'/G (σ(−z) of the
log-logistic, φ/Φ of the log-normal): increasing minus decreasing in t, one root.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import elementwise
from scipy.special import erfcx, expit, log_expit, log_ndtr

from bidml.blueprint import WinFamily
from bidml.pricing import WinCurve

_LOWEST = 1e-9  # of the highest bid: where the grid begins


def optimum_by_root_cpm(value_cpm: np.ndarray, curve: WinCurve) -> np.ndarray:
    """argmax over b of (v − b) F(b), (n,), by bracketing the first-order condition."""

    def condition(t, v, m, k, gamma):
        z = k * (np.log(v) + log_expit(t) - m)
        return t - np.log(gamma * k) - log_hazard(z)

    log_hazard = _log_mills if curve.family is WinFamily.LOG_NORMAL else lambda z: log_expit(-z)
    parameters = (value_cpm, curve.location, curve.shape, curve.gamma)
    highest = np.log(curve.gamma * curve.shape) + 1e-9
    while np.any(condition(highest, *parameters) < 0.0):
        highest = highest + np.where(condition(highest, *parameters) < 0.0, 1.0, 0.0)
    lowest = highest - 1.0
    while np.any(condition(lowest, *parameters) > 0.0):
        lowest = np.where(condition(lowest, *parameters) > 0.0, 2.0 * lowest - highest, lowest)
    found = elementwise.find_root(condition, (lowest, highest), args=parameters)
    assert found.success.all()
    return value_cpm * expit(found.x)


def _log_mills(z: np.ndarray) -> np.ndarray:
    """ln φ(z)/Φ(z)."""
    low = np.minimum(z, 0.0)
    below = 0.5 * np.log(2.0 / np.pi) - np.log(erfcx(-low / np.sqrt(2.0)))
    return np.where(z < 0.0, below, -0.5 * z * z - 0.5 * np.log(2.0 * np.pi) - log_ndtr(z))


def best_on_grid_cpm(
    value_cpm: np.ndarray,
    curve: WinCurve,
    floor_cpm: np.ndarray,
    cap_cpm: np.ndarray,
    n_points: int = 10_000,
) -> np.ndarray:
    """The greatest surplus of `n_points` bids between floor and min(cap, v), half of them evenly in ln b; (n,)."""
    best = np.zeros(len(value_cpm))
    for i in np.flatnonzero(_has_grid(value_cpm, floor_cpm, cap_cpm)):
        top = min(cap_cpm[i], value_cpm[i])
        bottom = max(floor_cpm[i], top * _LOWEST)
        bids = np.concatenate(
            [
                np.linspace(bottom, top, n_points // 2),
                np.minimum(np.geomspace(bottom, top, n_points // 2), top),
            ]
        )
        z = curve.shape[i] * (np.log(bids) - curve.location[i])
        ln_cdf = log_ndtr(z) if curve.family is WinFamily.LOG_NORMAL else log_expit(z)
        best[i] = np.max((value_cpm[i] - bids) * np.exp(curve.gamma[i] * ln_cdf))
    return best


def best_beside_cpm(
    bid_cpm: np.ndarray,
    value_cpm: np.ndarray,
    curve: WinCurve,
    floor_cpm: np.ndarray,
    cap_cpm: np.ndarray,
    n_points: int = 10_000,
) -> np.ndarray:
    """The greatest surplus among the points of that grid next to the bid, (n,).

    The surplus has one maximum, so if no neighbour of the bid on the grid is better, no point of the grid is.
    """
    found = np.zeros(len(value_cpm))
    rows = np.flatnonzero(_has_grid(value_cpm, floor_cpm, cap_cpm) & (bid_cpm > 0.0))
    v, bid, of_rows = value_cpm[rows], bid_cpm[rows], curve[rows]
    top = np.minimum(cap_cpm[rows], v)
    bottom = np.maximum(floor_cpm[rows], top * _LOWEST)
    steps = n_points // 2 - 1
    width = np.maximum((top - bottom) / steps, 1e-300)
    ratio = np.maximum(np.log(top / bottom) / steps, 1e-300)
    at, at_log = np.floor((bid - bottom) / width), np.floor(np.log(bid / bottom) / ratio)
    best = np.full(len(rows), -np.inf)
    for i in (0.0, 1.0):
        for points in (bottom + (at + i) * width, bottom * np.exp((at_log + i) * ratio)):
            points = np.clip(points, bottom, top)
            best = np.maximum(best, (v - points) * of_rows.win_rate(points))
    found[rows] = best
    return found


def _has_grid(value_cpm: np.ndarray, floor_cpm: np.ndarray, cap_cpm: np.ndarray) -> np.ndarray:
    top = np.minimum(cap_cpm, value_cpm)
    return (value_cpm > floor_cpm) & (top >= floor_cpm) & (top > 0.0)
