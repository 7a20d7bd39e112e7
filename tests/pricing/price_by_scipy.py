"""The price by general-purpose tools: slow, obvious, and written another way than the package.

With b = v σ(t) the first-order condition (v − b) f(b) = F(b) is t = ln(γ k) + ln σ(−z): increasing minus decreasing
in t, one root.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import elementwise
from scipy.special import expit, log_expit

from bidml.pricing import WinCurve


def optimum_by_root_cpm(value_cpm: np.ndarray, curve: WinCurve) -> np.ndarray:
    """argmax over b of (v − b) F(b), (n,), by bracketing the first-order condition."""

    def condition(t, v, m, k, gamma):
        z = k * (np.log(v) + log_expit(t) - m)
        return t - np.log(gamma * k) - log_expit(-z)

    parameters = (value_cpm, curve.location, curve.shape, curve.gamma)
    highest = np.log(curve.gamma * curve.shape) + 1e-9
    lowest = highest - 1.0
    while np.any(condition(lowest, *parameters) > 0.0):
        lowest = np.where(condition(lowest, *parameters) > 0.0, 2.0 * lowest - highest, lowest)
    found = elementwise.find_root(condition, (lowest, highest), args=parameters)
    assert found.success.all()
    return value_cpm * expit(found.x)


def best_on_grid_cpm(
    value_cpm: np.ndarray, curve: WinCurve, floor_cpm: np.ndarray, cap_cpm: np.ndarray, n_points: int = 10_000
) -> np.ndarray:
    """The greatest surplus of `n_points` bids between floor and min(cap, v), half of them evenly in ln b; (n,)."""
    best = np.zeros(len(value_cpm))
    for i, (v, m, k, gamma, floor, cap) in enumerate(
        zip(value_cpm, curve.location, curve.shape, curve.gamma, floor_cpm, cap_cpm, strict=True)
    ):
        top = min(cap, v)
        if v <= floor or top < floor or top <= 0.0:
            continue
        bottom = max(floor, top * 1e-9)
        bids = np.concatenate(
            [
                np.linspace(bottom, top, n_points // 2),
                np.minimum(np.geomspace(bottom, top, n_points // 2), top),
            ]
        )
        best[i] = np.max((v - bids) * expit(k * (np.log(bids) - m)) ** gamma)
    return best
