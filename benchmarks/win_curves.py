"""The contenders of `bench_pricing`: a name, and how a fit on logged auctions becomes a bid and a win rate."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureSpec
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations, WinRateModel
from bidml.fit.win_baselines import EmpiricalWinRate, LogisticWinRate, MonotoneWinRate, grid_bid_cpm
from bidml.pricing import WinCurve, optimal_bid_cpm


class Policy(Protocol):
    """A fitted win curve: what it bids, what it believes. Arrays (n,), CPM; a bid of 0 is no bid."""

    def bid_cpm(self, X: pd.DataFrame, value_cpm: Doubles, floor_cpm: Doubles) -> Doubles: ...
    def win_rate(self, X: pd.DataFrame, bid_cpm: Doubles) -> Doubles: ...


Fit = Callable[[FeatureSpec, pd.DataFrame, MarketPriceObservations, int], Policy]


@dataclass(frozen=True)
class Contender:
    """`fit(spec, X, y, seed)`. `needs_prices`: useless on closed logs. `outcomes_only`: prices change nothing.
    `ours`: the product, not a baseline; `variant`: it, with an option switched off."""

    name: str
    fit: Fit
    ours: bool = False
    needs_prices: bool = False
    outcomes_only: bool = False
    variant: bool = False


@dataclass
class ClosedForm:
    """A model with `predict_curve`: the optimal bid is a formula. The curve of the last rows is kept."""

    model: Any
    _rows: pd.DataFrame | None = field(default=None, repr=False)
    _curve: WinCurve | None = field(default=None, repr=False)

    def curve(self, X: pd.DataFrame) -> WinCurve:
        if self._curve is None or self._rows is not X:
            self._rows, self._curve = X, self.model.predict_curve(X)
        return self._curve

    def bid_cpm(self, X: pd.DataFrame, value_cpm: Doubles, floor_cpm: Doubles) -> Doubles:
        return optimal_bid_cpm(value_cpm, self.curve(X), floor_cpm=floor_cpm)

    def win_rate(self, X: pd.DataFrame, bid_cpm: Doubles) -> Doubles:
        return self.curve(X).win_rate(bid_cpm)


@dataclass
class OnGrid:
    """A model with `predict_win_rate` only: the best of a grid of bids."""

    model: Any

    def bid_cpm(self, X: pd.DataFrame, value_cpm: Doubles, floor_cpm: Doubles) -> Doubles:
        return grid_bid_cpm(self.model, X, value_cpm, floor_cpm=floor_cpm)

    def win_rate(self, X: pd.DataFrame, bid_cpm: Doubles) -> Doubles:
        return np.asarray(self.model.predict_win_rate(X, bid_cpm), dtype=np.float64)


def _of(make: Callable[[FeatureSpec, int], Any], wrap: Callable[[Any], Policy]) -> Fit:
    def fit(spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations, seed: int) -> Policy:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # small samples warn, as they should
            return wrap(make(spec, seed).fit(X, y))

    return fit


def bidml_curve(name: str, **options: Any) -> Contender:
    """`WinRateModel` with options."""
    fit = _of(lambda spec, seed: WinRateModel(spec, random_state=seed, n_jobs=1, **options), ClosedForm)
    return Contender(name, fit, ours=True, variant=bool(options))


def contenders(segment: str) -> list[Contender]:
    """Ours, its variants and the baselines; `segment` is the category of the segmented curves."""

    def closed_log(spec: FeatureSpec, X: pd.DataFrame, y: MarketPriceObservations, seed: int) -> Policy:
        return ClosedForm(WinRateModel(spec, random_state=seed, n_jobs=1).fit(X, y.win_or_loss()))

    return [
        bidml_curve("bidml"),
        bidml_curve("bidml, global slope", slope="global"),
        bidml_curve("bidml, no base", base="none"),
        bidml_curve("bidml, no Dagum", calibration="none"),
        bidml_curve("bidml, log-normal", family="log_normal"),
        Contender("bidml, wins and losses only", closed_log, ours=True, needs_prices=True, variant=True),
        Contender(
            "LR in log bid", _of(lambda spec, seed: LogisticWinRate(spec), ClosedForm), outcomes_only=True
        ),
        Contender(
            "monotone LightGBM",
            _of(lambda spec, seed: MonotoneWinRate(spec, random_state=seed, n_jobs=1), OnGrid),
            outcomes_only=True,
        ),
        Contender("KM / isotonic", _of(lambda spec, seed: EmpiricalWinRate(spec), OnGrid)),
        Contender(
            f"KM / isotonic by {segment}",
            _of(lambda spec, seed: EmpiricalWinRate(spec, segment=segment), OnGrid),
        ),
    ]


@dataclass(frozen=True)
class ConstantShade:
    """bid = shade · value: the policy without a curve."""

    shade: float

    def bid_cpm(self, X: pd.DataFrame, value_cpm: Doubles, floor_cpm: Doubles) -> Doubles:
        return np.where(value_cpm > floor_cpm, np.maximum(self.shade * value_cpm, floor_cpm), 0.0)


SHADES: npt.NDArray[np.float64] = np.linspace(0.02, 1.0, 99)


def best_constant_shade(
    value_cpm: Doubles, floor_cpm: Doubles, X: pd.DataFrame, surplus: Callable[[Doubles], float]
) -> tuple[float, float]:
    """(shade, surplus) of the best constant shade in hindsight; `surplus(bids)` judges a policy."""
    found = [(float(s), surplus(ConstantShade(s).bid_cpm(X, value_cpm, floor_cpm))) for s in SHADES]
    return max(found, key=lambda pair: pair[1])
