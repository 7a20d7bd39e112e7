"""The win curve: how likely a bid is to win, F(b) = G(z)^γ with z = k (ln b − m).

A log-logistic (G = σ) or log-normal (G = Φ) market price with median e^m and slope k, bent by an exponent γ (1: none;
of the log-logistic, Dagum's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bidml.blueprint import WinFamily
from bidml.errors import DataError
from bidml.pricing.arrays import Doubles, Numbers, aligned, double, sigmoid, softplus
from bidml.pricing.family import hazard, log_cdf, quantile


@dataclass(frozen=True, slots=True, eq=False)
class WinCurve:
    """The distribution of the market price, one per auction: F(b) = G(shape · (ln b − location))^gamma.

    `location` is ln CPM, `shape` > 0 the slope in ln b of what G is taken of (for σ, of the log-odds of winning),
    `gamma` > 0. Each broadcasts to (n,). `family`, one for all: G is σ or Φ. Raises `DataError` for NaN, infinite or
    non-positive parameters and for an unknown family.

    >>> curve = WinCurve(location=[0.0, 1.0], shape=2.0)
    >>> curve.win_rate([1.0, 1.0]).round(3).tolist()
    [0.5, 0.119]
    """

    location: Doubles
    shape: Doubles
    gamma: Doubles
    family: WinFamily

    def __init__(
        self,
        location: Numbers,
        shape: Numbers,
        gamma: Numbers = 1.0,
        family: WinFamily | str = WinFamily.LOG_LOGISTIC,
    ) -> None:
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
        object.__setattr__(self, "family", win_family(family))

    def __len__(self) -> int:
        return len(self.location)

    def __getitem__(self, rows: Any) -> WinCurve:
        """The curves of some rows: a slice, a mask or indices."""
        return WinCurve(self.location[rows], self.shape[rows], self.gamma[rows], self.family)

    def log_win_rate(self, bid_cpm: Numbers) -> Doubles:
        """ln F(b), (n,); −inf for a bid of 0. A negative or NaN bid gives NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.shape * (np.log(double(bid_cpm)) - self.location)
        if self.family is not WinFamily.LOG_LOGISTIC:
            return self.gamma * log_cdf(z, self.family)
        return -(self.gamma * softplus(-z))

    def win_rate(self, bid_cpm: Numbers) -> Doubles:
        """F(b), (n,): the probability that a bid of `bid_cpm` wins; 0 for a bid of 0."""
        return np.asarray(np.exp(self.log_win_rate(bid_cpm)))

    def density(self, bid_cpm: Numbers) -> Doubles:
        """f(b) = F'(b), (n,), per CPM; for b > 0."""
        b = double(bid_cpm)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.shape * (np.log(b) - self.location)
            if self.family is not WinFamily.LOG_LOGISTIC:
                return self.win_rate(b) * self.gamma * self.shape * hazard(z, self.family) / b
            return self.win_rate(b) * self.gamma * self.shape * sigmoid(-z) / b

    def quantile_cpm(self, win_rate: Numbers) -> Doubles:
        """The bid that wins with probability `win_rate` in (0, 1), (n,): the inverse of `win_rate`."""
        ln_p = np.log(double(win_rate)) / self.gamma
        return np.asarray(np.exp(self.location + quantile(ln_p, self.family) / self.shape))


def win_family(family: WinFamily | str) -> WinFamily:
    """The family of that name; raises `DataError`."""
    try:
        return WinFamily(family)
    except ValueError:
        raise DataError(
            f"the family of a win curve is one of {list(map(str, WinFamily))}",
            value=family,
            remedy="give one of them",
        ) from None
