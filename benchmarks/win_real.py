"""Real auctions with known prices: iPinYou 2259 (rk2900/DLF), first-price counterfactual.

Trained on censored rows, judged by the true market price of others. Bids are the data's own, independent of price and
features. Values are not in the data: log-normal, of a spread and median at which the best constant shade earns the
55.6 % of the ex-post bound that SCIENCE.md 5.7 reports; several draws. The ex-post bound pays exactly the market price
wherever it is below the value: nobody reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from benchmarks.win_curves import Contender, Policy, best_constant_shade
from benchmarks.win_worlds import CLOSED, DATA, FEEDBACK
from bidml.contract import AuctionType, FeatureSpec
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations
from bidml.log import infer_spec, read_log

MEDIAN_VALUE_CPM: Final = 0.80  # CNY
VALUE_SPREAD: Final = 0.7  # sd of ln value
_TICK_CPM: Final = 0.01
_SMALLEST_MASS: Final = 1e-6
_COLUMNS: Final = {
    "clicked": "click",
    "bid_cpm": "bid",
    "true_market_price_cpm": "market_price",
    "ip": "IP",
}


@dataclass(frozen=True)
class RealAuctions:
    """`value_cpm` (n_draws, n_test)."""

    spec: FeatureSpec
    train: pd.DataFrame
    test: pd.DataFrame
    value_cpm: Doubles

    @property
    def price_cpm(self) -> Doubles:
        return self.test["true_market_price_cpm"].to_numpy(dtype=np.float64)

    def observations(self, feedback: str) -> MarketPriceObservations:
        y = MarketPriceObservations.from_log(self.train)
        return y.win_or_loss() if feedback == CLOSED else y

    def of_bound(self, value_cpm: Doubles, bid_cpm: Doubles) -> float:
        """Realised surplus in first price as a share of the ex-post bound; a bid above the price wins."""
        won = bid_cpm > self.price_cpm
        return float(
            np.where(won, value_cpm - bid_cpm, 0.0).sum() / np.maximum(value_cpm - self.price_cpm, 0.0).sum()
        )


def load(*, n_draws: int) -> RealAuctions:
    """Both files, and `n_draws` of values for the test rows."""
    train, test = (
        read_log(
            DATA / f"ipinyou_2259_censored_{part}.parquet",
            format="parquet", columns=_COLUMNS, currency="CNY", auction_type=int(AuctionType.SECOND_PRICE),
            price_unit="centi_cpm",
        )
        for part in ("train", "test")
    )  # fmt: skip
    rng = np.random.default_rng(2259)
    value = MEDIAN_VALUE_CPM * np.exp(VALUE_SPREAD * rng.normal(size=(n_draws, len(test))))
    return RealAuctions(infer_spec(train), train, test, value)


def judge(policy: Policy, auctions: RealAuctions) -> dict[str, float]:
    """`anlp`: −mean ln P(price in its tick); `win_cross_entropy`: at logged bids; `surplus`: of the ex-post bound."""
    X, price = auctions.test, auctions.price_cpm
    half = 0.5 * _TICK_CPM
    mass = policy.win_rate(X, price + half) - policy.win_rate(X, np.maximum(price - half, 1e-9))
    bid = X["bid_cpm"].to_numpy(dtype=np.float64)
    p = np.clip(policy.win_rate(X, bid), 1e-6, 1.0 - 1e-6)
    won = bid > price
    floor = np.zeros(len(X))
    surplus = [auctions.of_bound(v, policy.bid_cpm(X, v, floor)) for v in auctions.value_cpm]
    return {
        "anlp": float(-np.log(np.maximum(mass, _SMALLEST_MASS)).mean()),
        "win_cross_entropy": float(-np.where(won, np.log(p), np.log1p(-p)).mean()),
        "surplus": float(np.mean(surplus)),
        "surplus_sd": float(np.std(surplus)),
    }


def constant_shade(auctions: RealAuctions) -> dict[str, float]:
    """The best constant shade in hindsight, per draw."""
    floor = np.zeros(len(auctions.test))
    found = [
        best_constant_shade(v, floor, auctions.test, lambda bid, v=v: auctions.of_bound(v, bid))[1]
        for v in auctions.value_cpm
    ]
    return {"surplus": float(np.mean(found)), "surplus_sd": float(np.std(found))}


def run(
    contenders: Sequence[Contender], auctions: RealAuctions, *, seeds: Sequence[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """feedback → contender → scores, averaged over the seeds of the fit."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for feedback in FEEDBACK:
        y = auctions.observations(feedback)
        rows: dict[str, dict[str, float]] = {"best constant shade": constant_shade(auctions)}
        for contender in contenders:
            if contender.needs_prices and feedback == CLOSED:
                continue
            found = [judge(contender.fit(auctions.spec, auctions.train, y, s), auctions) for s in seeds]
            rows[contender.name] = {key: float(np.mean([f[key] for f in found])) for key in found[0]}
        table[feedback] = rows
    return table
