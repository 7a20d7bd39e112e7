"""The numbers behind the plots: bins with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.features import Doubles

_Z95: Final = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Observed frequencies in bins, arrays (n_bins,): mean of `x`, mean prediction, observed, 95 % Wilson interval."""

    x: Doubles
    predicted: Doubles
    observed: Doubles
    low: Doubles
    high: Doubles
    n: npt.NDArray[np.int64]


def quantile_bins(
    x: Doubles, outcome: npt.NDArray[np.bool_], predicted: Doubles, *, n_bins: int = 20
) -> Bins:
    """Rows in bins of equal size by `x`; equal values of `x` share a bin. All arguments have shape (n,), n > 0.

    Uniform bins of a probability say nothing when the base rate is 0.1 %.
    """
    edges = np.unique(np.quantile(x, np.linspace(0.0, 1.0, n_bins + 1)[1:-1]))
    bin_of = np.searchsorted(edges, x, side="left")
    n = np.bincount(bin_of, minlength=len(edges) + 1)
    some = n > 0

    def mean(values: npt.NDArray[Any]) -> Doubles:
        return np.bincount(bin_of, weights=values, minlength=len(n))[some] / n[some]

    observed = mean(outcome)
    low, high = wilson_interval(observed, n[some])
    return Bins(mean(x), mean(predicted), observed, low, high, n[some])


def wilson_interval(observed: Doubles, n: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
    """The 95 % score interval of a proportion (Wilson 1927, JASA 22:209); never empty, also for 0 of n."""
    z2 = _Z95**2
    centre = (observed + z2 / (2.0 * n)) / (1.0 + z2 / n)
    half = _Z95 * np.sqrt(observed * (1.0 - observed) / n + z2 / (4.0 * n * n)) / (1.0 + z2 / n)
    # it holds what was observed; at 0 and 1 its end is just that, which rounding would miss
    return np.clip(centre - half, 0.0, observed), np.clip(centre + half, observed, 1.0)
