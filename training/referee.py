"""What bids would have earned in logged auctions, as far as the log can tell: the referee between two models.

Of an auction the log knows our bid, whether it won, sometimes the market price m, and, if it won, whether it was
clicked. For another bid b:

- winning: certain where m is known; else (first price only) by the outcome: a won auction is won by every higher bid
  and by a lower b with F(b) / F(logged bid); a lost one is lost by every lower bid and won by a higher b with
  (F(b) − F(logged)) / (1 − F(logged)), where F is the mean of both models' win curves;
- value: the geometric mean of both models' odds of a click, mapped by Platt's method (level and steepness) to the
  clicks of the log's impressions. So no model is its own judge, and one that believes in ten times the clicks does not
  earn them. Single clicks would be honest, too, and drown every difference in noise; log loss and calibration judge
  the clicks themselves.

Both models are judged on the same rows: where they bid alike, neither clicks nor prices add noise to their difference.

Limits: losses that say nothing about the price, and second-price auctions with unknown m, do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special

from bidml.contract import AuctionType
from bidml.features import Doubles
from bidml.fit.calibration import CalibrationMethod, calibrated, fit_calibration
from bidml.log import price_loss
from bidml.pricing import WinCurve, value_cpm
from bidml.train.evaluate import Terms

_EPSILON: Final = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """What one model says of n auctions: `pctr` (n,), the win curves, its bids (n,) in CPM, 0 where it does not bid."""

    pctr: Doubles
    curve: WinCurve
    bid_cpm: Doubles


class Referee:
    """Judges bids in the auctions of `log` (n rows); `counts` (n,) are the auctions that can be judged."""

    def __init__(self, log: pd.DataFrame, terms: Terms, opinions: list[Opinion]) -> None:
        self._terms = terms
        self._curves = [opinion.curve for opinion in opinions]
        self._won = log["won"].to_numpy(dtype=bool)
        self._logged = log["bid_cpm"].to_numpy(dtype=np.float64)
        self._second = terms.auction_type == float(AuctionType.SECOND_PRICE)
        self._market = _known_market_price(log, self._won, self._second)
        known = ~np.isnan(self._market)
        informative = self._won | price_loss(log).to_numpy(dtype=bool)
        self.counts: npt.NDArray[np.bool_] = known | (informative & ~self._second)
        clicked = log["clicked"].to_numpy(dtype=bool)
        pctr = _calibrated_mean([opinion.pctr for opinion in opinions], clicked, self._won)
        self._value = value_cpm(pctr, terms.value_per_click)

    def surplus_cpm(self, bid_cpm: Doubles) -> Doubles:
        """The expected surplus of each auction, (n,), CPM; 0 where there is no bid or no judgement."""
        wins = self._wins(bid_cpm)
        price = np.where(self._second, np.where(np.isnan(self._market), bid_cpm, self._market), bid_cpm)
        return np.where(self.counts & (bid_cpm > 0.0), (self._value - price) * wins, 0.0)

    def _wins(self, bid_cpm: Doubles) -> Doubles:
        at_bid, at_logged = (
            np.mean([curve.win_rate(bid) for curve in self._curves], axis=0)
            for bid in (np.maximum(bid_cpm, _EPSILON), self._logged)
        )
        higher = bid_cpm >= self._logged
        if_won = np.where(higher, 1.0, at_bid / np.maximum(at_logged, _EPSILON))
        if_lost = np.where(higher, (at_bid - at_logged) / np.maximum(1.0 - at_logged, _EPSILON), 0.0)
        by_curve = np.clip(np.where(self._won, if_won, if_lost), 0.0, 1.0)
        above_floor = bid_cpm >= self._terms.floor_cpm
        known = ~np.isnan(self._market)
        return np.where(known, bid_cpm >= np.where(known, self._market, 0.0), by_curve) * above_floor


def _known_market_price(
    log: pd.DataFrame, won: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]
) -> Doubles:
    market = np.full(len(log), np.nan)
    if "price_cpm" in log:
        paid = log["price_cpm"].to_numpy(dtype=np.float64)
        market = np.where(second & won, paid, market)
    if "min_bid_to_win_cpm" in log:
        told = log["min_bid_to_win_cpm"].to_numpy(dtype=np.float64)
        market = np.where(np.isnan(told), market, told)
    return market


def _calibrated_mean(
    pctrs: list[Doubles], clicked: npt.NDArray[np.bool_], won: npt.NDArray[np.bool_]
) -> Doubles:
    log_odds = np.mean([special.logit(np.clip(p, _EPSILON, 1.0 - _EPSILON)) for p in pctrs], axis=0)
    platt = fit_calibration(log_odds[won], clicked[won], method=CalibrationMethod.PLATT)
    return np.asarray(special.expit(calibrated(platt, log_odds)))
