"""Shapes of the log market price: ln M = location + scale · z, with z drawn from one of these.

Each is scaled to the spread of a standard logistic, so that scale = 1/k means the same in all. `extra` (n,) is what a
shape needs per auction: the mixture's weight, the histogram's number.
"""

from __future__ import annotations

import math
from os import PathLike
from typing import Final, Protocol

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

from bidml.errors import DataError
from bidml.features import Doubles
from bidml.simulate.market import Market, Shape

_LOGISTIC_SD: Final = math.pi / math.sqrt(3.0)


class PriceShape(Protocol):
    """A distribution of z. `cdf` and `pdf` take z of shape (n, ...) and `extra` that broadcasts to it."""

    def cdf(self, z: Doubles, extra: Doubles) -> Doubles: ...
    def pdf(self, z: Doubles, extra: Doubles) -> Doubles: ...
    def sample(self, rng: np.random.Generator, extra: Doubles) -> Doubles: ...


class LogLogistic:
    def cdf(self, z: Doubles, extra: Doubles) -> Doubles:
        return np.asarray(expit(z))

    def pdf(self, z: Doubles, extra: Doubles) -> Doubles:
        return np.asarray(expit(z) * expit(-z))

    def sample(self, rng: np.random.Generator, extra: Doubles) -> Doubles:
        return rng.logistic(size=len(extra))


class LogNormal:
    def cdf(self, z: Doubles, extra: Doubles) -> Doubles:
        return np.asarray(ndtr(z / _LOGISTIC_SD))

    def pdf(self, z: Doubles, extra: Doubles) -> Doubles:
        return np.asarray(np.exp(-0.5 * (z / _LOGISTIC_SD) ** 2) / (_LOGISTIC_SD * math.sqrt(2.0 * math.pi)))

    def sample(self, rng: np.random.Generator, extra: Doubles) -> Doubles:
        return rng.normal(0.0, _LOGISTIC_SD, len(extra))


class Gumbel:
    """The largest of many bids; z has median 0."""

    _WIDTH: Final = math.sqrt(2.0)
    _MODE: Final = _WIDTH * math.log(math.log(2.0))

    def cdf(self, z: Doubles, extra: Doubles) -> Doubles:
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(-np.exp(-(z - self._MODE) / self._WIDTH)))

    def pdf(self, z: Doubles, extra: Doubles) -> Doubles:
        x = (z - self._MODE) / self._WIDTH
        with np.errstate(over="ignore"):
            return np.asarray(np.exp(-np.minimum(x + np.exp(-x), 700.0)) / self._WIDTH)

    def sample(self, rng: np.random.Generator, extra: Doubles) -> Doubles:
        return rng.gumbel(self._MODE, self._WIDTH, len(extra))


class Mixture:
    """Two groups of competitors, a cheap and a dear one; `extra` is the weight of the cheap one."""

    _LOW: Final = -1.5
    _HIGH: Final = 1.5
    _WIDTH: Final = 0.6

    def cdf(self, z: Doubles, extra: Doubles) -> Doubles:
        low, high = expit((z - self._LOW) / self._WIDTH), expit((z - self._HIGH) / self._WIDTH)
        return np.asarray(extra * low + (1.0 - extra) * high)

    def pdf(self, z: Doubles, extra: Doubles) -> Doubles:
        low, high = (z - self._LOW) / self._WIDTH, (z - self._HIGH) / self._WIDTH
        both = extra * expit(low) * expit(-low) + (1.0 - extra) * expit(high) * expit(-high)
        return np.asarray(both / self._WIDTH)

    def sample(self, rng: np.random.Generator, extra: Doubles) -> Doubles:
        centre = np.where(rng.random(len(extra)) < extra, self._LOW, self._HIGH)
        return np.asarray(centre + self._WIDTH * rng.logistic(size=len(extra)))


class Empirical:
    """Atoms at observed prices: `extra` is the number of the histogram. There is no density.

    `atoms` (n_histograms, n_prices) are standardised log prices, `cumulative` the probability of a price up to each.
    """

    def __init__(self, counts: pd.DataFrame) -> None:
        logs, shares = [], []
        for _, rows in counts.groupby("campaign"):
            rows = rows[(rows["payprice"] > 0) & (rows["count"] > 0)].sort_values("payprice")
            log_price = np.log(rows["payprice"].to_numpy(dtype=np.float64))
            share = rows["count"].to_numpy(dtype=np.float64) / float(rows["count"].sum())
            mean = float(share @ log_price)
            deviation = math.sqrt(float(share @ (log_price - mean) ** 2))
            logs.append((log_price - mean) / deviation * _LOGISTIC_SD)
            shares.append(share)
        width = max(map(len, logs))
        self.atoms = np.array([np.pad(x, (0, width - len(x)), mode="edge") for x in logs])
        self.cumulative = np.minimum(
            np.cumsum([np.pad(share, (0, width - len(share))) for share in shares], axis=1), 1.0
        )

    def cdf(self, z: Doubles, extra: Doubles) -> Doubles:
        z, which = np.broadcast_arrays(z, extra)
        found = np.zeros(z.shape)
        for i, (atoms, cumulative) in enumerate(zip(self.atoms, self.cumulative, strict=True)):
            here = which == i
            below = np.searchsorted(atoms, z[here], side="right")
            found[here] = np.concatenate([[0.0], cumulative])[below]
        return found

    def pdf(self, z: Doubles, extra: Doubles) -> Doubles:
        raise DataError(
            "a histogram of prices has no density", value="empirical", remedy="use win_rate, or another shape"
        )

    def sample(self, rng: np.random.Generator, extra: Doubles) -> Doubles:
        u = rng.random(len(extra))
        found = np.empty(len(extra))
        for i, (atoms, cumulative) in enumerate(zip(self.atoms, self.cumulative, strict=True)):
            here = extra == i
            at = np.minimum(np.searchsorted(cumulative, u[here], side="left"), len(atoms) - 1)
            found[here] = atoms[at]
        return found


def shape_of(market: Market) -> PriceShape:
    """The market's shape; reads the histograms of `Shape.EMPIRICAL`. Raises `DataError` for another file."""
    if market.shape is Shape.EMPIRICAL and market.histograms is not None:
        return Empirical(_read_histograms(market.histograms))
    parametric: dict[Shape, PriceShape] = {
        Shape.LOG_LOGISTIC: LogLogistic(),
        Shape.LOG_NORMAL: LogNormal(),
        Shape.GUMBEL: Gumbel(),
        Shape.MIXTURE: Mixture(),
    }
    return parametric[market.shape]


def _read_histograms(path: str | PathLike[str]) -> pd.DataFrame:
    counts = pd.read_csv(path)
    wanted = ["campaign", "payprice", "n_train_impressions"]
    if list(counts.columns) != wanted:
        raise DataError(
            f"a file of price histograms has the columns {wanted}",
            value=list(counts.columns),
            remedy="give ipinyou_price_histograms_9campaigns.csv.gz",
        )
    return counts.rename(columns={"n_train_impressions": "count"})
