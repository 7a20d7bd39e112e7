"""Why this price, down to the features: exact tree contributions of one decision, in money.

`Scorer.explain` gives the steps from value to bid; this module adds what made the value and the market price. Each
feature's part of a head's margin is its path-dependent TreeSHAP value (`bidml.tree_shap`), summed over the columns that
encode it, plus its linear terms less their mean; the parts and the background's mean add up to the margin exactly.
Money is proportional to them: with s the margin, s₀ its background mean and v(s) the value at it, a part φ is worth
φ (v(s) − v(s₀)) / (s − s₀), so that the parts add up to v(s) − v(s₀). The same for the median market price, at the
decision's own slope k.

Offline: NumPy, milliseconds to seconds a decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.blueprint import CrossLookup, Head
from bidml.contract import FeatureKind
from bidml.errors import DataError
from bidml.features import RawColumns, encode, looked_up, raw_columns
from bidml.log import read_log
from bidml.oracle import calibrated, sigmoid, win_curve
from bidml.score import LineItem, Scorer
from bidml.score.explanation import Explanation
from bidml.self_check import SAMPLE_ROWS
from bidml.tree_shap import tree_contributions

_MOST_BACKGROUND: Final = 20_000
_FLAT: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Part:
    """One feature's part: its raw value ("" and NaN are missing), of the margin, and in CPM."""

    feature: str
    value: str | float
    margin: float
    money_cpm: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What made one number, CPM: `base_cpm` for the mean margin of the background, and parts, greatest first."""

    what: str
    base_cpm: float
    base_margin: float
    parts: tuple[Part, ...]

    @property
    def total_cpm(self) -> float:
        return self.base_cpm + math.fsum(part.money_cpm for part in self.parts)

    @property
    def margin(self) -> float:
        return self.base_margin + math.fsum(part.margin for part in self.parts)

    def lines(self, top: int) -> list[str]:
        """Text: base, the `top` parts, the rest in one, the total."""
        lines = [
            f"{self.what:<38} {self.total_cpm:>12.4f}",
            f"  {'an average auction':<36} {self.base_cpm:>12.4f}",
        ]
        for part in self.parts[:top]:
            name = f"{part.feature} = {_shown(part.value)}"
            lines.append(f"  {name[:36]:<36} {part.money_cpm:>+12.4f}")
        rest = self.parts[top:]
        if rest:
            total = math.fsum(part.money_cpm for part in rest)
            lines.append(f"  {f'{len(rest)} other features':<36} {total:>+12.4f}")
        return lines


@dataclass(frozen=True, slots=True)
class Why:
    """A decision with what made it. `value`: of the value after margin, before pacing. `market`: of the median price.

    `conversion`: of the same value, by what the conversion rate is made of; `value` is by the click rate. None where no
    conversion is paid for. All are None where the decision ended before the model was asked.
    """

    explanation: Explanation
    value: Parts | None
    market: Parts | None
    conversion: Parts | None = None

    def text(self, *, top: int = 5) -> str:
        """For people: the steps to the bid, then the features."""
        lines = [str(self.explanation)]
        for parts in (self.value, self.conversion, self.market):
            if parts is not None:
                lines += ["", *parts.lines(top)]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The steps and all parts; NaN is null."""
        why = self.explanation
        return {
            "bid_cpm": why.bid_cpm,
            "currency": why.currency,
            "reason": why.reason.name.lower(),
            "steps": [{"name": step.name, "after_cpm": _plain(step.after_cpm)} for step in why.waterfall],
            **{
                name: None
                if parts is None
                else {
                    "base_cpm": parts.base_cpm,
                    "total_cpm": parts.total_cpm,
                    "parts": [
                        {
                            "feature": p.feature,
                            "value": _plain(p.value),
                            "margin": p.margin,
                            "cpm": p.money_cpm,
                        }
                        for p in parts.parts
                    ],
                }
                for name, parts in (
                    ("value", self.value),
                    ("market_price", self.market),
                    *((("conversion", self.conversion),) if self.conversion is not None else ()),
                )
            },
        }

    def __str__(self) -> str:
        return self.text()


