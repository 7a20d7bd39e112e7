"""Is a probability right, and does it tell rows apart?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from bidml.features import Doubles
from bidml.report.curves import Bins, Gain
from bidml.report.plots.style import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    RED,
    SERIES,
    label,
    legend,
    log_scale,
    new_figure,
    percent,
    ratio_scale,
)


def reliability(*bins: Bins, what: str = "pctr") -> Figure:
    """Observed frequency (95 % interval) against prediction, on log axes; a calibrated model follows the line.

    Several `bins` of the same rows (`quantile_bins`, `log_bins`) are drawn over each other. A bin without an event has
    no point on a log axis: its interval is drawn from below.
    """
    figure, axes = new_figure(f"Reliability of {what}", f"predicted {what}", "observed")
    seen = np.concatenate([b.predicted for b in bins] + [b.observed for b in bins])
    seen = seen[seen > 0.0]
    bottom = 0.5 * float(seen.min()) if seen.size else 1e-6
    for b, colour, marker in zip(bins, SERIES, MARKERS, strict=False):
        at = np.where(b.observed > 0.0, b.observed, np.nan)
        axes.vlines(b.predicted, np.maximum(b.low, bottom), b.high, color=colour, alpha=0.45, linewidth=1.2)
        axes.plot(b.predicted, at, marker, color=colour, markersize=4.5, label=b.kind)
    if seen.size:
        ends = [float(seen.min()), float(seen.max())]
        axes.plot(ends, ends, color=INK, linewidth=1, label="calibrated")
        log_scale(axes, "x", "y")
        axes.set_ylim(bottom=bottom)
    legend(axes)
    return figure


def gain(curve: Gain, *, event: str = "clicks") -> Figure:
    """The share of all events among the rows with the highest scores; chance is the diagonal."""
    figure, axes = new_figure(
        f"Gain: {event} found by score", "share of rows, highest scores first", f"share of {event}"
    )
    axes.fill_between(curve.share, curve.share, curve.gain, color=BLUE, alpha=0.12, linewidth=0)
    axes.plot(curve.share, curve.gain, color=BLUE, linewidth=1.8, label="model")
    axes.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linewidth=1, linestyle="--", label="chance")
    at = float(np.interp(0.1, curve.share, curve.gain))
    axes.plot([0.1], [at], "o", color=INK, markersize=4)
    axes.annotate(
        f"a tenth of the rows\nholds {at:.0%} of the {event}", (0.1, at), (0.2, max(at - 0.05, 0.02)),
        fontsize=9, color=INK,
    )  # fmt: skip
    percent(axes.xaxis)
    percent(axes.yaxis)
    legend(axes, loc="lower right")
    return figure


def lift(bins: Bins, *, event: str = "clicks") -> Figure:
    """Observed rate over the base rate (95 % interval) by bins of the score; what was predicted, as a line."""
    figure, axes = new_figure(
        "Lift over the base rate", "bin of the score, highest first", "rate ÷ base rate"
    )
    base = float((bins.observed * bins.n).sum() / bins.n.sum())
    rank = np.arange(1, len(bins.n) + 1)
    if base > 0.0:
        shown = (bins.observed / base)[::-1]
        below = shown - (bins.low / base)[::-1]
        above = (bins.high / base)[::-1] - shown
        axes.bar(rank, shown, color=BLUE, alpha=0.8, yerr=[below, above], ecolor=INK, label=event)
        axes.plot(rank, (bins.predicted / base)[::-1], "D-", color=SERIES[1], markersize=4, label="predicted")
    axes.axhline(1.0, color=INK, linewidth=0.8)
    axes.set_xticks(rank)
    legend(axes)
    return figure


def calibration_by_segment(
    segments: Sequence[str],
    ratio: Doubles,
    low: Doubles,
    high: Doubles,
    *,
    n_events: npt.NDArray[np.int64] | None = None,
    what: str = "pctr",
    by: str = "segment",
) -> Figure:
    """Predicted / observed of each segment with its interval, all (n_segments,); red where it excludes 1.

    An infinite or NaN end (a segment without an event) is drawn to the axis' edge.
    """
    figure, axes = new_figure(
        f"Calibration of {what} by {by}", "predicted ÷ observed", "", n_rows=len(segments)
    )
    finite = np.concatenate([x[np.isfinite(x) & (x > 0.0)] for x in (ratio, low, high)] + [np.ones(1)])
    left, right = max(float(finite.min()), 0.1) / 1.1, min(float(finite.max()), 10.0) * 1.1
    place = np.arange(len(segments))[::-1]
    start = np.where(np.isfinite(low), low, left).clip(left, right)
    end = np.where(np.isfinite(high), high, right).clip(left, right)
    off = (low > 1.0) | (high < 1.0)
    colours = np.where(off, RED, BLUE)
    axes.hlines(place, start, end, color=colours, linewidth=2, alpha=0.55)
    axes.scatter(ratio, place, color=colours, s=22, zorder=3)
    axes.axvline(1.0, color=INK, linewidth=0.9)
    label(axes, axes.get_title(loc="left"), axes.get_xlabel(), "")
    axes.set_xscale("log")
    axes.set_xlim(left, right)
    ratio_scale(axes.xaxis)
    names = (
        segments if n_events is None else [f"{s} ({n:,})" for s, n in zip(segments, n_events, strict=True)]
    )
    axes.set_yticks(place, names)
    axes.set_ylim(-0.6, len(segments) - 0.4)
    return figure
