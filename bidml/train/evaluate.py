"""Is it better, and by how much: probabilities against the base rate, bids against other policies, in money.

Everything here reads the artifact through `bidml.score`, so that what is judged is what will bid. Rows of a sampled
log count for the rows they stand for, but in the AUC, which a sample within events and within others leaves as it is.
Numbers only; `bidml.report` draws and prints them.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml import metrics
from bidml.contract import AuctionType
from bidml.features import Doubles, RawColumns
from bidml.fit.maturity import Maturity
from bidml.log import price_loss, sample_weights
from bidml.pricing import WinCurve
from bidml.replay import predict as predict
from bidml.score import Scorer

_SHADES: Final = np.linspace(0.02, 1.0, 99)
_Z95: Final = 1.959963984540054


class Market(Protocol):
    """What competitors do in the n evaluated auctions, as far as it is known. Arrays have shape (n,)."""

    @property
    def kind(self) -> str: ...
    def win_rate(self, bid_cpm: Doubles) -> Doubles:
        """P(win) of each auction's bid; 0 where the bid is 0."""
        ...

    def surplus_cpm(self, value_cpm: Doubles, bid_cpm: Doubles) -> Doubles:
        """E[(value − price) · won]; 0 where the bid is 0."""
        ...

    def oracle_bid_cpm(self, value_cpm: Doubles) -> Doubles:
        """The bid of who knows the market; 0 = no bid."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class KnownPrices:
    """Each auction's market price is known (simulators, research logs): a bid wins when it is not below it.

    Its oracle foresees the price and pays just that: no policy that knows only the distribution can reach it.
    """

    market_price_cpm: Doubles
    floor_cpm: Doubles
    is_second_price: npt.NDArray[np.bool_]
    kind: str = "known prices"

    def win_rate(self, bid_cpm: Doubles) -> Doubles:
        won = (bid_cpm > 0.0) & (bid_cpm >= self._least)
        return won.astype(np.float64)

    def surplus_cpm(self, value_cpm: Doubles, bid_cpm: Doubles) -> Doubles:
        price = np.where(self.is_second_price, self._least, bid_cpm)
        return (value_cpm - price) * self.win_rate(bid_cpm)

    def oracle_bid_cpm(self, value_cpm: Doubles) -> Doubles:
        return np.where(self._least < value_cpm, self._least, 0.0)

    @property
    def _least(self) -> Doubles:
        return np.maximum(self.market_price_cpm, self.floor_cpm)


@dataclass(frozen=True, slots=True, eq=False)
class Estimates:
    """What the artifact says of n auctions, (n,): as `Predictions`; and, where it can bid, value and bid in CPM."""

    pctr: Doubles | None
    curve: WinCurve | None
    pcvr: Doubles | None = None
    value_cpm: Doubles | None = None
    bid_cpm: Doubles | None = None


def evaluate_ctr(pctr: Doubles, log: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Scores of the model, the base rate and (where `true_pctr` is known) the truth, on the won rows of `log`."""
    won = log["won"].to_numpy(dtype=bool) if "won" in log else np.ones(len(log), dtype=bool)
    clicked = log["clicked"].to_numpy(dtype=bool)[won]
    weights = sample_weights(log[won])
    contenders = {
        "model": pctr[won],
        "base rate": np.full(int(won.sum()), np.average(clicked, weights=weights)),
    }
    if "true_pctr" in log:
        contenders["truth"] = log["true_pctr"].to_numpy(dtype=np.float64)[won]
    return {name: _scores(clicked, p, weights) for name, p in contenders.items()}


def evaluate_cvr(
    pcvr: Doubles, log: pd.DataFrame, maturity: Maturity | None
) -> dict[str, dict[str, float]] | None:
    """The same of P(conversion | click), on the clicked rows; None without clicks of both outcomes.

    A young click's conversions have not all arrived: what is judged is p · G(age), the chance of one that is known by
    now (`bidml.fit.maturity`). Without `maturity`, from the log with its times, every click is taken for old.
    """
    rows = log["clicked"].to_numpy(dtype=bool)
    clicks, arrived = log[rows], np.ones(int(rows.sum()))
    converted = clicks["converted"].to_numpy(dtype=bool)
    if maturity is not None:
        converted, arrived = maturity.converted(clicks), maturity.arrived(clicks)
    if not converted.any() or converted.all():
        return None
    rate = float(converted.sum() / arrived.sum())
    contenders = {"model": pcvr[rows] * arrived, "base rate": np.minimum(rate * arrived, 1.0)}
    if "true_pcvr" in log:
        contenders["truth"] = log["true_pcvr"].to_numpy(dtype=np.float64)[rows] * arrived
    return {name: _scores(converted, p, None) for name, p in contenders.items()}


