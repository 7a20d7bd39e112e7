"""How every plot looks: one size that a phone can read, one palette that also works in dark and without colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

INK: Final = "#1b1f24"
GREY: Final = "#8b949e"
GRID: Final = "#e5e7eb"
BLUE: Final = "#2563eb"
ORANGE: Final = "#d97706"
GREEN: Final = "#059669"
RED: Final = "#dc2626"
PURPLE: Final = "#7c3aed"
TEAL: Final = "#0891b2"
SERIES: Final = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED)
DARK: Final = {
    INK: "#e6edf3",
    GREY: "#7d8590",
    GRID: "#2a3038",
    BLUE: "#60a5fa",
    ORANGE: "#fbbf24",
    GREEN: "#34d399",
    RED: "#f87171",
    PURPLE: "#a78bfa",
    TEAL: "#22d3ee",
}
"""What each colour becomes on a dark page."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
SIZE: Final = (5.4, 3.7)
_PER_ROW: Final = 0.27


def new_figure(title: str, x: str, y: str, *, n_rows: int | None = None) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; `n_rows`: a horizontal chart with so many rows is as high as it needs."""
    size = SIZE if n_rows is None else (SIZE[0], max(2.2, 1.1 + _PER_ROW * n_rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    label(axes, title, x, y)
    return figure, axes


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, labels with their units, and our look."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.grid(True, color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, which="both", labelsize=9)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def legend(
    axes: Axes, *, loc: Literal["best", "upper left", "lower right", "lower left", "upper right"] = "best"
) -> None:
    """What the lines are, in words."""
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc=loc)


def percent(axis: Axis, *, decimals: int | None = None) -> None:
    """A share is shown in percent."""
    axis.set_major_formatter(PercentFormatter(1.0, decimals=decimals))


def log_scale(axes: Axes, *names: Literal["x", "y"]) -> None:
    """Log scales with plain numbers on the decades, and between them where they have room."""
    for name in names:
        axis = axes.xaxis if name == "x" else axes.yaxis
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
        low, high = axis.get_view_interval()
        subs: Sequence[float] = (1.0, 2.0, 5.0) if high / low < 200.0 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def ratio_scale(axis: Axis) -> None:
    """Ticks of a log axis of ratios: 0.8, 1, 1.25."""
    axis.set_major_locator(LogLocator(subs=(1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 6.667, 8.0)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axis.set_minor_formatter(NullFormatter())
