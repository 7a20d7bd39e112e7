"""Other rules than a plain auction: deals, soft floors, an unknown auction type, ticks.

The reference in NumPy; of these the bidder knows deals and soft floors (native/deals.h, native/offer.h). Prices are CPM
in one currency; (n,) each; 0.0 = no bid.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidml.blueprint import WinFamily
from bidml.pricing.arrays import Doubles, Numbers, aligned, double
from bidml.pricing.bid import optimal_bid_cpm, surplus_cpm
from bidml.pricing.curve import WinCurve

_QUADRATURE: Final = np.polynomial.legendre.leggauss(48)
_NEVER: Final = 1e-12  # a probability of first price that is none
_ROUNDING: Final = 1e-9  # a bid of 0.3 is 3 ticks of 0.1, although 0.3 / 0.1 < 3 in doubles


def deal_bid_cpm(value_cpm: Numbers, deal_price_cpm: Numbers, *, open_surplus_cpm: Numbers = 0.0) -> Doubles:
    """A fixed-price deal: its price where value − price is above 0 and at least the open auction's surplus, else 0.0.

    A private auction is no deal in this sense: it is `optimal_bid_cpm` with its own floor and win curve.
    """
    value, price, other = aligned(value=value_cpm, price=deal_price_cpm, other=open_surplus_cpm)
    with np.errstate(invalid="ignore"):
        gain = value - price
        taken = (price > 0.0) & (gain > 0.0) & (gain >= other) & (value < np.inf)
    return np.where(taken, price, 0.0)


def mixed_auction_bid_cpm(
    value_cpm: Numbers,
    curve: WinCurve,
    first_price_probability: Numbers,
    *,
    floor_cpm: Numbers = 0.0,
    cap_cpm: Numbers = np.inf,
) -> Doubles:
    """The bid when the auction is first price with probability π, else second price.

    (v − b) f = π F is the condition of a first-price auction with γ/π for γ (SCIENCE.md 3.5); π = 0 bids the value.
    """
    value, pi, _ = aligned(value=value_cpm, pi=first_price_probability, curve=curve.location)
    is_auction = (pi >= 0.0) & (pi <= 1.0)
    first = np.where(is_auction & (pi > _NEVER), pi, 1.0)
    bid = optimal_bid_cpm(
        value,
        WinCurve(curve.location, curve.shape, curve.gamma / first, curve.family),
        floor_cpm=floor_cpm,
        cap_cpm=cap_cpm,
        auction_type=np.where(pi > _NEVER, 1.0, 2.0),
    )
    return np.where(is_auction, bid, 0.0)


def soft_floor_bid_cpm(
    value_cpm: Numbers,
    curve: WinCurve,
    *,
    soft_floor_cpm: Numbers,
    floor_cpm: Numbers = 0.0,
    cap_cpm: Numbers = np.inf,
) -> Doubles:
    """The bid under a soft floor s: a bid below s pays itself, one above pays max(second price, s).

    Below, it is the first-price bid on [floor, s]; above, truth-telling (or the cap) earns
    (v − b) F(b) + ∫ F from s to b. The better of the two; `floor_cpm` is the hard floor.
    """
    value, s, floor, cap, _ = aligned(
        value=value_cpm, soft=soft_floor_cpm, floor=floor_cpm, cap=cap_cpm, curve=curve.location
    )
    with np.errstate(invalid="ignore"):
        is_soft = s >= 0.0
    s = np.where(is_soft, s, 0.0)
    low = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=np.minimum(cap, s))
    low_surplus = surplus_cpm(value, low, curve.win_rate(np.where(low > 0.0, low, 1.0)))
    high = optimal_bid_cpm(value, curve, floor_cpm=np.maximum(floor, s), cap_cpm=cap, auction_type=2.0)
    high_surplus = second_price_surplus_cpm(value, high, curve, lowest_price_cpm=np.maximum(floor, s))
    bid = np.where((high > 0.0) & (high_surplus >= low_surplus), high, low)
    return np.where(is_soft, bid, 0.0)


def second_price_surplus_cpm(
    value_cpm: Numbers, bid_cpm: Numbers, curve: WinCurve, *, lowest_price_cpm: Numbers = 0.0
) -> Doubles:
    """E[(v − max(M, r)) · 1(M ≤ b)] = (v − b) F(b) + ∫ F from r to b, for r ≤ b; 0 without a bid, (n,).

    M is the market price, r the lowest price that is paid. The integral is over the market price's own spread by
    Gauss-Legendre; its relative error is below 1e-6.
    """
    value, bid, r, _ = aligned(value=value_cpm, bid=bid_cpm, r=lowest_price_cpm, curve=curve.location)
    has_bid = (bid > 0.0) & (r <= bid)
    b = np.where(has_bid, bid, 1.0)
    with np.errstate(divide="ignore"):
        start = np.log(np.where(has_bid, r, 0.0))
    # In u = ln price F has its knee at the location, 1/k wide, with an exponential tail below, or a steeper one.
    knee = 12.0 / curve.shape
    rate = curve.gamma * curve.shape
    if curve.family is WinFamily.LOG_NORMAL:
        rate = rate * np.maximum(curve.shape * (curve.location - np.log(b)), 1.0)
    tail = np.minimum(curve.location, np.log(b)) - 30.0 / (1.0 + rate)
    start = np.maximum(start, tail)
    below, above = (np.clip(end, start, np.log(b)) for end in (curve.location - knee, curve.location + knee))
    saved = sum(
        _integral_of_win_rate(curve, low, high)
        for low, high in ((start, below), (below, above), (above, np.log(b)))
    )
    return np.where(has_bid, (value - b) * curve.win_rate(b) + saved, 0.0)


def bid_in_ticks_cpm(
    bid_cpm: Numbers, tick_cpm: Numbers, *, floor_cpm: Numbers = 0.0, highest_cpm: Numbers = np.inf
) -> Doubles:
    """The bid rounded down to a multiple of the exchange's tick; where that is below the floor, the first tick above.

    0.0 where no tick lies in [floor, highest]; `highest_cpm` is the smaller of cap and value.
    """
    bid, tick, floor, highest = aligned(bid=bid_cpm, tick=tick_cpm, floor=floor_cpm, highest=highest_cpm)
    with np.errstate(invalid="ignore", divide="ignore"):
        down = np.floor(bid / tick + _ROUNDING) * tick
        up = np.ceil(floor / tick - _ROUNDING) * tick
        rounded = np.where(down >= floor * (1.0 - _ROUNDING), down, up)
        valid = (bid > 0.0) & (tick > 0.0) & (rounded > 0.0) & (rounded <= highest * (1.0 + _ROUNDING))
    return np.where(valid, np.minimum(np.maximum(rounded, floor), highest), 0.0)


def _integral_of_win_rate(curve: WinCurve, low: Doubles, high: Doubles) -> Doubles:
    """∫ F(e^u) e^u du from `low` to `high`, (n,)."""
    points, weights = _QUADRATURE
    half = 0.5 * (high - low)
    total = np.zeros(len(low))
    for point, weight in zip(points, weights, strict=True):
        price = np.exp(low + half * (1.0 + point))
        total += weight * curve.win_rate(price) * price
    return np.asarray(double(half) * total)