def why_this_price(
    scorer: Scorer, request: object, line: LineItem, *, background: RawColumns | None = None, imp: int = 0
) -> Why:
    """The decision on `request`, explained down to the features.

    `background`: raw columns (`bidml.features.raw_columns`) of auctions that stand for the average, at most the first
    20,000 of them are used; with the training rows the contributions are LightGBM's own. Default: the rows that the
    artifact carries about itself, at most 96 of its test side: coarse, but the sums are exact just as well. Raises
    `DataError` for a background without rows.
    """
    explanation = scorer.explain(request, line, imp)
    blueprint = scorer.blueprint
    if math.isnan(explanation.ctr_margin) or math.isnan(explanation.win_location):
        return Why(explanation, None, None)
    assert blueprint.ctr is not None  # a line item exists, so the artifact prices
    assert blueprint.win is not None
    ctr, win = blueprint.ctr, blueprint.win
    row = _columns(scorer, {name: [value] for name, value in explanation.features.items()})
    past = _columns(scorer, self_check_rows(scorer) if background is None else background)
    if not len(next(iter(past.values()))):
        raise DataError("a background has rows", value=0, remedy="give auctions of the past")

    def worth(pctr: float, pcvr: float) -> float:
        conversions = pcvr * line.value_per_conversion if line.value_per_conversion > 0.0 else 0.0
        return line.value_per_impression_cpm + 1000.0 * pctr * (line.value_per_click + conversions)

    def value(margin: float) -> float:
        log_odds = calibrated(ctr.calibration, margin)
        if line.risk_aversion > 0.0:
            log_odds -= line.risk_aversion * explanation.pctr_log_odds_sd
        return worth(sigmoid(log_odds), explanation.pcvr)

    def median(margin: float) -> float:
        location, _ = win_curve(win, margin, explanation.log_slope_margin)
        return math.exp(min(location, 700.0))

    conversion = None
    if blueprint.cvr is not None and not math.isnan(explanation.pcvr):
        cvr = blueprint.cvr

        def by_conversions(margin: float) -> float:
            return worth(explanation.priced_pctr, sigmoid(calibrated(cvr.calibration, margin)))

        conversion = _parts(
            "value, by conversions", cvr.head, row, past, explanation.features, by_conversions
        )

    return Why(
        explanation,
        _parts("value", ctr.head, row, past, explanation.features, value),
        _parts("market price, median", win.location, row, past, explanation.features, median),
        conversion,
    )


def background_columns(scorer: Scorer, log: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The raw columns of a Parquet log, as a background for `scorer`. Raises `DataError` for another file."""
    return raw_columns(read_log(log, format="parquet").head(_MOST_BACKGROUND), scorer.spec)


def margin_parts(
    head: Head, rows: RawColumns, background: RawColumns
) -> tuple[float, dict[str, npt.NDArray[Any]]]:
    """The background's mean margin, and each feature's part of the margin of `rows`, (n_rows,) by feature; a cross has
    a part of its own.

    base + Σ parts is `bidml.features.margins(rows, head)`.
    """
    n_rows = len(next(iter(rows.values())))
    base = head.intercept
    found: dict[str, npt.NDArray[Any]] = {}
    if head.trees is not None:
        trees = tree_contributions(encode(rows, head), head.trees, encode(background, head))
        base += trees.base / head.divisor * head.scale
        for i, column in enumerate(head.columns):
            part = trees.contributions[:, i] / head.divisor * head.scale
            found[column.feature] = found.get(column.feature, np.zeros(n_rows)) + part
    for term in head.terms:
        mean = float(looked_up(term, background).mean())
        base += mean
        part = looked_up(term, rows) - mean
        found[term.feature] = found.get(term.feature, np.zeros(n_rows)) + part
    return base, found


def self_check_rows(scorer: Scorer) -> dict[str, npt.NDArray[Any]]:
    """Raw columns of the sampled rows in the artifact's self-check: the last ones, at most 96."""
    check = scorer.artifact.self_check.columns
    return {name: np.array(check[name], dtype=object)[-SAMPLE_ROWS:] for name in scorer.spec.names}


def _parts(
    what: str,
    head: Head,
    row: RawColumns,
    background: RawColumns,
    features: Mapping[str, str | float],
    money: Callable[[float], float],
) -> Parts:
    base, found = margin_parts(head, row, background)
    margin = base + math.fsum(float(part[0]) for part in found.values())
    moved = margin - base
    least = _FLAT * max(abs(margin), 1.0)
    # where all parts cancel, what a small step is worth
    step = moved if abs(moved) > least else 1e-6
    slope = (money(base + step) - money(base)) / step
    crosses = {lookup.feature: lookup for lookup in head.lookups if isinstance(lookup, CrossLookup)}

    def value_of(name: str) -> str | float:
        if name not in crosses:
            return features[name]
        return " * ".join(_shown(features[side.feature]) for side in crosses[name].sides)

    parts = [
        Part(name, value_of(name), float(part[0]), float(part[0]) * slope) for name, part in found.items()
    ]
    parts.sort(key=lambda part: (-abs(part.money_cpm), part.feature))
    return Parts(what, money(base), base, tuple(parts))


def _columns(scorer: Scorer, columns: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """The spec's columns in the types that `encode` reads, at most `_MOST_BACKGROUND` rows."""
    found: dict[str, npt.NDArray[Any]] = {}
    for feature in scorer.spec.features:
        if feature.name not in columns:
            raise DataError("rows have the model's features", value=feature.name, remedy="add the column")
        cells: Sequence[Any] = columns[feature.name]
        dtype: Any = object if feature.kind is FeatureKind.CATEGORY else np.float64
        found[feature.name] = np.asarray(cells, dtype=dtype)[:_MOST_BACKGROUND]
    return found


def _shown(value: str | float) -> str:
    if isinstance(value, str):
        return value or "(missing)"
    return "(missing)" if math.isnan(value) else f"{value:g}"


def _plain(value: str | float) -> str | float | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value
