"""A blueprint evaluated the obvious way: plain Python, one row at a time, in the order of the formulas.

The oracle that certificates are measured against, and the only evaluation that uses neither an array library
nor a compiled engine of ours. Standard library only; slow.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from math import exp, inf, isnan, log, nan, sqrt
from typing import Any

from bidml.blueprint import (
    LIGHTGBM_ZERO,
    Blueprint,
    Calibration,
    Column,
    CrossLookup,
    Head,
    Knots,
    LocationUnit,
    Lookup,
    NodeMode,
    Rewrite,
    Trees,
    Vocabulary,
    WinBlueprint,
    WinFamily,
)
from bidml.contract import (
    GOAL_INPUTS,
    HALLEY_STEPS,
    MAX_ABS_WIN_LOGIT,
    MAX_LOG_SLOPE,
    MAX_VARIANCE,
    MIN_LOG_SLOPE,
    MIN_VARIANCE,
    PRICE_INPUTS,
)
from bidml.metadata import expected_names
from bidml.oracle_log_normal import log_normal_cdf, log_normal_optimum

Row = Mapping[str, Any]


def evaluate(blueprint: Blueprint, columns: Mapping[str, Sequence[Any]]) -> dict[str, array[float]]:
    """Every margin and output, (n_rows,) each, of raw columns by input name (text, or doubles)."""
    score = row_function(blueprint)
    names = expected_names(blueprint)
    found = {name: array("d") for name in names}
    for cells in zip(*columns.values(), strict=True):
        row = score(dict(zip(columns, cells, strict=True)))
        for name in names:
            found[name].append(row[name])
    return found


def row_function(blueprint: Blueprint) -> Callable[[Row], dict[str, float]]:
    """A function from one row to its margins and outputs."""
    ctr, cvr, win = blueprint.ctr, blueprint.cvr, blueprint.win
    ctr_margin = None if ctr is None else head_function(ctr.head)
    variance = None if ctr is None or ctr.variance is None else head_function(ctr.variance)
    cvr_margin = None if cvr is None else head_function(cvr.head)
    location = None if win is None else head_function(win.location)
    log_slope = None if win is None else head_function(win.log_slope)

    def score(row: Row) -> dict[str, float]:
        found: dict[str, float] = {}
        if ctr is not None and ctr_margin is not None:
            found["ctr_margin"] = ctr_margin(row)
            log_odds = calibrated(ctr.calibration, found["ctr_margin"])
            found["pctr"] = sigmoid(log_odds)
        if variance is not None:
            found["variance_margin"] = variance(row)
            found["pctr_log_odds_sd"] = log_odds_sd(found["variance_margin"])
        if cvr is not None and cvr_margin is not None:
            found["cvr_margin"] = cvr_margin(row)
            found["pcvr"] = sigmoid(calibrated(cvr.calibration, found["cvr_margin"]))
        if win is not None and location is not None and log_slope is not None:
            found["location_margin"] = location(row)
            found["log_slope_margin"] = log_slope(row)
            m, k = win_curve(win, found["location_margin"], found["log_slope_margin"])
            found["win_location"], found["win_shape"] = m, k
            if ctr is not None:
                inputs = [row[name] for name in PRICE_INPUTS]
                if cvr is not None:
                    inputs += [found["pcvr"], *(row[name] for name in GOAL_INPUTS)]
                priced, is_valid = found["pctr"], True
                if variance is not None:
                    aversion = row["risk_aversion"]
                    priced, is_valid = (
                        sigmoid(log_odds - aversion * found["pctr_log_odds_sd"]),
                        aversion >= 0.0,
                    )
                bid = _price(priced, m, k, win.gamma, *inputs, family=win.family) if is_valid else (0.0, 0.0)
                found["bid_cpm"], found["win_rate"] = bid
        return found

    return score


def head_function(head: Head) -> Callable[[Row], float]:
    """A function from one row of raw features to the head's margin."""
    readers = [_column_function(column) for column in head.columns]
    terms = [_lookup_function(term) for term in head.terms]
    tree_sum = None if head.trees is None else tree_function(head.trees)

    def margin(row: Row) -> float:
        total = 0.0 if tree_sum is None else tree_sum([read(row) for read in readers])
        total = total / head.divisor * head.scale + head.intercept
        for term in terms:
            total += term(row)
        return total

    return margin


def tree_function(trees: Trees) -> Callable[[Sequence[float]], float]:
    """A function from the trees' inputs, (n_columns,), to the sum of the leaves, first tree first."""
    sets = _sets(trees)
    nodes = list(
        zip(
            trees.column,
            trees.threshold,
            sets,
            trees.missing_true,
            zip(trees.true_child, trees.true_is_leaf, strict=True),
            zip(trees.false_child, trees.false_is_leaf, strict=True),
            strict=True,
        )
    )
    leaves, roots = list(trees.leaf), list(trees.roots)

    def tree_sum(x: Sequence[float]) -> float:
        total = 0.0
        for i in roots:
            is_leaf = 0
            while not is_leaf:
                column, threshold, members, missing_true, if_true, if_false = nodes[i]
                value = x[column]
                if isnan(value):
                    goes_true = bool(missing_true)
                elif members is None:
                    goes_true = value <= threshold
                else:
                    goes_true = value in members
                i, is_leaf = if_true if goes_true else if_false
            total += leaves[i]
        return total

    return tree_sum


def _sets(trees: Trees) -> list[frozenset[float] | None]:
    """Per node its set, None for LEQ."""
    members = iter(trees.membership)
    return [
        frozenset(iter(lambda: _none_at_nan(next(members)), None)) if mode == NodeMode.MEMBER else None
        for mode in trees.mode
    ]


