"""What the data of a model looked like, and how far other data has moved from it.

PSI (population stability index) of a feature = Σ_bins (p − q) ln(p / q): the symmetrised Kullback-Leibler divergence
of two histograms; 0 is equal, by custom 0.1 is worth a look and 0.25 a shift. Numbers are binned at the reference's
deciles, categories by its most frequent values; missing, and all other values, are bins of their own. Both histograms
are smoothed by half a row per bin, so that an empty bin is finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.contract import FeatureKind, FeatureSpec
from bidml.errors import RefusedError
from bidml.features import Doubles, RawColumns
from bidml.log import sample_weights
from training.config import AlarmConfig

_TOP: Final = 30
_CLOCK: Final = ("derived.hour_of_day", "derived.weekday")
_OTHER: Final = "\x00other"  # no key: a category's text holds no NUL from OpenRTB
Profile = Mapping[str, Any]


def profile_of(columns: RawColumns, spec: FeatureSpec, log: pd.DataFrame) -> dict[str, Any]:
    """A JSON document: n_rows, histograms of the features, CTR of impressions, win rate, median price and bid.

    `columns` are raw columns of `log`, shape (n_rows,) each. Rows of a sample count as those they stand for.
    """
    weight = sample_weights(log)
    features: dict[str, Any] = {}
    for feature in spec.features:
        cells = columns[feature.name]
        features[feature.name] = (
            _of_category(cells, weight) if feature.kind is FeatureKind.CATEGORY else _of_number(cells, weight)
        )
    shown = log[log["won"]] if "won" in log else log
    return {
        "n_rows": len(log),
        "features": features,
        "ctr": _mean(shown, "clicked"),
        "win_rate": _mean(log, "won"),
        "median_price_cpm": _median(log, "price_cpm"),
        "median_bid_cpm": _median(log, "bid_cpm"),
    }


def drift(reference: Profile, columns: RawColumns, spec: FeatureSpec, log: pd.DataFrame) -> dict[str, Any]:
    """`psi` by feature, the features that `reference` lacks, those that tell the time, and ratios of CTR, win rate,
    price and bid to it."""
    now = profile_of(columns, spec, log)
    psi, new, weight = {}, [], sample_weights(log)
    for feature in spec.features:
        was = reference["features"].get(feature.name)
        if was is None or ("edges" in was) != (feature.kind is FeatureKind.NUMBER):
            new.append(feature.name)
            continue
        cells = columns[feature.name]
        counts = (
            _counts_of_number(cells, was["edges"], weight)
            if feature.kind is FeatureKind.NUMBER
            else _counts_of_category(cells, was["values"], weight)
        )
        psi[feature.name] = psi_of(was["counts"], counts)
    ratios = {}
    for name in ("ctr", "win_rate", "median_price_cpm", "median_bid_cpm"):
        if reference.get(name) and now[name] is not None:
            ratios[name] = now[name] / reference[name]
    clock = [feature.name for feature in spec.features if feature.source in _CLOCK]
    return {"psi": psi, "new_features": new, "clock": clock, "ratios": ratios}


def psi_of(reference: Any, counts: Any) -> float:
    """The PSI of two histograms over the same bins, as counts.

    >>> psi_of([50, 50], [5, 5]), round(psi_of([500, 500], [900, 100]), 2)
    (0.0, 0.88)
    """
    q, p = (np.asarray(c, dtype=np.float64) for c in (reference, counts))
    used = (p > 0.0) | (q > 0.0)
    q, p = q[used], p[used]
    if q.shape == p.shape and (p * q.sum() == q * p.sum()).all():
        return 0.0
    q, p = ((c + 0.5) / (c + 0.5).sum() for c in (q, p))
    return float(((p - q) * np.log(p / q)).sum())


def refuse_drift(found: Mapping[str, Any], config: AlarmConfig) -> list[str]:
    """Warnings, one text each; raises `RefusedError` for what is beyond the bounds. Features that tell the time only
    warn: a day after a week, or hours after a day, have other hours."""
    far = {
        name: round(psi, 3)
        for name, psi in found["psi"].items()
        if psi > config.psi_refuse and name not in found["clock"]
    }
    if far:
        raise RefusedError(
            f"no feature has moved by a PSI above {config.psi_refuse:g} since the champion's training",
            value=far,
            remedy="look for a broken field or join; if the change is real, raise alarms.psi_refuse for this run",
        )
    ratios = {
        name: round(ratio, 3)
        for name, ratio in found["ratios"].items()
        if not 1.0 / config.max_ratio <= ratio <= config.max_ratio
    }
    if ratios:
        raise RefusedError(
            f"CTR, win rate, prices and bids are within a factor {config.max_ratio:g} of the champion's data",
            value=ratios,
            remedy="look for a unit, a currency or a join; if the change is real, raise alarms.max_ratio for this run",
        )
    warnings = [
        f"{name} has moved: PSI {psi:.3f}"
        for name, psi in sorted(found["psi"].items(), key=lambda item: -item[1])
        if psi > config.psi_warn
    ]
    return warnings + [f"{name} is new" for name in found["new_features"]]


def _of_number(cells: Any, weight: Doubles | None) -> dict[str, Any]:
    x = np.asarray(cells, dtype=np.float64)
    present = x[~np.isnan(x)]
    deciles = np.quantile(present, np.linspace(0.1, 0.9, 9)) if len(present) else np.array([])
    edges = [float(edge) for edge in np.unique(deciles)]
    return {"edges": edges, "counts": _counts_of_number(x, edges, weight)}


def _counts_of_number(cells: Any, edges: Any, weight: Doubles | None) -> list[Any]:
    """Missing, then the values up to and including each edge, then the rest."""
    x = np.asarray(cells, dtype=np.float64)
    bins = np.searchsorted(np.asarray(edges, dtype=np.float64), x, side="left") + 1
    return _sums(np.where(np.isnan(x), 0, bins), len(edges) + 2, weight)


def _of_category(cells: Any, weight: Doubles | None) -> dict[str, Any]:
    codes, found = pd.factorize(np.asarray(cells, dtype=object))
    counts = dict(zip(found, _sums(codes, len(found), weight), strict=True))
    top = sorted(found, key=lambda value: (-counts[value], value))[:_TOP]
    values = [*top, _OTHER]
    return {"values": values, "counts": _counts_of_category(cells, values, weight)}


def _counts_of_category(cells: Any, values: Any, weight: Doubles | None) -> list[Any]:
    place = {value: i for i, value in enumerate(values[:-1])}
    codes, found = pd.factorize(np.asarray(cells, dtype=object))
    places = np.array([place.get(value, len(place)) for value in found], dtype=np.int64)
    return _sums(places[codes], len(values), weight)


def _sums(bins: npt.NDArray[np.int64], n_bins: int, weight: Doubles | None) -> list[Any]:
    """Rows in each bin: whole numbers, of a sample sums of weights."""
    return list(np.bincount(bins, weights=weight, minlength=n_bins).tolist())


def _mean(log: pd.DataFrame, name: str) -> float | None:
    if name not in log or not len(log):
        return None
    return float(np.average(log[name].to_numpy(dtype=np.float64), weights=sample_weights(log)))


def _median(log: pd.DataFrame, name: str) -> float | None:
    known = log[log[name].notna()] if name in log else log.iloc[:0]
    if not len(known):
        return None
    weight = sample_weights(known)
    if weight is None:
        return float(known[name].median())
    x = known[name].to_numpy(dtype=np.float64)
    order = np.argsort(x, kind="stable")
    share = np.cumsum(weight[order])
    return float(x[order[np.searchsorted(share, 0.5 * share[-1])]])
