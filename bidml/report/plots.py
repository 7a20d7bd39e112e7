"""Plots, each a function of arrays that returns its figure. No global state of matplotlib is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from bidml.features import Doubles
from bidml.report.curves import Bins

_INK: Final = "#1b1f24"
_BLUE: Final = "#2563eb"
_GREY: Final = "#8b949e"
_SIZE: Final = (6.4, 4.0)


def reliability(bins: Bins, *, what: str = "pctr") -> Figure:
    """Observed frequency (95 % interval) against prediction, both on log axes; a calibrated model follows the line."""
    figure, axes = _figure(f"Reliability of {what}", f"predicted {what}", "observed")
    positive = bins.observed > 0.0
    below = bins.observed - bins.low
    axes.errorbar(
        bins.predicted[positive],
        bins.observed[positive],
        yerr=[below[positive], (bins.high - bins.observed)[positive]],
        fmt="o", color=_BLUE, ecolor=_GREY, capsize=2, markersize=4, label="equal-sized bins",
    )  # fmt: skip
    if positive.any():
        ends = [
            min(bins.predicted[positive].min(), bins.observed[positive].min()),
            max(bins.predicted[positive].max(), bins.observed[positive].max()),
        ]
        axes.plot(ends, ends, color=_INK, linewidth=1, label="calibrated")
        _log_axes(axes, "x", "y")
    axes.legend(frameon=False)
    return figure


def win_rate_by_bid(bins: Bins, *, currency: str) -> Figure:
    """Observed win rate (95 % interval) and the mean prediction, by bid."""
    figure, axes = _figure("Win rate by bid", f"bid, {currency} CPM", "win rate")
    axes.errorbar(
        bins.x,
        bins.observed,
        yerr=[bins.observed - bins.low, bins.high - bins.observed],
        fmt="o", color=_BLUE, ecolor=_GREY, capsize=2, markersize=4, label="observed",
    )  # fmt: skip
    axes.plot(bins.x, bins.predicted, color=_INK, linewidth=1.2, label="predicted")
    _log_axes(axes, "x")
    axes.set_ylim(0.0, max(0.05, 1.05 * float(bins.high.max())))
    axes.legend(frameon=False)
    return figure


def surplus_of_policies(policies: Mapping[str, Mapping[str, float]], *, currency: str) -> Figure:
    """Bars of surplus with 95 % intervals, one per policy."""
    figure, axes = _figure("Surplus on the same auctions", f"{currency} per 1000 auctions", "")
    names = list(policies)[::-1]
    surplus = [policies[name]["surplus_cpm"] for name in names]
    half = [policies[name]["surplus_ci95_cpm"] for name in names]
    colours = [_BLUE if name == "bidml" else _GREY for name in names]
    axes.barh(names, surplus, xerr=half, color=colours, ecolor=_INK, capsize=3)
    axes.axvline(0.0, color=_INK, linewidth=0.8)
    return figure


def shading(bid_cpm: Doubles, value_cpm: Doubles) -> Figure:
    """How much of the value is bid: a histogram of bid / value over the auctions with a bid."""
    figure, axes = _figure("Shading", "bid / value", "share of bids")
    bids = (bid_cpm > 0.0) & (value_cpm > 0.0)
    factors = bid_cpm[bids] / value_cpm[bids]
    if factors.size:
        axes.hist(
            factors, bins=40, range=(0.0, 1.0), weights=np.full(factors.size, 1.0 / factors.size), color=_BLUE
        )
    return figure


def _log_axes(axes: Axes, *names: Literal["x", "y"]) -> None:
    """Log scales with plain numbers on the decades and between them where they have room."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def _figure(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontsize=11, color=_INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(True, color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
