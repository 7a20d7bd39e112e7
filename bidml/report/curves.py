"""The numbers behind the plots: bins with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.features import Doubles

_Z95: Final = 1.959963984540054
_EQUAL_SIZE: Final = "bins of equal size"


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Observed frequencies in bins, arrays (n_bins,): mean of `x`, mean prediction, observed, 95 % Wilson interval.

    `kind` says in words how the bins were cut. Weighted rows count as (Σw)² / Σw² equal ones in an interval (Kish).
    """

    x: Doubles
    predicted: Doubles
    observed: Doubles
    low: Doubles
    high: Doubles
    n: npt.NDArray[np.int64]
    kind: str = _EQUAL_SIZE


@dataclass(frozen=True, slots=True, eq=False)
class Gain:
    """Points of a cumulative gain curve, (n_points,): `gain` of the events are in the first `share` of the rows."""

    share: Doubles
    gain: Doubles


def quantile_bins(
    x: Doubles,
    outcome: npt.NDArray[np.bool_],
    predicted: Doubles,
    *,
    n_bins: int = 20,
    weight: Doubles | None = None,
) -> Bins:
    """Rows in bins of equal size by `x`; equal values of `x` share a bin. All arguments have shape (n,), n > 0.

    Uniform bins of a probability say nothing when the base rate is 0.1 %.
    """
    edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, n_bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, x, side="left")
    return _bins(bin_of, len(edges) + 1, x, outcome, predicted, weight, _EQUAL_SIZE)


def log_bins(
    predicted: Doubles,
    outcome: npt.NDArray[np.bool_],
    *,
    per_decade: int = 4,
    min_rows: int = 20,
    weight: Doubles | None = None,
) -> Bins:
    """Rows (n,) in bins of equal width in log10 of the prediction, so that the rare high ones have bins of their own.

    Bins with fewer than `min_rows` rows, and predictions of 0, are left out.
    """
    positive = predicted > 0.0
    p = predicted[positive]
    bin_of = np.floor(np.log10(p) * per_decade).astype(np.int64)
    first = int(bin_of.min()) if p.size else 0
    n = np.bincount(bin_of - first) if p.size else np.zeros(0, dtype=np.int64)
    full = n[bin_of - first] >= min_rows
    kind = f"{per_decade} bins per decade"
    w = None if weight is None else weight[positive][full]
    return _bins((bin_of - first)[full], len(n), p[full], outcome[positive][full], p[full], w, kind)


def gain_curve(
    score: Doubles,
    outcome: npt.NDArray[np.bool_],
    *,
    n_points: int = 200,
    weight: Doubles | None = None,
) -> Gain:
    """The cumulative gain of `score`, both (n,); rows of equal score are one step. Without an event: the diagonal."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    if len(ends) > n_points:
        ends = ends[np.unique(np.linspace(0, len(ends) - 1, n_points).astype(np.int64))]
    w = np.ones(len(score)) if weight is None else weight
    share = np.cumsum(w[order])[ends] / w.sum()
    found = np.cumsum((w * outcome)[order])[ends] / (w * outcome).sum() if outcome.any() else share
    return Gain(np.append(0.0, share), np.append(0.0, found))


def _bins(
    bin_of: npt.NDArray[np.int64],
    n_bins: int,
    x: Doubles,
    outcome: npt.NDArray[np.bool_],
    predicted: Doubles,
    weight: Doubles | None,
    kind: str,
) -> Bins:
    n = np.bincount(bin_of, minlength=n_bins)
    some = n > 0
    w = np.ones(len(bin_of)) if weight is None else weight

    def total(values: npt.NDArray[Any]) -> Doubles:
        return np.asarray(np.bincount(bin_of, weights=values, minlength=len(n))[some], dtype=np.float64)

    def mean(values: npt.NDArray[Any]) -> Doubles:
        return total(w * values) / total(w)

    observed = np.clip(mean(outcome), 0.0, 1.0)
    low, high = wilson_interval(observed, total(w) ** 2 / total(w * w))
    return Bins(mean(x), mean(predicted), observed, low, high, n[some], kind)


def wilson_interval(observed: Doubles, n: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
    """The 95 % score interval of a proportion (Wilson 1927, JASA 22:209); never empty, also for 0 of n."""
    z2 = _Z95**2
    centre = (observed + z2 / (2.0 * n)) / (1.0 + z2 / n)
    half = _Z95 * np.sqrt(observed * (1.0 - observed) / n + z2 / (4.0 * n * n)) / (1.0 + z2 / n)
    # it holds what was observed; at 0 and 1 its end is just that, which rounding would miss
    return np.clip(centre - half, 0.0, observed), np.clip(centre + half, observed, 1.0)