def evaluate_win(
    curve: WinCurve, log: pd.DataFrame, *, market: Market | None = None
) -> dict[str, dict[str, float]]:
    """Log loss and calibration of P(win at the logged bid), on wins and price losses; the truth where known."""
    won = log["won"].to_numpy(dtype=bool)
    counts = won | price_loss(log).to_numpy(dtype=bool)
    bid = log["bid_cpm"].to_numpy(dtype=np.float64)
    y = won[counts]
    weights = sample_weights(log[counts])
    contenders = {
        "model": curve.win_rate(bid),
        "base rate": np.full(len(log), np.average(y, weights=weights)),
    }
    if market is not None and not isinstance(market, KnownPrices):
        contenders["truth"] = market.win_rate(bid)
    return {name: _scores(y, p[counts], weights) for name, p in contenders.items()}


def _scores(y: npt.NDArray[np.bool_], p: Doubles, weights: Doubles | None) -> dict[str, float]:
    ratio = metrics.calibration_ratio_interval(y, p, sample_weight=weights)
    return {
        "log_loss": metrics.log_loss(y, p, sample_weight=weights),
        "normalized_entropy": metrics.normalized_entropy(y, p, sample_weight=weights),
        "calibration_ratio": ratio.value,
        "calibration_low": ratio.low,
        "calibration_high": ratio.high,
        "auc": metrics.auc(y, p),
    }


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What bidding in the evaluated auctions takes, arrays (n,). `cap_cpm` may be inf."""

    value_per_click: Doubles
    floor_cpm: Doubles
    cap_cpm: Doubles
    auction_type: Doubles
    value_per_conversion: float = 0.0  # for a model that predicts them

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Terms:
        """The terms of some rows."""
        return Terms(
            self.value_per_click[rows],
            self.floor_cpm[rows],
            self.cap_cpm[rows],
            self.auction_type[rows],
            self.value_per_conversion,
        )

    def value_cpm(self, pctr: Doubles, pcvr: Doubles | None) -> Doubles:
        """What an impression is worth, (n,), CPM: 1000 · pctr · (value_per_click + pcvr · value_per_conversion)."""
        of_click = self.value_per_click
        if pcvr is not None and self.value_per_conversion > 0.0:
            of_click = of_click + pcvr * self.value_per_conversion
        return 1000.0 * pctr * of_click

    @property
    def is_second_price(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.auction_type == float(AuctionType.SECOND_PRICE))


def terms_of(
    log: pd.DataFrame,
    *,
    value_per_click: float | None,
    cap_cpm: float | None,
    auction_type: AuctionType,
    value_per_conversion: float | None = None,
) -> Terms | None:
    """Terms from the log's own columns, else from the arguments; None when nothing's value is known."""
    n = len(log)

    def column(name: str, otherwise: float | None) -> Doubles | None:
        if name in log and log[name].notna().any():
            return log[name].fillna(0.0 if otherwise is None else otherwise).to_numpy(dtype=np.float64)
        return None if otherwise is None else np.full(n, float(otherwise))

    if value_per_click is None and value_per_conversion is not None:
        value_per_click = 0.0
    value = column("value_per_click", value_per_click)
    floor = column("floor_cpm", 0.0)
    at = column("auction_type", float(auction_type))
    if value is None or floor is None or at is None:
        return None
    cap = np.full(n, 1e6 if cap_cpm is None else cap_cpm)
    return Terms(value, floor, cap, at, value_per_conversion or 0.0)


def bids_of(scorer: Scorer, columns: RawColumns, terms: Terms) -> Doubles:
    """What the artifact bids on these terms without pacing, (n,), CPM; 0 = no bid."""
    n = len(terms.value_per_click)
    found = {"bid_cpm": array("d", bytes(8 * n))}
    prices: dict[str, Any] = {
        "value_per_click": terms.value_per_click,
        "floor_cpm": terms.floor_cpm,
        "cap_cpm": terms.cap_cpm,
        "pacing_multiplier": 1.0,
        "auction_type": terms.auction_type,
    }
    if terms.value_per_conversion > 0.0 and "cvr" in scorer.parts:
        prices["value_per_conversion"] = terms.value_per_conversion
    scorer.score_many({**columns, **prices}, found)
    return np.frombuffer(found["bid_cpm"])


def true_value_cpm(log: pd.DataFrame, pctr: Doubles, terms: Terms, pcvr: Doubles | None = None) -> Doubles:
    """What an impression is worth, (n,), CPM: by `true_pctr` and `true_pcvr` where the log knows them, else by the
    model's; conversions count for a model that predicts them."""
    true_pctr = log["true_pctr"].to_numpy(dtype=np.float64) if "true_pctr" in log else pctr
    if pcvr is not None and "true_pcvr" in log:
        pcvr = log["true_pcvr"].to_numpy(dtype=np.float64)
    return terms.value_cpm(true_pctr, pcvr)


