"""The optimal bid and its surplus: the vectorised NumPy reference.

A bid b wins with probability F(b) = G(z)^γ, z = k (ln b − m), θ = e^m. In a first-price auction the bid maximises (v
− b) F(b) on [floor, min(cap, v)]. ln F is concave in b, so the surplus has one maximum and clipping to the bounds is
exact (SCIENCE.md 3.1). Of the log-normal family, G = Φ, `log_normal` has the formulas; else G = σ. With y = k ln(b/θ)
− ln(1 + γk) it is the root of

    y + k softplus(y) = d,    d = k (ln(γ k v) − m) − (k + 1) ln(1 + γk)

found by Halley steps from an upper bound. `native/price.h`, the ONNX graph and `bidml.oracle` are its twins, held
together to 1e-12 relative by tests. Like them, `optimal_bid_cpm` never raises on numbers and never returns NaN: what
is not a valid auction gets 0.0, which means no bid.

Prices are CPM, one currency. Everything broadcasts; arrays are float64 of shape (n,).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from bidml.blueprint import WinFamily
from bidml.contract import HALLEY_STEPS, AuctionType
from bidml.pricing.arrays import Doubles, Numbers, aligned, double, sigmoid, softplus
from bidml.pricing.curve import WinCurve
from bidml.pricing.log_normal import log_normal_optimum_cpm

_SMALLEST_VALUE: Final = 1e-300  # keeps ln v finite; the twins use the same


def surplus_cpm(value_cpm: Numbers, bid_cpm: Numbers, win_rate: Numbers) -> Doubles:
    """The expected gain of an auction in which we pay our bid: (value − bid) · win_rate, CPM; 0 without a bid."""
    bid = double(bid_cpm)
    return np.asarray(np.where(bid > 0.0, (double(value_cpm) - bid) * double(win_rate), 0.0))


def optimal_bid_cpm(
    value_cpm: Numbers,
    curve: WinCurve,
    *,
    floor_cpm: Numbers = 0.0,
    cap_cpm: Numbers = np.inf,
    pacing_multiplier: Numbers = 1.0,
    auction_type: Numbers = AuctionType.FIRST_PRICE,
) -> Doubles:
    """The bid of greatest expected surplus for v = value · pacing_multiplier, shape (n,); 0.0 = no bid.

    First price (`auction_type` 1): the maximum of (v − b) F(b), raised to the floor, lowered to cap and v. Second
    price (2): v, lowered to the cap. No bid when v ≤ floor, cap < floor, or a number is NaN, negative or of an
    unknown auction type. Raises `DataError` only for shapes that do not broadcast to the curve's.

    >>> optimal_bid_cpm([2.0, 2.0], WinCurve(0.0, 2.0), floor_cpm=[0.0, 2.0]).round(4).tolist()
    [1.0, 0.0]
    """
    value, floor, cap, pacing, at, _ = aligned(
        value_cpm=value_cpm,
        floor_cpm=floor_cpm,
        cap_cpm=cap_cpm,
        pacing_multiplier=pacing_multiplier,
        auction_type=auction_type,
        curve=curve.location,
    )
    with np.errstate(invalid="ignore", over="ignore"):
        v = value * pacing
    with np.errstate(invalid="ignore"):
        # Every comparison is false on NaN.
        valid = (
            ((at == AuctionType.FIRST_PRICE) | (at == AuctionType.SECOND_PRICE))
            & (floor >= 0.0)
            & (value >= 0.0)
            & (pacing >= 0.0)
            & (v < np.inf)
            & (cap > 0.0)
            & (cap >= floor)
            & (v > floor)
        )
        v = np.where(valid, v, 1.0)
        optimum = np.where(at == AuctionType.SECOND_PRICE, v, first_price_optimum_cpm(v, curve))
        bid = np.minimum(np.maximum(optimum, floor), np.minimum(cap, v))
    return np.asarray(np.where(valid, bid, 0.0))


def first_price_optimum_cpm(value_cpm: Numbers, curve: WinCurve) -> Doubles:
    """argmax over b > 0 of (value − b) F(b), without floor and cap, shape (n,); `value_cpm` > 0 and finite."""
    m, k, gamma = curve.location, curve.shape, curve.gamma
    if curve.family is WinFamily.LOG_NORMAL:
        return log_normal_optimum_cpm(np.maximum(double(value_cpm), _SMALLEST_VALUE), m, k, gamma)
    gk = gamma * k
    ln_1_gk = np.log(1.0 + gk)
    d = k * (np.log(gk * np.maximum(double(value_cpm), _SMALLEST_VALUE)) - m) - (k + 1.0) * ln_1_gk
    y = np.where(d > 0.0, d / (k + 1.0), d)
    for _ in range(HALLEY_STEPS):
        s = sigmoid(y)
        f = y + k * softplus(y) - d
        f1 = 1.0 + k * s
        f2 = k * s * (1.0 - s)
        y = y - 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(m + (y + ln_1_gk) / k))
