"""What a bid earns, who earns more, and what the model owes to which feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from bidml.features import Doubles
from bidml.report.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    label,
    legend,
    log_scale,
    new_figure,
    percent,
    ratio_scale,
)


def surplus_curve(
    bid_cpm: Doubles,
    surplus_cpm: Doubles,
    *,
    chosen_cpm: float,
    value_cpm: float,
    currency: str,
    floor_cpm: float = 0.0,
    truth_cpm: Doubles | None = None,
    best_cpm: float | None = None,
) -> Figure:
    """Expected surplus (v − b) F(b) of each bid of a grid (n_bids,), and the bid that was chosen (0: none).

    `truth_cpm` (n_bids,) and `best_cpm` are the true surplus and the oracle's bid, where they are known.
    """
    figure, axes = new_figure("Surplus curve", f"bid, {currency} CPM", f"expected surplus, {currency} CPM")
    if truth_cpm is not None:
        axes.plot(bid_cpm, truth_cpm, color=INK, linewidth=2.2, label="truth")
    axes.plot(bid_cpm, surplus_cpm, color=BLUE, linewidth=1.8, label="model")
    if floor_cpm > 0.0:
        axes.axvspan(
            float(bid_cpm.min()), floor_cpm, color=GREY, alpha=0.18, linewidth=0, label="below floor"
        )
    axes.axvline(value_cpm, color=GREY, linewidth=1, linestyle=":", label=f"value {value_cpm:.2f}")
    if best_cpm is not None and best_cpm > 0.0:
        axes.axvline(best_cpm, color=INK, linewidth=1, linestyle="--", label=f"oracle's bid {best_cpm:.2f}")
    if chosen_cpm > 0.0:
        at = float(np.interp(chosen_cpm, bid_cpm, surplus_cpm))
        axes.plot(
            [chosen_cpm], [at], "o", color=ORANGE, markersize=7, zorder=4, label=f"our bid {chosen_cpm:.2f}"
        )
    axes.set_xlim(float(bid_cpm.min()), float(bid_cpm.max()))
    legend(axes)
    return figure


def surplus_of_policies(policies: Mapping[str, Mapping[str, float]], *, currency: str) -> Figure:
    """Bars of surplus with 95 % intervals, one per policy, the richest on top."""
    figure, axes = new_figure(
        "Surplus on the same auctions", f"{currency} per 1000 auctions", "", n_rows=len(policies)
    )
    names = sorted(policies, key=lambda name: policies[name]["surplus_cpm"])
    surplus = [policies[name]["surplus_cpm"] for name in names]
    half = [policies[name]["surplus_ci95_cpm"] for name in names]
    colours = [BLUE if name == "bidml" else GREY for name in names]
    axes.barh(names, surplus, xerr=half, color=colours, ecolor=INK)
    axes.axvline(0.0, color=INK, linewidth=0.8)
    return figure


def shading(bid_cpm: Doubles, value_cpm: Doubles) -> Figure:
    """How much of the value is bid: a histogram of bid / value over the auctions with a bid."""
    figure, axes = new_figure("Shading", "bid ÷ value", "share of bids")
    bids = (bid_cpm > 0.0) & (value_cpm > 0.0)
    factors = bid_cpm[bids] / value_cpm[bids]
    if factors.size:
        axes.hist(
            factors, bins=40, range=(0.0, 1.0), weights=np.full(factors.size, 1.0 / factors.size), color=BLUE
        )
        median = float(np.median(factors))
        axes.axvline(median, color=INK, linewidth=1.2, label=f"median {median:.2f}")
        legend(axes)
    percent(axes.xaxis)
    percent(axes.yaxis)
    return figure


def importance_in_money(
    features: Sequence[str], loss_cpm: Doubles, half_width_cpm: Doubles, *, currency: str, most: int = 15
) -> Figure:
    """Surplus lost per 1,000 auctions when a feature is shuffled, (n_features,), ± half a 95 % interval."""
    order = np.argsort(-loss_cpm, kind="stable")[:most][::-1]
    figure, axes = new_figure(
        "What each feature is worth",
        f"surplus lost without it, {currency} per 1000 auctions",
        "",
        n_rows=len(order),
    )
    axes.barh(
        [features[i] for i in order], loss_cpm[order], xerr=half_width_cpm[order],
        color=[BLUE if loss_cpm[i] > half_width_cpm[i] else GREY for i in order], ecolor=INK,
    )  # fmt: skip
    axes.axvline(0.0, color=INK, linewidth=0.8)
    return figure


def champion_and_challenger(champion_cpm: Doubles, challenger_cpm: Doubles, *, currency: str) -> Figure:
    """The challenger's surplus minus the champion's, added up over the same auctions (n,) in time order, 95 % band.

    The band is of independent auctions. Above 0 and clear of it at the end: the challenger earns more.
    """
    difference = challenger_cpm - champion_cpm
    n = len(difference)
    total = np.cumsum(difference) / 1000.0
    half = 1.959963984540054 * np.sqrt(np.cumsum((difference - difference.mean()) ** 2)) / 1000.0
    at = np.unique(np.linspace(0, n - 1, min(n, 400)).astype(np.int64))
    figure, axes = new_figure(
        "Challenger minus champion", "auctions, in order of time", f"surplus gained so far, {currency}"
    )
    end = float(total[-1])
    colour = GREEN if end > half[-1] else RED if end < -half[-1] else BLUE
    axes.fill_between(at + 1, (total - half)[at], (total + half)[at], color=colour, alpha=0.18, linewidth=0)
    axes.plot(at + 1, total[at], color=colour, linewidth=1.8)
    axes.axhline(0.0, color=INK, linewidth=0.9)
    base = float(champion_cpm.sum() / 1000.0)
    if base > 0.0:
        axes.set_title(f"lift {end / base:+.1%} ± {half[-1] / base:.1%}", loc="right", fontsize=10, color=INK)
    return figure


def bids_compared(champion_cpm: Doubles, challenger_cpm: Doubles, *, currency: str) -> Figure:
    """How much the challenger moves the bids, (n,): quantiles of the ratio by the champion's bid, where both bid."""
    both = (champion_cpm > 0.0) & (challenger_cpm > 0.0)
    figure, axes = new_figure(
        "Bids: challenger ÷ champion", f"champion's bid, {currency} CPM", "ratio of bids"
    )
    if both.any():
        bid, ratio = champion_cpm[both], challenger_cpm[both] / champion_cpm[both]
        edges = np.unique(np.quantile(bid, np.linspace(0.0, 1.0, 21)[1:-1]))
        bin_of = np.searchsorted(edges, bid, side="left")
        used = [rows for rows in (bin_of == i for i in range(len(edges) + 1)) if rows.any()]
        x = np.array([bid[rows].mean() for rows in used])
        q = np.array([np.quantile(ratio[rows], [0.05, 0.25, 0.5, 0.75, 0.95]) for rows in used]).T
        axes.fill_between(x, q[0], q[4], color=BLUE, alpha=0.14, linewidth=0, label="90 % of the bids")
        axes.fill_between(x, q[1], q[3], color=BLUE, alpha=0.25, linewidth=0, label="half of the bids")
        axes.plot(x, q[2], color=BLUE, linewidth=1.8, label="median")
        log_scale(axes, "x", "y")
        ratio_scale(axes.yaxis)
        legend(axes)
    axes.axhline(1.0, color=INK, linewidth=0.9)
    only = [int(((champion_cpm > 0.0) & ~both).sum()), int(((challenger_cpm > 0.0) & ~both).sum())]
    label(axes, axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel())
    axes.set_title(f"only one bids: {only[0]:,} / {only[1]:,}", loc="right", fontsize=9, color=GREY)
    return figure


def estimates(
    names: Sequence[str],
    value: Doubles,
    low: Doubles,
    high: Doubles,
    *,
    what: str,
    unit: str,
    truth: float | None = None,
) -> Figure:
    """Several estimates of one quantity with their intervals, all (n_estimates,); the truth, where it is known."""
    title = f"{what[:1].upper()}{what[1:]}, estimated"
    figure, axes = new_figure(title, f"{what}, {unit}", "", n_rows=len(names))
    place = np.arange(len(names))[::-1]
    axes.hlines(place, low, high, color=BLUE, linewidth=2, alpha=0.55)
    axes.plot(value, place, "o", color=BLUE, markersize=5)
    if truth is not None:
        axes.axvline(truth, color=INK, linewidth=1.2, label=f"truth {truth:.3g}")
        legend(axes)
    axes.set_yticks(place, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    return figure
