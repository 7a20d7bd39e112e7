"""The price: value, win curve, optimal bid, surplus; the vectorised NumPy reference.

A bid b wins with probability F(b) = σ(z)^γ, z = k (ln b − m): a log-logistic market price with median e^m and slope
k, bent by a Dagum exponent γ (1: none). In a first-price auction the bid maximises (v − b) F(b) on [floor, min(cap,
v)]. ln F is concave in b, so the surplus has one maximum and clipping to the bounds is exact (SCIENCE.md 3.1). With
y = k ln(b/θ) − ln(1 + γk) it is the root of

    y + k softplus(y) = d,    d = k (ln(γ k v) − m) − (k + 1) ln(1 + γk)

found by Halley steps from an upper bound. `native/price.h`, the ONNX graph and `bidml.oracle` are its twins, held
together to 1e-12 relative by tests. Like them, `optimal_bid_cpm` never raises on numbers and never returns NaN: what
is not a valid auction gets 0.0, which means no bid.

Prices are CPM, one currency. Everything broadcasts; arrays are float64 of shape (n,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bidml.contract import HALLEY_STEPS, AuctionType
from bidml.errors import ConfigError, DataError
from bidml.units import IMPRESSIONS_PER_CPM

Doubles: TypeAlias = npt.NDArray[np.float64]
Numbers: TypeAlias = npt.ArrayLike

_SMALLEST_VALUE = 1e-300  # keeps ln v finite; the twins use the same


@dataclass(frozen=True, slots=True, eq=False)
class WinCurve:
    """The distribution of the market price, one per auction: F(b) = σ(shape · (ln b − location))^gamma.

    `location` is ln CPM, `shape` > 0 the slope of the log-odds of winning in ln b, `gamma` > 0. Each broadcasts to
    (n,). Raises `DataError` for NaN, infinite or non-positive parameters.

    >>> curve = WinCurve(location=[0.0, 1.0], shape=2.0)
    >>> curve.win_rate([1.0, 1.0]).round(3).tolist()
    [0.5, 0.119]
    """

    location: Doubles
    shape: Doubles
    gamma: Doubles

    def __init__(self, location: Numbers, shape: Numbers, gamma: Numbers = 1.0) -> None:
        m, k, g = _aligned(location=location, shape=shape, gamma=gamma)
        for name, numbers, valid in (
            ("location", m, np.isfinite(m)),
            ("shape", k, np.isfinite(k) & (k > 0.0)),
            ("gamma", g, np.isfinite(g) & (g > 0.0)),
        ):
            if not valid.all():
                raise DataError(
                    f"the {name} of a win curve is finite" + (" and above 0" if name != "location" else ""),
                    value=float(numbers[~valid][0]),
                    remedy="look at the model that predicted it",
                )
        for name, numbers in (("location", m), ("shape", k), ("gamma", g)):
            object.__setattr__(self, name, numbers)

    def __len__(self) -> int:
        return len(self.location)

    def __getitem__(self, rows: Any) -> WinCurve:
        """The curves of some rows: a slice, a mask or indices."""
        return WinCurve(self.location[rows], self.shape[rows], self.gamma[rows])

    def log_win_rate(self, bid_cpm: Numbers) -> Doubles:
        """ln F(b), (n,); −inf for a bid of 0. A negative or NaN bid gives NaN."""
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.shape * (np.log(_double(bid_cpm)) - self.location)
        return -(self.gamma * _softplus(-z))

    def win_rate(self, bid_cpm: Numbers) -> Doubles:
        """F(b), (n,): the probability that a bid of `bid_cpm` wins; 0 for a bid of 0."""
        return np.asarray(np.exp(self.log_win_rate(bid_cpm)))

    def density(self, bid_cpm: Numbers) -> Doubles:
        """f(b) = F'(b), (n,), per CPM; for b > 0."""
        b = _double(bid_cpm)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = self.shape * (np.log(b) - self.location)
            return self.win_rate(b) * self.gamma * self.shape * _sigmoid(-z) / b

    def quantile_cpm(self, win_rate: Numbers) -> Doubles:
        """The bid that wins with probability `win_rate` in (0, 1), (n,): the inverse of `win_rate`."""
        ln_p = np.log(_double(win_rate)) / self.gamma
        logit = ln_p - np.log(-np.expm1(ln_p))
        return np.asarray(np.exp(self.location + logit / self.shape))


def value_cpm(pctr: Numbers, value_per_click: Numbers, margin: Numbers = 0.0) -> Doubles:
    """What an impression is worth: 1000 · pctr · value_per_click · (1 − margin), CPM.

    The margin is taken off the value per click first, as a line item of the scorer does.

    >>> value_cpm(0.01, 0.5, margin=0.2).round(9).tolist()
    4.0
    """
    worth = _double(value_per_click) * (1.0 - _double(margin))
    return np.asarray(float(IMPRESSIONS_PER_CPM) * _double(pctr) * worth)


def surplus_cpm(value_cpm: Numbers, bid_cpm: Numbers, win_rate: Numbers) -> Doubles:
    """The expected gain of an auction in which we pay our bid: (value − bid) · win_rate, CPM; 0 without a bid."""
    bid = _double(bid_cpm)
    return np.asarray(np.where(bid > 0.0, (_double(value_cpm) - bid) * _double(win_rate), 0.0))


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
    value, floor, cap, pacing, at, _ = _aligned(
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
    gk = gamma * k
    ln_1_gk = np.log(1.0 + gk)
    d = k * (np.log(gk * np.maximum(_double(value_cpm), _SMALLEST_VALUE)) - m) - (k + 1.0) * ln_1_gk
    y = np.where(d > 0.0, d / (k + 1.0), d)
    for _ in range(HALLEY_STEPS):
        s = _sigmoid(y)
        f = y + k * _softplus(y) - d
        f1 = 1.0 + k * s
        f2 = k * s * (1.0 - s)
        y = y - 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2)
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(m + (y + ln_1_gk) / k))


def _aligned(**arguments: Numbers) -> tuple[Doubles, ...]:
    """The arguments as doubles of one shape (n,); a scalar becomes (1,) when all are scalars."""
    arrays = {name: np.atleast_1d(_double(numbers)) for name, numbers in arguments.items()}
    try:
        return tuple(np.broadcast_arrays(*arrays.values()))
    except ValueError:
        raise DataError(
            "prices and curves have one row per auction, or one for all",
            value={name: array.shape for name, array in arrays.items()},
            remedy="align the arrays to shape (n,)",
        ) from None


def _double(numbers: Numbers) -> Doubles:
    try:
        return np.asarray(numbers, dtype=np.float64)
    except (TypeError, ValueError):
        raise ConfigError("prices and rates are numbers", value=numbers, remedy="convert them") from None


def _sigmoid(x: Doubles) -> Doubles:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0.0, 1.0, e) / (1.0 + e))


def _softplus(x: Doubles) -> Doubles:
    return np.asarray(np.maximum(x, 0.0) + np.log(1.0 + np.exp(-np.abs(x))))