def evaluate_money(
    pctr: Doubles,
    bid_cpm: Doubles,
    log: pd.DataFrame,
    terms: Terms,
    market: Market,
    *,
    pcvr: Doubles | None = None,
) -> dict[str, dict[str, float]]:
    """Surplus of policies in the same auctions: ours, the oracle, truthful bidding, the best constant shade.

    `pctr`, `bid_cpm`, `pcvr` (n,) are the artifact's. An impression is worth `true_value_cpm`; shading and truthful
    policies use the model's pctr as the bidder would. Per policy: `surplus_cpm` (per 1,000 auctions, with
    `surplus_ci95_cpm`, half a 95 % interval), `of_oracle`, `win_rate`, `spend_cpm`, `mean_bid_cpm`. The best constant
    shade is chosen on these very auctions, in hindsight.
    """
    value = true_value_cpm(log, pctr, terms, pcvr)
    believed = terms.value_cpm(pctr, pcvr)
    judge = _Judge(value, market, sample_weights(log))
    shades = [judge(_constant_shade(believed, shade, terms)) for shade in _SHADES]
    best = int(np.argmax([scores["surplus_cpm"] for scores in shades]))
    oracle = judge(market.oracle_bid_cpm(value))
    policies = {
        "oracle": oracle,
        "bidml": judge(bid_cpm),
        "best constant shade": {**shades[best], "shade": float(_SHADES[best])},
        "truthful": judge(_constant_shade(believed, 1.0, terms)),
    }
    if "bid_cpm" in log:
        policies["as logged"] = judge(log["bid_cpm"].to_numpy(dtype=np.float64))
    for scores in policies.values():
        scores["of_oracle"] = scores["surplus_cpm"] / oracle["surplus_cpm"]
    return policies


def _constant_shade(value_cpm: Doubles, shade: float, terms: Terms) -> Doubles:
    bid = np.minimum(np.maximum(shade * value_cpm, terms.floor_cpm), terms.cap_cpm)
    return np.where(value_cpm > terms.floor_cpm, bid, 0.0)


class _Judge:
    """What a policy's bids are worth, as means over the auctions."""

    def __init__(self, value_cpm: Doubles, market: Market, weights: Doubles | None) -> None:
        self._value = value_cpm
        self._market = market
        self._weights = np.ones(len(value_cpm)) if weights is None else weights

    def __call__(self, bid_cpm: Doubles) -> dict[str, float]:
        win_rate = self._market.win_rate(bid_cpm)
        surplus = self._market.surplus_cpm(self._value, bid_cpm)
        return {
            "surplus_cpm": (mean := self._mean(surplus)),
            "surplus_ci95_cpm": float(
                _Z95 * np.sqrt(((self._weights * (surplus - mean)) ** 2).sum()) / self._weights.sum()
            ),
            "win_rate": self._mean(win_rate),
            "spend_cpm": self._mean(self._value * win_rate - surplus),
            "mean_bid_cpm": self._mean(bid_cpm),
        }

    def _mean(self, cells: Doubles) -> float:
        return float(np.average(cells, weights=self._weights))
