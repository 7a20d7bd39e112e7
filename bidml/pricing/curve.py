"""The win curve: how likely a bid is to win, F(b) = σ(z)^γ with z = k (ln b − m).

A log-logistic market price with median e^m and slope k, bent by a Dagum exponent γ (1: none).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bidml.errors import DataError
from bidml.pricing.arrays import Doubles, Numbers, aligned, double, sigmoid, softplus


@dataclass(frozen=True, slots=True, eq=False)
class WinCurve:
    """The distribution of the market price, one per auction: F(b) = σ(shape · (ln b − location))^gamma.

    `location` is ln CPM, `shape` > 0 the slope of the log-odds of winning in ln b, `gamma` > 0. Each broadcasts to
    (n,). Raises `DataError` for NaN, infinite or non-positive parameters.

    >>> curve = WinCurve(location=[0.0, 1.0], shape=2.0)
    >>> curve.win_rate([1.0, 1.0]).round(3).tolist()
    [0.5, 0.119]
    """

    location: Doubles
    shape: Doubles
    gamma: Doubles

    def __init__(self, location: Numbers, shape: Numbers, gamma: Numbers = 1.0) -> None:
        m, k, g = aligned(location=location, shape=shape, gamma=gamma)
        for name, numbers, valid in (
            ("location", m, np.isfinite(m)),
            ("shape", k, np.isfinite(k) & (k > 0.0)),
            ("gamma", g, np.isfinite(g) & (g > 0.0)),
        ):
            if not valid.all():
                raise DataError(
                    f"the {name} of a win curve is finite" + (" and above 0" if name != "location" else ""),
                    value=float(numbers[~valid][0]),
                    remedy="look at the model that predicted it",
                )
        for name, numbers in (("location", m), ("shape", k), ("gamma", g)):
            object.__setattr__(self, name, numbers)

    def __len__(self) -> int:
        return len(self.location)

    def __getitem__(self, rows: Any) -> WinCurve:
        """The curves of some rows: a slice, a mask or indices."""
        return WinCurve(self.location[rows], self.shape[rows], self.gamma[rows])

    def log_win_rate(self, bid_cpm: Numbers) -> Doubles:
        """ln F(b), (n,); −inf for a bid of 0. A negative or NaN bid gives NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.shape * (np.log(double(bid_cpm)) - self.location)
        return -(self.gamma * softplus(-z))

    def win_rate(self, bid_cpm: Numbers) -> Doubles:
        """F(b), (n,): the probability that a bid of `bid_cpm` wins; 0 for a bid of 0."""
        return np.asarray(np.exp(self.log_win_rate(bid_cpm)))

    def density(self, bid_cpm: Numbers) -> Doubles:
        """f(b) = F'(b), (n,), per CPM; for b > 0."""
        b = double(bid_cpm)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.shape * (np.log(b) - self.location)
            return self.win_rate(b) * self.gamma * self.shape * sigmoid(-z) / b

    def quantile_cpm(self, win_rate: Numbers) -> Doubles:
        """The bid that wins with probability `win_rate` in (0, 1), (n,): the inverse of `win_rate`."""
        ln_p = np.log(double(win_rate)) / self.gamma
        logit = ln_p - np.log(-np.expm1(ln_p))
        return np.asarray(np.exp(self.location + logit / self.shape))
