"""The price as graph nodes: calibration, win curve, optimal bid.

The same operations in the same order as `native/price.h` and `pricing/bid.py`.
"""

from __future__ import annotations

from array import array
from math import inf
from typing import Final

from bidml.blueprint import Calibration, Knots, LocationUnit, WinBlueprint, WinFamily
from bidml.contract import (
    GOAL_INPUTS,
    HALLEY_STEPS,
    MAX_ABS_WIN_LOGIT,
    MAX_LOG_SLOPE,
    MAX_VARIANCE,
    MIN_LOG_SLOPE,
    MIN_VARIANCE,
    AuctionType,
)
from bidml.graph_log_normal import add_log_normal_cdf, add_log_normal_optimum
from bidml.graph_parts import GraphBuilder

CVR_CALIBRATION: Final = "cvr_calibration"
LOG_PRICE_NODE: Final = "win.shift_of_location"
"""Only curves whose `location_unit` is LOG_PRICE have a node of this name; the reader tells them by it."""


def calibrated(b: GraphBuilder, calibration: Calibration, log_odds: str, *, name: str = "calibration") -> str:
    """Adds `positive·ln σ(s) − negative·ln σ(−s) + shift`: affine for equal weights, nothing for identity; with knots,
    their broken line before the shift."""
    if calibration == Calibration():
        return log_odds
    found = _weighted(b, name, calibration, log_odds)
    if calibration.knots is not None:
        found = _bent(b, f"{name}.knots", calibration.knots, found)
    return b.add("Add", f"{name}.log_odds", found, b.number(f"{name}.shift", calibration.shift))


def _weighted(b: GraphBuilder, name: str, calibration: Calibration, log_odds: str) -> str:
    positive, negative = calibration.positive, calibration.negative
    if positive == negative:
        return b.add("Mul", f"{name}.scaled", b.number(f"{name}.positive", positive), log_odds)
    tail = b.add("Log", f"{name}.tail", _one_plus(b, name, _exp_minus_abs(b, name, log_odds)))
    minus = b.add("Neg", f"{name}.minus", log_odds)
    zero = b.constant(0.0)
    if_low = b.add("Max", f"{name}.if_low", minus, zero)
    if_high = b.add("Max", f"{name}.if_high", log_odds, zero)
    ln_p = b.add("Neg", f"{name}.ln_p", b.add("Add", f"{name}.minus_ln_p", if_low, tail))
    ln_q = b.add("Neg", f"{name}.ln_q", b.add("Add", f"{name}.minus_ln_q", if_high, tail))
    weighted_p = b.add("Mul", f"{name}.weighted_p", b.number(f"{name}.positive", positive), ln_p)
    weighted_q = b.add("Mul", f"{name}.weighted_q", b.number(f"{name}.negative", negative), ln_q)
    return b.add("Sub", f"{name}.weighted", weighted_p, weighted_q)


def _bent(b: GraphBuilder, name: str, knots: Knots, t: str) -> str:
    """All lines at t, (N, n_knots + 1), of which the one that holds there is kept: a sum of zeros and it, exactly."""
    x, y, slope = knots.lines
    begun = b.add("GreaterOrEqual", f"{name}.begun", t, b.row(f"{name}.start", array("d", [-inf]) + knots.x))
    open_ = b.add("Less", f"{name}.open", t, b.row(f"{name}.end", knots.x + array("d", [inf])))
    holds = b.add("And", f"{name}.holds", begun, open_)
    distance = b.add("Sub", f"{name}.distance", t, b.row(f"{name}.x", x))
    rise = b.add("Mul", f"{name}.rise", b.row(f"{name}.slope", slope), distance)
    line = b.add("Add", f"{name}.line", b.row(f"{name}.y", y), rise)
    kept = b.add("Where", f"{name}.kept", holds, line, b.constant(0.0))
    return b.add("MatMul", f"{name}.bent", kept, b.ones(f"{name}.ones", len(x)))


def add_sigmoid(b: GraphBuilder, x: str, *, name: str) -> str:
    """Adds σ(x). onnxruntime's Sigmoid computes 1 − 1/(1 + e) for x < 0, which loses small probabilities."""
    e = _exp_minus_abs(b, name, x)
    not_negative = b.add("GreaterOrEqual", f"{name}.not_negative", x, b.constant(0.0))
    top = b.add("Where", f"{name}.top", not_negative, b.constant(1.0), e)
    return b.add("Div", name, top, _one_plus(b, name, e))


def add_log_odds_sd(b: GraphBuilder, margin: str) -> None:
    """Adds pctr_log_odds_sd, the square root of the variance head's margin."""
    b.add("Sqrt", "pctr_log_odds_sd", _clipped(b, "variance.clamped", margin, MIN_VARIANCE, MAX_VARIANCE))


