"""What bids would have earned in logged auctions, as far as the log can tell: the referee between two models.

Of an auction the log knows our bid, whether it won, sometimes the market price m, and, if it won, whether it was
clicked. For another bid b:

- winning: certain where m is known; else (first price only) by the outcome: a won auction is won by every higher bid
  and by a lower b with F(b) / F(logged bid); a lost one is lost by every lower bid and won by a higher b with
  (F(b) − F(logged)) / (1 − F(logged)), where F is the mean of both models' win curves;
- value: both models' log-odds of a click, each with the weight that the clicks of the log's impressions give it
  (`training.mixture`), none below 0. So no model is its own judge: one that believes in ten times the clicks does not
  earn them, and one that believes in the opposite is not heard. Single clicks would be honest, too, and drown every
  difference in noise; log loss and calibration judge the clicks themselves.

Both models are judged on the same rows: where they bid alike, neither clicks nor prices add noise to their difference.
How far the clicks leave the weights open is part of the interval: it is drawn with them.

Limits: losses that say nothing about the price, and second-price auctions with unknown m, do not count. Where neither
model knows something, the referee does not either: it underestimates the harm of errors that both make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import AuctionType
from bidml.features import Doubles
from bidml.log import price_loss
from bidml.metrics import Interval
from bidml.pricing import WinCurve, value_cpm
from bidml.resample import block_draws, block_sums, percentile_interval
from bidml.train.evaluate import Terms
from training.mixture import Mixture, fit_mixture

_EPSILON: Final = 1e-12
_WEIGHT_DRAWS: Final = 40


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """What one model says of n auctions: `pctr` (n,), the win curves, its bids (n,) in CPM, 0 where it does not bid."""

    pctr: Doubles
    curve: WinCurve
    bid_cpm: Doubles


class Referee:
    """Judges bids in the auctions of `log` (n rows); `counts` (n,) are the auctions that can be judged.

    `stands_for` (n,): for how many auctions the click of an impression stands (`Judged.stands_for`).
    """

    def __init__(
        self, log: pd.DataFrame, terms: Terms, opinions: list[Opinion], *, stands_for: Doubles | None = None
    ) -> None:
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
        self._pctrs = [opinion.pctr for opinion in opinions]
        stands_for = np.ones(len(log)) if stands_for is None else stands_for
        self.mixture: Mixture = fit_mixture(
            [pctr[self._won] for pctr in self._pctrs], clicked[self._won], stands_for[self._won]
        )
        self._value = self._value_by(self.mixture)

    def surplus_cpm(self, bid_cpm: Doubles) -> Doubles:
        """The expected surplus of each auction, (n,), CPM; 0 where there is no bid or no judgement."""
        wins, paid = self._outcome(bid_cpm)
        return self._value * wins - paid

    def lift(
        self, ours_cpm: Doubles, theirs_cpm: Doubles, *, confidence: float, rng: np.random.Generator
    ) -> Interval:
        """(surplus of our bids − of theirs) / |of theirs|, with its interval, over auctions in time order.

        Drawn together: blocks of auctions (`training.resample`), the same for both, and the weights of the opinions.
        """
        outcomes = [self._outcome(bids) for bids in (ours_cpm, theirs_cpm)]
        n = len(ours_cpm)
        paid = [block_sums(of, n) for _, of in outcomes]
        worths = np.array(
            [
                [block_sums(value * wins, n) for wins, _ in outcomes]
                for value in map(self._value_by, self.mixture.draws(_WEIGHT_DRAWS, rng))
            ]
        )  # (n_weights, 2, n_blocks)
        draws = block_draws(len(paid[0]), rng)
        which = rng.integers(_WEIGHT_DRAWS, size=len(draws))
        ours, theirs = (np.einsum("db,db->d", draws, worths[which, i] - paid[i]) for i in range(2))
        total = [float(self.surplus_cpm(bids).sum()) for bids in (ours_cpm, theirs_cpm)]
        found = np.where(theirs > 0.0, (ours - theirs) / np.abs(theirs), np.nan)
        value = (total[0] - total[1]) / abs(total[1]) if total[1] > 0.0 else np.nan
        return percentile_interval(value, found, confidence)

    def _outcome(self, bid_cpm: Doubles) -> tuple[Doubles, Doubles]:
        """(probability of winning, expected price), (n,) each; 0 where there is no bid or no judgement."""
        counts = self.counts & (bid_cpm > 0.0)
        wins = np.where(counts, self._wins(bid_cpm), 0.0)
        price = np.where(self._second, np.where(np.isnan(self._market), bid_cpm, self._market), bid_cpm)
        return wins, np.where(counts, price, 0.0) * wins

    def _value_by(self, mixture: Mixture) -> Doubles:
        return value_cpm(mixture(self._pctrs), self._terms.value_per_click)

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
