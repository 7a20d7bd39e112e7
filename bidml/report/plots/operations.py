"""What changes from day to day, and what a bidder sees of itself: drift, latency, pacing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from bidml.features import Doubles
from bidml.report.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    RED,
    SIZE,
    label,
    legend,
    log_scale,
    new_figure,
    percent,
)


def drift(
    when: npt.NDArray[Any],
    value: Doubles,
    low: Doubles,
    high: Doubles,
    *,
    what: str,
    unit: str,
    band: str = "95 % interval",
    predicted: Doubles | None = None,
    held_out_from: Any | None = None,
) -> Figure:
    """A quantity over time, (n_times,) with a band; `when` is datetime64, UTC. The held-out part is marked."""
    figure, axes = new_figure(
        f"{what[:1].upper()}{what[1:]} over time", "time, UTC", f"{what}, {unit}" if unit else what
    )
    axes.fill_between(when, low, high, color=BLUE, alpha=0.18, linewidth=0, label=band)
    axes.plot(when, value, "o-", color=BLUE, markersize=3.5, linewidth=1.4, label="observed")
    if predicted is not None:
        axes.plot(when, predicted, color=ORANGE, linewidth=1.4, linestyle="--", label="predicted")
    if held_out_from is not None:
        axes.axvline(held_out_from, color=INK, linewidth=1, linestyle=":", label="held out from here")
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=True))  # type: ignore[no-untyped-call]
    axes.set_ylim(bottom=0.0)
    legend(axes)
    return figure


def psi(
    features: Sequence[str], psi: Doubles, *, warn: float = 0.1, refuse: float = 0.25, most: int = 20
) -> Figure:
    """How far each feature has moved, (n_features,), largest on top, with the bounds that warn and refuse."""
    order = np.argsort(-psi, kind="stable")[:most][::-1]
    figure, axes = new_figure("Drift of the features", "population stability index", "", n_rows=len(order))
    colours = [RED if psi[i] > refuse else ORANGE if psi[i] > warn else BLUE for i in order]
    axes.barh([features[i] for i in order], psi[order], color=colours)
    axes.axvline(warn, color=ORANGE, linewidth=1, linestyle="--", label=f"worth a look, {warn:g}")
    if len(order) and psi[order].max() > 0.5 * refuse:
        axes.axvline(refuse, color=RED, linewidth=1, linestyle="--", label=f"refused, {refuse:g}")
    legend(axes, loc="lower right")
    return figure


def latency(samples_us: Doubles | Mapping[str, Doubles], *, what: str = "one bid") -> Figure:
    """Histogram of the times of calls in µs, (n_calls,), on a log axis, with median and 99th percentile.

    Calls beyond 4 times the 99th percentile are not in sight.
    """
    contenders = samples_us if isinstance(samples_us, Mapping) else {what: samples_us}
    figure, axes = new_figure(f"Latency of {what}", "µs per call", "share of calls")
    every = np.concatenate([np.asarray(s, dtype=np.float64) for s in contenders.values()])
    low, high = max(float(every.min()), 1e-3), 4.0 * float(np.quantile(every, 0.99))
    edges = np.geomspace(low, max(high, low * 2.0), 70)
    for (name, samples), colour in zip(contenders.items(), (BLUE, ORANGE, GREY), strict=False):
        weights = np.full(len(samples), 1.0 / len(samples))
        axes.hist(samples, bins=edges.tolist(), weights=weights, color=colour, alpha=0.65)
        p50, p99 = np.quantile(samples, [0.5, 0.99])
        prefix = f"{name}: " if len(contenders) > 1 else ""
        axes.axvline(p50, color=colour, linewidth=1.5, label=f"{prefix}p50 {p50:.3g} µs")
        axes.axvline(p99, color=colour, linewidth=1.5, linestyle="--", label=f"{prefix}p99 {p99:.3g} µs")
    log_scale(axes, "x")
    percent(axes.yaxis)
    legend(axes)
    return figure


def pacing(
    hour: Doubles,
    spent: Doubles,
    multiplier: Doubles,
    *,
    budget: float,
    currency: str,
    target: Doubles | None = None,
) -> Figure:
    """A day: what was spent by the end of each window (n_windows,), and the pacing multiplier of each, below."""
    figure = Figure(figsize=(SIZE[0], SIZE[1] * 1.25), layout="constrained")
    money, control = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    label(money, "Pacing over a day", "", f"spent, {currency}")
    label(control, "", "hour of the day", "pacing multiplier")
    clock = np.append(0.0, hour)
    if target is not None:
        money.plot(
            clock,
            np.append(0.0, target),
            color=GREY,
            linewidth=1.4,
            linestyle="--",
            label="in step with traffic",
        )
    money.plot(clock, np.append(0.0, spent), color=BLUE, linewidth=1.8, label="spent")
    money.axhline(budget, color=INK, linewidth=1, linestyle=":", label=f"budget {budget:,.4g}")
    money.set_ylim(0.0, 1.08 * max(budget, float(spent.max())))
    legend(money, loc="lower right")
    control.step(clock, np.append(multiplier[:1], multiplier), where="pre", color=ORANGE, linewidth=1.6)
    control.set_ylim(0.0, max(1.05, 1.1 * float(multiplier.max())))
    control.set_xticks(range(0, 25, 6))
    control.set_xlim(0.0, 24.0)
    return figure
