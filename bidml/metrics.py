"""How good a probability is: log loss, ranking, calibration, and what miscalibration costs.

Arrays in, floats out; every array has shape (n,). Outcomes are 0 or 1 (flags will do; log loss and calibration also
take expected outcomes between). Functions named `*_from_log_odds` take s = ln(p / (1 − p)) and are exact where p
itself has lost its digits: 1 − p at p = 1e-8, or p near 1. Nothing is clipped: certainty that was wrong costs infinity.

Raises `DataError` for unequal lengths, an empty sample, NaN, a value out of range, or an outcome without variation
where the metric needs some.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from bidml.errors import DataError

Doubles: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the two-sided confidence interval around it."""

    value: float
    low: float
    high: float

    def __contains__(self, x: float) -> bool:
        return self.low <= x <= self.high


def log_loss(y: npt.ArrayLike, p: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> float:
    """−mean(y ln p + (1 − y) ln(1 − p)), in nats; ≥ 0, lower is better; infinite for a certain error.

    >>> round(log_loss([1, 0], [0.5, 0.5]), 6)
    0.693147
    """
    y, p, w = _checked(y, p, sample_weight, low=0.0, high=1.0)
    return _mean(-(special.xlogy(y, p) + special.xlog1py(1.0 - y, -p)), w)


def log_loss_from_log_odds(
    y: npt.ArrayLike, log_odds: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """`log_loss` of p = σ(s): mean(ln(1 + eˢ) − y s).

    >>> round(log_loss_from_log_odds([1, 0], [0.0, -18.420680734])  # p = 1e-8
    ...       - log_loss([1, 0], [0.5, 1e-8]), 12)
    0.0
    """
    y, s, w = _checked(y, log_odds, sample_weight)
    return _mean(np.logaddexp(0.0, s) - y * s, w)


def base_rate_entropy(y: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None) -> float:
    """The log loss of always saying the base rate ȳ: −ȳ ln ȳ − (1 − ȳ) ln(1 − ȳ), in nats."""
    y, _, w = _checked(y, y, sample_weight)
    rate = float(np.average(y, weights=w))
    return float(-(special.xlogy(rate, rate) + special.xlog1py(1.0 - rate, -rate)))


def normalized_entropy(
    y: npt.ArrayLike, p: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """log loss / entropy of the base rate; 1 is no better than the base rate, lower is better (He et al. 2014).

    >>> normalized_entropy([1, 0, 0, 0], [0.25] * 4)
    1.0
    """
    return log_loss(y, p, sample_weight=sample_weight) / _positive_entropy(y, sample_weight)


def normalized_entropy_from_log_odds(
    y: npt.ArrayLike, log_odds: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """`normalized_entropy` of p = σ(s)."""
    loss = log_loss_from_log_odds(y, log_odds, sample_weight=sample_weight)
    return loss / _positive_entropy(y, sample_weight)


def relative_information_gain(
    y: npt.ArrayLike, p: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """1 − normalized entropy: the share of the base rate's entropy explained; higher is better, may be negative."""
    return 1.0 - normalized_entropy(y, p, sample_weight=sample_weight)


def calibration_ratio(
    y: npt.ArrayLike, p: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Σp / Σy: above 1 over-predicts, below 1 under-predicts.

    >>> calibration_ratio([1, 0, 0, 0], [0.25, 0.25, 0.5, 0.25])
    1.25
    """
    y, p, w = _checked(y, p, sample_weight, low=0.0, high=1.0)
    observed = _sum(y, w)
    _demand_events(observed)
    return _sum(p, w) / observed


def calibration_ratio_interval(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    *,
    sample_weight: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """`calibration_ratio` with the exact Poisson interval of the number of events (Garwood 1936).

    The events are the only noise: `(Σp / upper, Σp / lower)`. Without an event the ratio and its upper end are
    infinite. Weighted events count as (Σw)² / Σw² equal ones (Kish).

    >>> found = calibration_ratio_interval([1] * 100 + [0] * 900, [0.1] * 1000)
    >>> f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    '1.000 [0.822, 1.229]'
    """
    y, p, w = _checked(y, p, sample_weight, low=0.0, high=1.0)
    predicted, observed = _sum(p, w), _sum(y, w)
    if w is None or observed == 0.0:
        return _ratio_interval(predicted, observed, confidence)
    n_events = observed**2 / float((y * w**2).sum())
    return _ratio_interval(predicted / observed * n_events, n_events, confidence)


def auc(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """P(score of an event > score of a non-event), ties counting half (Mann–Whitney); 0.5 is chance.

    `score` is any increasing function of p: probability or log-odds.

    >>> auc([0, 1, 0, 1], [1.0, 2.0, 2.0, 3.0])
    0.875
    """
    return auc_interval(y, score).value


def auc_interval(y: npt.ArrayLike, score: npt.ArrayLike, *, confidence: float = 0.95) -> Interval:
    """`auc` with DeLong's interval (1988; in O(n log n) by mid-ranks, Sun & Xu 2014), cut to [0, 1]."""
    y, score, _ = _checked(y, score, None)
    event = _flags(y)
    n1, n0 = int(event.sum()), int((~event).sum())
    if not n1 or not n0:
        raise DataError(
            "a ranking is judged on events and non-events",
            value={"events": n1, "others": n0},
            remedy="give both",
        )
    ranks = stats.rankdata(score)
    # the share of the other class that each score beats
    of_events = (ranks[event] - stats.rankdata(score[event])) / n0
    of_others = 1.0 - (ranks[~event] - stats.rankdata(score[~event])) / n1
    value = float(of_events.mean())
    variance = (of_events.var(ddof=1) / n1 if n1 > 1 else 0.25) + (
        of_others.var(ddof=1) / n0 if n0 > 1 else 0.25
    )
    half = float(stats.norm.ppf(0.5 + confidence / 2.0)) * sqrt(float(variance))
    return Interval(value, max(0.0, value - half), min(1.0, value + half))


def pr_auc(y: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Average precision: Σ (recall step) · precision over the distinct scores, from the highest; chance is ȳ.

    No interpolation between points; tied scores enter together.

    >>> round(pr_auc([0, 1, 0, 1], [1.0, 2.0, 2.0, 3.0]), 6)
    0.833333
    """
    y, score, _ = _checked(y, score, None)
    event = _flags(y)
    _demand_events(float(event.sum()))
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(score[order]) != 0.0, True))
    hits = np.cumsum(event[order])[last_of_tie]
    precision = hits / (last_of_tie + 1.0)
    recall_step = np.diff(hits, prepend=0) / hits[-1]
    return float((recall_step * precision).sum())


def expected_calibration_error(
    y: npt.ArrayLike, p: npt.ArrayLike, *, n_bins: int = 20, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Σ_bins |Σp − Σy| / Σy over bins of equal numbers of rows: relative to the events, so that 1 % of clicks at a
    base rate of 0.1 % and of 10 % weigh alike. Equal p share a bin. ≥ 0, lower is better.

    >>> expected_calibration_error([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5])
    0.0
    """
    y, p, w = _checked(y, p, sample_weight, low=0.0, high=1.0)
    edges = np.unique(np.quantile(p, np.arange(1, n_bins) / n_bins))
    return _grouped_error(y, p, w, np.searchsorted(edges, p, side="left"))


def field_calibration_error(
    y: npt.ArrayLike, p: npt.ArrayLike, segment: Any, *, sample_weight: npt.ArrayLike | None = None
) -> float:
    """Σ_segments |Σp − Σy| / Σy: `expected_calibration_error` over the values of a field (Pan et al. 2020)."""
    y, p, w = _checked(y, p, sample_weight, low=0.0, high=1.0)
    codes, _ = pd.factorize(_segments(segment, len(y)), use_na_sentinel=False)
    return _grouped_error(y, p, w, codes)


def calibration_by_segment(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    segment: Any,
    *,
    value_per_event: npt.ArrayLike = 1.0,
    confidence: float = 0.95,
    tolerance: float = 0.1,
) -> pd.DataFrame:
    """Which segment is off, and by how much money; the costliest first.

    `segment` (n,): a category per row, null being one. `value_per_event`: a number or (n,), currency per click (or
    conversion). One row per segment: `n_rows`, `events`, `predicted` (Σp), `calibration_ratio` with its exact Poisson
    interval `low`, `high`; `misvalued` = Σ (p − y) · value_per_event, in currency: above 0 we overpay for the segment,
    below 0 we miss it; `misvalued_low`, `misvalued_high` its Poisson interval; `is_off`: the interval of the ratio
    lies wholly outside 1 ± tolerance, so that chance does not explain it.

    >>> table = calibration_by_segment([1, 0] * 200, [0.9] * 400, ["a"] * 400, value_per_event=2.0)
    >>> bool(table.is_off["a"]), round(float(table.misvalued["a"]), 1)
    (True, 320.0)
    """
    y, p, _ = _checked(y, p, None, low=0.0, high=1.0)
    value = np.broadcast_to(np.asarray(value_per_event, dtype=np.float64), y.shape)
    if not np.isfinite(value).all():
        raise DataError("a value per event is a finite amount", value="NaN or infinity", remedy="fill it in")
    cells = pd.Series(_segments(segment, len(y)))
    rows = pd.DataFrame({"events": y, "predicted": p, "worth": y * value, "bought": p * value})
    table = rows.groupby(cells.to_numpy(), dropna=False, sort=True).sum()
    table.insert(0, "n_rows", rows.groupby(cells.to_numpy(), dropna=False, sort=True).size())
    intervals = [
        _ratio_interval(predicted, events, confidence)
        for predicted, events in zip(table["predicted"], table["events"], strict=True)
    ]
    table["calibration_ratio"] = [interval.value for interval in intervals]
    table["low"] = [interval.low for interval in intervals]
    table["high"] = [interval.high for interval in intervals]
    table["misvalued"] = table["bought"] - table["worth"]
    # the bounds of the number of events, at the segment's own worth of an event (its offer's, where none was seen)
    per_event = np.where(
        table["events"] > 0.0, table["worth"] / table["events"], table["bought"] / table["predicted"]
    )
    fewest, most = _poisson_bounds(table["events"].to_numpy(), confidence)
    table["misvalued_low"] = table["bought"] - most * per_event
    table["misvalued_high"] = table["bought"] - fewest * per_event
    table["is_off"] = (table["low"] > 1.0 + tolerance) | (table["high"] < 1.0 - tolerance)
    table.index.name = "segment"
    order = np.argsort(-table["misvalued"].abs().to_numpy(), kind="stable")
    return table.drop(columns=["worth", "bought"]).iloc[order]


def _poisson_bounds(events: Any, confidence: float) -> tuple[Any, Any]:
    tail = (1.0 - confidence) / 2.0
    n = np.asarray(events, dtype=np.float64)
    low = np.where(n > 0.0, special.gammaincinv(np.maximum(n, 1e-300), tail), 0.0)
    return low, special.gammaincinv(n + 1.0, 1.0 - tail)


def _ratio_interval(predicted: float, events: float, confidence: float) -> Interval:
    fewest, most = (float(bound) for bound in _poisson_bounds(events, confidence))
    infinite = np.inf if predicted > 0.0 else np.nan
    return Interval(
        predicted / events if events > 0.0 else infinite,
        predicted / most,
        predicted / fewest if fewest > 0.0 else np.inf,
    )


def _grouped_error(y: Doubles, p: Doubles, w: Doubles | None, codes: npt.NDArray[np.intp]) -> float:
    observed = _sum(y, w)
    _demand_events(observed)
    excess = np.bincount(codes, weights=(p - y) if w is None else (p - y) * w)
    return float(np.abs(excess).sum()) / observed


def _positive_entropy(y: npt.ArrayLike, sample_weight: npt.ArrayLike | None) -> float:
    entropy = base_rate_entropy(y, sample_weight=sample_weight)
    if not entropy > 0.0:
        raise DataError(
            "entropy is relative to a base rate between 0 and 1",
            value=f"all outcomes are {np.asarray(y).ravel()[0]}",
            remedy="give rows of both outcomes",
        )
    return entropy


def _demand_events(observed: float) -> None:
    if not observed > 0.0:
        raise DataError(
            "the metric is relative to the events", value="no event", remedy="give rows with events"
        )


def _checked(
    y: npt.ArrayLike,
    score: npt.ArrayLike,
    sample_weight: npt.ArrayLike | None,
    *,
    low: float = -np.inf,
    high: float = np.inf,
) -> tuple[Doubles, Doubles, Doubles | None]:
    outcome = _doubles(y, "outcomes", 0.0, 1.0)
    scores = _doubles(score, "predictions", low, high)
    weights = None if sample_weight is None else _doubles(sample_weight, "weights", 0.0, np.inf)
    lengths = {len(outcome), len(scores), len(outcome if weights is None else weights)}
    if len(lengths) != 1:
        raise DataError(
            "outcomes, predictions and weights have one length", value=sorted(lengths), remedy="align them"
        )
    if weights is not None and not (weights.sum() > 0.0 and isfinite(weights.sum())):
        raise DataError(
            "weights have a positive, finite sum", value=float(weights.sum()), remedy="scale them"
        )
    return outcome, scores, weights


def _doubles(values: npt.ArrayLike, what: str, low: float, high: float) -> Doubles:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{what} are numbers", value=values, remedy="convert them") from None
    if array.ndim != 1 or not array.size:
        raise DataError(f"{what} have shape (n,), n > 0", value=array.shape, remedy="pass one column")
    within = (array >= low) & (array <= high)
    if not within.all():
        raise DataError(
            f"{what} are numbers from {low:g} to {high:g}",
            value=float(array[~within][0]),
            remedy="look for NaN, or for log-odds passed as probabilities",
        )
    return array


def _flags(y: Doubles) -> npt.NDArray[np.bool_]:
    event: npt.NDArray[np.bool_] = y == 1.0
    if not (event | (y == 0.0)).all():
        raise DataError(
            "outcomes are 0 or 1",
            value=float(y[~event & (y != 0.0)][0]),
            remedy="ranking needs what happened",
        )
    return event


def _segments(segment: Any, n_rows: int) -> Any:
    cells = segment.to_numpy() if hasattr(segment, "to_numpy") else np.asarray(segment, dtype=object)
    if cells.shape != (n_rows,):
        raise DataError(f"there is one segment per row: {n_rows}", value=cells.shape, remedy="align them")
    return cells


def _sum(values: Doubles, w: Doubles | None) -> float:
    return float(values.sum() if w is None else (values * w).sum())


def _mean(values: Any, w: Doubles | None) -> float:
    return float(values.mean() if w is None else np.average(values, weights=w))