def add_cautious_pctr(b: GraphBuilder, log_odds: str) -> str:
    """Adds σ(s − risk_aversion · sd), the pctr that is priced: the predicted one for an aversion of 0."""
    taken_off = b.add("Mul", "price.risk", "risk_aversion", "pctr_log_odds_sd")
    add_sigmoid(b, b.add("Sub", "price.log_odds", log_odds, taken_off), name="price.pctr")
    return "price.pctr"


def add_win_curve(b: GraphBuilder, win: WinBlueprint, location: str, log_slope: str) -> None:
    """Adds win_shape k and win_location m; and the constant win.gamma."""
    b.number("win.gamma", win.gamma)
    beta = _clipped(b, "win.beta", location, -MAX_ABS_WIN_LOGIT, MAX_ABS_WIN_LOGIT)
    a = _clipped(b, "win.a", log_slope, MIN_LOG_SLOPE, MAX_LOG_SLOPE)
    slope_scale = b.number("win.slope_scale", win.slope_scale)
    k = b.add("Mul", "win_shape", slope_scale, b.add("Exp", "win.exp_a", a))
    if win.location_unit is LocationUnit.LOG_PRICE:
        shift = b.add("Div", LOG_PRICE_NODE, b.number("win.logit_shift", win.logit_shift), k)
        distance = b.add("Add", "win.distance", beta, shift)
    else:
        scaled = b.add("Mul", "win.scaled", slope_scale, beta)
        logit = b.add("Add", "win.logit", scaled, b.number("win.logit_shift", win.logit_shift))
        distance = b.add("Div", "win.distance", logit, k)
    reference = b.number("win.reference_log_bid_cpm", win.reference_log_bid_cpm)
    b.add("Sub", "win_location", reference, distance)


def add_price(b: GraphBuilder, *, gamma: str, family: WinFamily, pctr: str, amounts: tuple[str, ...]) -> None:
    """Adds bid_cpm and win_rate, from `pctr`, win_location, win_shape and the price inputs; never NaN.

    `amounts`: the inputs beside those of every model, none below 0. With `GOAL_INPUTS` pcvr has a value too.
    """
    zero = b.constant(0.0)
    per_mille = b.add("Mul", "price.pctr_per_mille", b.constant(1000.0), pctr)
    if set(GOAL_INPUTS) <= set(amounts):
        by_conversions = b.add("Mul", "price.value_by_conversions", "pcvr", "value_per_conversion")
        of_click = b.add("Add", "price.value_of_click", "value_per_click", by_conversions)
        by_clicks = b.add("Mul", "price.value_by_clicks_cpm", per_mille, of_click)
        value_cpm = b.add("Add", "price.value_cpm", "value_per_impression_cpm", by_clicks)
    else:
        value_cpm = b.add("Mul", "price.value_cpm", per_mille, "value_per_click")
    v = b.add("Mul", "price.v", value_cpm, "pacing_multiplier")
    is_log_normal = family is WinFamily.LOG_NORMAL
    optimum = (add_log_normal_optimum if is_log_normal else _first_price_optimum)(b, gamma, v)
    ceiling = b.add("Min", "price.ceiling", "cap_cpm", v)
    raised = b.add("Max", "price.raised", optimum, "floor_cpm")
    first_price = b.add("Min", "price.first_price", raised, ceiling)
    is_first = b.add("Equal", "price.is_first", "auction_type", b.constant(float(AuctionType.FIRST_PRICE)))
    is_second = b.add("Equal", "price.is_second", "auction_type", b.constant(float(AuctionType.SECOND_PRICE)))
    bid = b.add("Where", "price.bid", is_first, first_price, ceiling)
    # Every comparison is false on NaN.
    valid = b.add("Or", "price.known_auction", is_first, is_second)
    for name, op, left, right in (
        *((f"{amount}_is_number", "GreaterOrEqual", amount, zero) for amount in amounts),
        ("floor_is_number", "GreaterOrEqual", "floor_cpm", zero),
        ("value_is_number", "GreaterOrEqual", "value_per_click", zero),
        ("pacing_is_number", "GreaterOrEqual", "pacing_multiplier", zero),
        ("value_is_finite", "Less", v, b.constant(float("inf"))),
        ("cap_is_positive", "Greater", "cap_cpm", zero),
        ("cap_above_floor", "GreaterOrEqual", "cap_cpm", "floor_cpm"),
        ("value_above_floor", "Greater", v, "floor_cpm"),
        ("bid_is_positive", "Greater", bid, zero),
    ):
        valid = b.add("And", f"price.valid.{name}", valid, b.add(op, f"price.{name}", left, right))
    b.add("Where", "bid_cpm", valid, bid, zero)
    ln_bid = b.add("Log", "price.ln_bid", b.add("Where", "price.bid_or_1", valid, bid, b.constant(1.0)))
    z = b.add("Mul", "price.z", "win_shape", b.add("Sub", "price.ln_ratio", ln_bid, "win_location"))
    if is_log_normal:
        exponent = b.add("Mul", "price.ln_win_rate", gamma, add_log_normal_cdf(b, "price.win", z))
    else:
        softplus = _softplus(b, "price.win", b.add("Neg", "price.minus_z", z))
        exponent = b.add("Neg", "price.ln_win_rate", b.add("Mul", "price.minus_ln_win_rate", gamma, softplus))
    b.add("Where", "win_rate", valid, b.add("Exp", "price.win_rate", exponent), zero)