def _none_at_nan(x: float) -> Any:
    return None if isnan(x) else x


def _column_function(column: Column) -> Callable[[Row], float]:
    feature, rewrite = column.feature, column.rewrite
    raw = (lambda row: row[feature]) if column.lookup is None else _lookup_function(column.lookup)
    if rewrite is Rewrite.ZERO_IS_MISSING:
        return lambda row: nan if abs(raw(row)) <= LIGHTGBM_ZERO else raw(row)
    if rewrite is Rewrite.TRUNCATE:
        return lambda row: truncated(raw(row))
    return raw


def truncated(x: float) -> float:
    return float(math.trunc(x)) if math.isfinite(x) else x


def _lookup_function(lookup: Lookup | CrossLookup) -> Callable[[Row], float]:
    default = lookup.default
    if isinstance(lookup, Lookup):
        feature = lookup.feature
        values = dict(zip(lookup.keys, lookup.values, strict=True))
        return lambda row: values.get(row[feature], default)
    first, second = _number_function(lookup.first), _number_function(lookup.second)
    n = lookup.second.n_numbers
    of_pair = dict(zip(map(int, lookup.codes), lookup.values, strict=True))
    return lambda row: of_pair.get(first(row) * n + second(row), default)


def _number_function(vocabulary: Vocabulary) -> Callable[[Row], int]:
    feature, other = vocabulary.feature, len(vocabulary.keys)
    numbers = {key: i for i, key in enumerate(vocabulary.keys)}
    return lambda row: numbers.get(row[feature], other)


def sigmoid(x: float) -> float:
    e = exp(-abs(x))
    return (1.0 if x >= 0.0 else e) / (1.0 + e)


def log_odds_sd(variance_margin: float) -> float:
    return sqrt(min(max(variance_margin, MIN_VARIANCE), MAX_VARIANCE))


def _softplus(x: float) -> float:
    return max(x, 0.0) + log(1.0 + exp(-abs(x)))


def calibrated(calibration: Calibration, s: float) -> float:
    positive, negative, shift = calibration.positive, calibration.negative, calibration.shift
    if (positive, negative, shift, calibration.knots) == (1.0, 1.0, 0.0, None):
        return s
    t = positive * s if positive == negative else positive * -_softplus(-s) - negative * -_softplus(s)
    return (t if calibration.knots is None else _bent(calibration.knots, t)) + shift


def _bent(knots: Knots, t: float) -> float:
    line = bisect_right(knots.x, t)
    x, y, slope = (values[line] for values in knots.lines)
    return y + slope * (t - x)


def win_curve(win: WinBlueprint, location: float, log_slope: float) -> tuple[float, float]:
    beta = min(max(location, -MAX_ABS_WIN_LOGIT), MAX_ABS_WIN_LOGIT)
    k = win.slope_scale * exp(min(max(log_slope, MIN_LOG_SLOPE), MAX_LOG_SLOPE))
    if win.location_unit is LocationUnit.LOG_PRICE:
        return win.reference_log_bid_cpm - (beta + win.logit_shift / k), k
    return win.reference_log_bid_cpm - (win.slope_scale * beta + win.logit_shift) / k, k


def _price(
    pctr: float, m: float, k: float, gamma: float,
    value_per_click: float, floor_cpm: float, cap_cpm: float, pacing_multiplier: float, auction_type: float,
    pcvr: float = 0.0, value_per_conversion: float = 0.0, value_per_impression_cpm: float = 0.0,
    *, family: WinFamily = WinFamily.LOG_LOGISTIC,
) -> tuple[float, float]:  # fmt: skip
    """(bid_cpm, win_rate); (0, 0) where there is no valid bid. Every comparison is false on NaN."""
    of_click = value_per_click + pcvr * value_per_conversion
    v = (value_per_impression_cpm + 1000.0 * pctr * of_click) * pacing_multiplier
    if not (
        auction_type in (1.0, 2.0)
        and floor_cpm >= 0.0
        and value_per_click >= 0.0
        and value_per_conversion >= 0.0
        and value_per_impression_cpm >= 0.0
        and pacing_multiplier >= 0.0
        and v < inf
        and cap_cpm > 0.0
        and cap_cpm >= floor_cpm
        and v > floor_cpm
    ):
        return 0.0, 0.0
    bid = min(cap_cpm, v)
    if auction_type == 1.0:
        optimum = log_normal_optimum if family is WinFamily.LOG_NORMAL else _first_price_optimum
        bid = min(max(optimum(v, m, k, gamma), floor_cpm), bid)
    if not bid > 0.0:
        return 0.0, 0.0
    z = k * (log(bid) - m)
    if family is WinFamily.LOG_NORMAL:
        return bid, exp(gamma * log_normal_cdf(z))
    return bid, exp(-(gamma * _softplus(-z)))


def _first_price_optimum(v: float, m: float, k: float, gamma: float) -> float:
    ln_1_gk = log(1.0 + gamma * k)
    d = k * (log(gamma * k * max(v, 1e-300)) - m) - (k + 1.0) * ln_1_gk
    y = d / (k + 1.0) if d > 0.0 else d
    for _ in range(HALLEY_STEPS):
        s = sigmoid(y)
        f = y + k * _softplus(y) - d
        f1 = 1.0 + k * s
        f2 = k * s * (1.0 - s)
        y -= 2.0 * f * f1 / (2.0 * f1 * f1 - f * f2)
    try:
        return exp(m + (y + ln_1_gk) / k)
    except OverflowError:
        return inf
