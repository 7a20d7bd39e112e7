"""A small market with known truth: heterogeneous location and slope, bids that follow value, any feedback."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.features import Doubles
from bidml.pricing import WinCurve, optimal_bid_cpm

SPEC = FeatureSpec(
    (
        Feature("site", FeatureKind.CATEGORY, "site.domain"),
        Feature("geo", FeatureKind.CATEGORY, "device.geo.country"),
        Feature("device", FeatureKind.CATEGORY, "ext.device"),
        Feature("hour", FeatureKind.NUMBER, "derived.hour_of_day"),
        Feature("viewability", FeatureKind.NUMBER, "ext.viewability"),
    )
)

_SITES, _GEOS, _DEVICES = 300, 30, 4


@dataclass(frozen=True)
class World:
    """Features, bids, market prices, values (n,), and the true curve."""

    X: pd.DataFrame
    bid_cpm: Doubles
    market_price_cpm: Doubles
    value_cpm: Doubles
    truth: WinCurve

    def log(self, feedback: str = "closed") -> pd.DataFrame:
        """closed: win or loss; wins: min-bid-to-win on wins; both: on all; second: second-price clearing price."""
        won = self.bid_cpm >= self.market_price_cpm
        log = self.X.assign(bid_cpm=self.bid_cpm, won=won, currency="USD", auction_type=1)
        if feedback == "wins":
            log["min_bid_to_win_cpm"] = np.where(won, self.market_price_cpm, np.nan)
        elif feedback == "both":
            log["min_bid_to_win_cpm"] = self.market_price_cpm
        elif feedback == "second":
            log["auction_type"] = 2
            log["price_cpm"] = np.where(won, self.market_price_cpm, np.nan)
        return log

    def surplus_of_oracle(self, curve: WinCurve) -> tuple[float, float]:
        """Expected surplus of bidding by `curve`, of the oracle's; and predicted ÷ true win rate at those bids."""
        best = optimal_bid_cpm(self.value_cpm, self.truth)
        ours = optimal_bid_cpm(self.value_cpm, curve)
        surplus = ((self.value_cpm - ours) * self.truth.win_rate(ours)).sum()
        of_oracle = surplus / ((self.value_cpm - best) * self.truth.win_rate(best)).sum()
        return float(of_oracle), float(curve.win_rate(ours).sum() / self.truth.win_rate(ours).sum())


def make_world(n: int, *, seed: int, bid_sd: float = 0.15) -> World:
    """`bid_sd`: of ln bid around 0.65 of the value; 0 with values that follow x makes bids a function of x."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed)
    popularity = 1.0 / np.arange(1, _SITES + 1) ** 1.1
    site = rng.choice(_SITES, n, p=popularity / popularity.sum())
    geo, device = rng.choice(_GEOS, n), rng.choice(_DEVICES, n)
    hour, view = rng.integers(0, 24, n).astype(float), rng.beta(2.0, 2.0, n)
    of_site, of_geo = fixed.normal(0.0, 0.5, _SITES), fixed.normal(0.0, 0.3, _GEOS)
    crossed, slope_of_geo = fixed.normal(0.0, 0.25, (_DEVICES, _GEOS)), fixed.normal(0.0, 0.3, _GEOS)
    location = (
        0.3
        + of_site[site]
        + of_geo[geo]
        + crossed[device, geo]
        + 0.4 * np.sin(hour * np.pi / 12.0)
        + 0.8 * view
    )
    shape = np.exp(0.8 + slope_of_geo[geo] + 0.3 * (device == 2))
    price = np.exp(location + rng.logistic(size=n) / shape)
    noise = rng.normal(0.0, 0.6, n) if bid_sd > 0.0 else 0.0
    value = np.exp(1.1 + 0.4 * of_site[site] + 0.5 * view + noise)
    X = pd.DataFrame(
        {
            "site": [f"site{i}.example" for i in site],
            "geo": [f"G{i:02d}" for i in geo],
            "device": device,
            "hour": hour,
            "viewability": view,
        }
    )
    bid = 0.65 * value * np.exp(rng.normal(0.0, bid_sd, n) if bid_sd > 0.0 else 0.0)
    return World(X, bid, price, value, WinCurve(location, shape))