def _first_price_optimum(b: GraphBuilder, gamma: str, v: str) -> str:
    """argmax (v − b) F(b): y + k softplus(y) = d by Halley's method, b = exp(m + (y + ln(1 + γk)) / k)."""
    k, one = "win_shape", b.constant(1.0)
    gk = b.add("Mul", "price.gk", gamma, k)
    ln_1_gk = b.add("Log", "price.ln_1_gk", b.add("Add", "price.1_gk", one, gk))
    positive_v = b.add("Max", "price.positive_v", v, b.constant(1e-300))
    ln_gkv = b.add("Log", "price.ln_gkv", b.add("Mul", "price.gkv", gk, positive_v))
    gain = b.add("Mul", "price.gain", k, b.add("Sub", "price.ln_gkv_m", ln_gkv, "win_location"))
    k_1 = b.add("Add", "price.k_1", k, one)
    d = b.add("Sub", "price.d", gain, b.add("Mul", "price.loss", k_1, ln_1_gk))
    is_high = b.add("Greater", "price.d_is_positive", d, b.constant(0.0))
    y = b.add("Where", "price.y.0", is_high, b.add("Div", "price.d_k_1", d, k_1), d)
    for step in range(1, HALLEY_STEPS + 1):
        y = _halley_step(b, f"price.halley.{step}", y, d, next_y=f"price.y.{step}")
    root = b.add("Div", "price.root_k", b.add("Add", "price.root", y, ln_1_gk), k)
    return b.add("Exp", "price.optimum", b.add("Add", "price.ln_optimum", "win_location", root))


def _halley_step(b: GraphBuilder, name: str, y: str, d: str, *, next_y: str) -> str:
    """y − 2 f f' / (2 f'² − f f''), for f = y + k softplus(y) − d, f' = 1 + kσ, f'' = kσ(1 − σ)."""
    k, zero, one, two = "win_shape", b.constant(0.0), b.constant(1.0), b.constant(2.0)
    e = _exp_minus_abs(b, name, y)
    one_e = _one_plus(b, name, e)
    not_negative = b.add("GreaterOrEqual", f"{name}.not_negative", y, zero)
    sigma = b.add("Div", f"{name}.sigma", b.add("Where", f"{name}.top", not_negative, one, e), one_e)
    tail = b.add("Log", f"{name}.tail", one_e)
    softplus = b.add("Add", f"{name}.softplus", b.add("Max", f"{name}.linear", y, zero), tail)
    left = b.add("Add", f"{name}.left", y, b.add("Mul", f"{name}.k_softplus", k, softplus))
    f = b.add("Sub", f"{name}.f", left, d)
    k_sigma = b.add("Mul", f"{name}.k_sigma", k, sigma)
    f1 = b.add("Add", f"{name}.f1", one, k_sigma)
    f2 = b.add("Mul", f"{name}.f2", k_sigma, b.add("Sub", f"{name}.1_sigma", one, sigma))
    top = b.add("Mul", f"{name}.2_f_f1", b.add("Mul", f"{name}.2_f", two, f), f1)
    square = b.add("Mul", f"{name}.2_f1_f1", b.add("Mul", f"{name}.2_f1", two, f1), f1)
    bottom = b.add("Sub", f"{name}.bottom", square, b.add("Mul", f"{name}.f_f2", f, f2))
    return b.add("Sub", next_y, y, b.add("Div", f"{name}.step", top, bottom))


def _exp_minus_abs(b: GraphBuilder, name: str, x: str) -> str:
    return b.add("Exp", f"{name}.e", b.add("Neg", f"{name}.minus_abs", b.add("Abs", f"{name}.abs", x)))


def _one_plus(b: GraphBuilder, name: str, e: str) -> str:
    return b.add("Add", f"{name}.1_e", b.constant(1.0), e)


def _softplus(b: GraphBuilder, name: str, x: str) -> str:
    tail = b.add("Log", f"{name}.tail", _one_plus(b, name, _exp_minus_abs(b, name, x)))
    return b.add("Add", f"{name}.softplus", b.add("Max", f"{name}.linear", x, b.constant(0.0)), tail)


def _clipped(b: GraphBuilder, name: str, x: str, low: float, high: float) -> str:
    return b.add("Min", name, b.add("Max", f"{name}.raised", x, b.constant(low)), b.constant(high))
