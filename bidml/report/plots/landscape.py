"""What it takes to win: the distribution of the market price, and the win rate that a bid meets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from bidml.features import Doubles
from bidml.report.curves import Bins
from bidml.report.plots.style import (
    BLUE,
    GREY,
    INK,
    MARKERS,
    SERIES,
    legend,
    log_scale,
    new_figure,
    percent,
)


def landscape(
    bid_cpm: Doubles,
    win_rate: Mapping[str, Doubles],
    *,
    currency: str,
    truth: Doubles | None = None,
    logged_bid_cpm: Doubles | None = None,
    title: str = "Bid landscape",
) -> Figure:
    """P(win) of each bid of a grid (n_bids,) by each model; `truth` (n_bids,) in ink.

    `logged_bid_cpm` (n,) is drawn as a histogram below: where nobody bid, a curve is an extrapolation.
    """
    figure, axes = new_figure(title, f"bid, {currency} CPM", "P(win)")
    if logged_bid_cpm is not None and len(logged_bid_cpm):
        inside = logged_bid_cpm[(logged_bid_cpm >= bid_cpm.min()) & (logged_bid_cpm <= bid_cpm.max())]
        edges = np.geomspace(bid_cpm.min(), bid_cpm.max(), 41)
        counts, _ = np.histogram(inside, bins=edges)
        height = 0.22 * counts / max(1, counts.max())
        axes.bar(
            edges[:-1], height, width=np.diff(edges), align="edge", color=GREY, alpha=0.35, linewidth=0,
            label="where we bid",
        )  # fmt: skip
    if truth is not None:
        axes.plot(bid_cpm, truth, color=INK, linewidth=2.4, label="truth")
    for (name, rates), colour, dashes in zip(
        win_rate.items(), SERIES, ("-", "--", "-.", ":", "-", "--"), strict=False
    ):
        axes.plot(bid_cpm, rates, color=colour, linewidth=1.6, linestyle=dashes, label=name)
    log_scale(axes, "x")
    axes.set_ylim(0.0, 1.02)
    percent(axes.yaxis)
    legend(axes, loc="upper left")
    return figure


def win_rate_by_bid(bins: Bins, *, currency: str) -> Figure:
    """Observed win rate (95 % interval) and the mean prediction, by bid."""
    figure, axes = new_figure("Win rate by bid", f"bid, {currency} CPM", "win rate")
    axes.vlines(bins.x, bins.low, bins.high, color=BLUE, alpha=0.45, linewidth=1.2)
    axes.plot(bins.x, bins.observed, "o", color=BLUE, markersize=4.5, label="observed")
    axes.plot(bins.x, bins.predicted, color=INK, linewidth=1.2, label="predicted")
    log_scale(axes, "x")
    axes.set_ylim(0.0, max(0.05, 1.05 * float(bins.high.max())))
    percent(axes.yaxis)
    legend(axes)
    return figure


def win_rate_by_exchange(bins: Mapping[str, Bins], *, currency: str) -> Figure:
    """Observed win rate (points, 95 % intervals) and prediction (lines) against the bid, one colour per exchange."""
    figure, axes = new_figure("Win rate by exchange", f"bid, {currency} CPM", "win rate")
    highest = 0.05
    for i, (name, b) in enumerate(bins.items()):
        colour = SERIES[i % len(SERIES)]
        axes.vlines(b.x, b.low, b.high, color=colour, alpha=0.4, linewidth=1.2)
        axes.plot(b.x, b.observed, MARKERS[i % len(MARKERS)], color=colour, markersize=4.5, label=name)
        axes.plot(b.x, b.predicted, color=colour, linewidth=1.2)
        highest = max(highest, float(b.high.max()))
    log_scale(axes, "x")
    axes.set_ylim(0.0, 1.05 * highest)
    percent(axes.yaxis)
    legend(axes, loc="upper left")
    return figure
