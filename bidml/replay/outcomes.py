"""What another bid would have done in a logged auction: known, or bounded and imputed.

Of the market price M a log tells an interval (lower, upper]: M ≤ bid after a win, M > bid after a loss, M itself where
the exchange says it. A bid b is sure to win from `upper` on, sure to lose up to `lower`, and between them it wins with

    P(M ≤ b | lower < M ≤ upper) = (F(b) − F(lower)) / (F(upper) − F(lower)),

F a win curve (conditional imputation; SCIENCE.md section 4.3). What is known is kept, so an error of F only touches the
auctions that the log leaves open. Second price pays max(M, floor); its expectation inside the interval is

    (G(min(b, upper)) − G(lower)) / (F(min(b, upper)) − F(lower)),   G(x) = E[max(M, floor) · 1(M ≤ x)].
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from bidml.contract import AuctionType
from bidml.errors import DataError
from bidml.fit.observations import Doubles, Flags
from bidml.pricing import WinCurve, second_price_surplus_cpm
from bidml.replay.auctions import ReplayAuctions

_TINY: Final = 1e-290  # probabilities below it have no digits left


@dataclass(frozen=True, slots=True, eq=False)
class Outcomes:
    """Of n bids, arrays (n,): sure wins, possible wins, and P(win); the price of a win, CPM, between its bounds.

    `sure` ⊆ `possible`. Without a curve `win_rate` and `price_cpm` are NaN where the log does not tell.
    """

    bid_cpm: Doubles
    sure: Flags
    possible: Flags
    win_rate: Doubles
    least_price_cpm: Doubles
    price_cpm: Doubles
    most_price_cpm: Doubles

    @property
    def known(self) -> Flags:
        """True where the log tells whether the bid wins; the price may still be open."""
        found: Flags = self.sure == self.possible
        return found


def outcomes(auctions: ReplayAuctions, bid_cpm: Doubles, curve: WinCurve | None = None) -> Outcomes:
    """What `bid_cpm` (n,) would have done; 0.0 is no bid. Raises `DataError` for NaN, negative or misaligned bids."""
    bid = np.asarray(bid_cpm, dtype=np.float64)
    n = len(auctions)
    if bid.shape != (n,) or not (bid >= 0.0).all() or not (bid < np.inf).all():
        raise DataError(
            f"a replayed policy gives one finite bid ≥ 0 per auction: ({n},)",
            value=bid.shape if bid.shape != (n,) else float(bid[~(bid >= 0.0) | (bid == np.inf)][0]),
            remedy="let 0.0 stand for no bid",
        )
    if curve is not None and len(curve) not in (1, n):
        raise DataError(f"a win curve per auction: {n}", value=len(curve), remedy="align the curve")
    valid = (bid > 0.0) & (bid >= auctions.floor_cpm) & auctions.winnable
    sure = valid & (bid >= auctions.upper_cpm)
    possible = sure | (valid & (bid > auctions.lower_cpm))
    first = auctions.auction_type == AuctionType.FIRST_PRICE
    least = np.where(first, bid, np.maximum(auctions.lower_cpm, auctions.floor_cpm))
    most = np.where(first, bid, np.minimum(bid, np.maximum(auctions.upper_cpm, auctions.floor_cpm)))
    win_rate, price = sure.astype(np.float64), np.where(least == most, least, np.nan)
    open_win = np.flatnonzero(possible & ~sure)
    open_price = np.flatnonzero(possible & (least < most))
    if curve is None:
        win_rate[open_win] = np.nan
    else:
        win_rate[open_win] = _win_rates(auctions[open_win], bid[open_win], _rows(curve, open_win))
        price[open_price] = _prices(auctions[open_price], bid[open_price], _rows(curve, open_price))
        price[open_price] = np.clip(price[open_price], least[open_price], most[open_price])
    return Outcomes(bid, sure, possible, win_rate, least, price, most)


def expected_outcomes(auctions: ReplayAuctions, bid: Doubles, curve: WinCurve) -> tuple[Doubles, Doubles]:
    """P(win) and the price of a win before anything is known of the price, (n,) each; of winnable auctions."""
    n = len(auctions)
    blank = replace(auctions, lower_cpm=np.zeros(n), upper_cpm=np.full(n, np.inf))
    found = outcomes(blank, bid, curve)
    return found.win_rate, found.price_cpm


def _win_rates(auctions: ReplayAuctions, bid: Doubles, curve: WinCurve) -> Doubles:
    """P(M ≤ bid | lower < M ≤ upper), lower < bid < upper, in the form that keeps its digits in either tail."""
    ln_bid, ln_low, ln_up = (
        curve.log_win_rate(x) for x in (bid, auctions.lower_cpm, np.minimum(auctions.upper_cpm, 1e300))
    )
    ln_up = np.where(auctions.upper_cpm == np.inf, 0.0, ln_up)
    with np.errstate(invalid="ignore", divide="ignore"):
        from_below = (np.exp(ln_bid - ln_up) - np.exp(ln_low - ln_up)) / -np.expm1(ln_low - ln_up)
        survival_bid, survival_low = -np.expm1(ln_bid), -np.expm1(ln_low)
        survival_up = -np.expm1(ln_up)
        from_above = (survival_low - survival_bid) / (survival_low - survival_up)
    found = np.where(ln_low > -0.7, from_above, from_below)  # −0.7 ≈ ln ½
    # where the curve says that what happened could not happen, it says nothing
    return np.where(np.isfinite(found), np.clip(found, 0.0, 1.0), 0.5)


def _prices(auctions: ReplayAuctions, bid: Doubles, curve: WinCurve) -> Doubles:
    """E[max(M, floor) | lower < M ≤ min(bid, upper)], CPM; the middle of the interval where F has no mass in it."""
    lower, floor = auctions.lower_cpm, auctions.floor_cpm
    upper = np.minimum(bid, auctions.upper_cpm)
    mass = curve.win_rate(upper) - curve.win_rate(lower)
    paid = _mean_below(upper, floor, curve) - _mean_below(lower, floor, curve)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = paid / mass
    middle = 0.5 * (np.maximum(lower, floor) + np.maximum(upper, floor))
    return np.where((mass > _TINY) & np.isfinite(found), found, middle)


def _mean_below(x: Doubles, floor: Doubles, curve: WinCurve) -> Doubles:
    """G(x) = E[max(M, floor) · 1(M ≤ x)]."""
    found = floor * curve.win_rate(np.minimum(x, floor))
    above = np.flatnonzero(x > floor)
    if above.size:
        found[above] = -second_price_surplus_cpm(
            0.0, x[above], _rows(curve, above), lowest_price_cpm=floor[above]
        )
    return found


def _rows(curve: WinCurve, rows: object) -> WinCurve:
    return curve if len(curve) == 1 else curve[rows]
