"""The chart of one decision: a waterfall from value to bid."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bidml.errors import ConfigError
from bidml.score.explanation import Explanation

_UP, _DOWN, _TOTAL = "#2563eb", "#d97706", "#1b1f24"
_SIZE: Final = (5.4, 3.0)


def waterfall(explanation: Explanation) -> Figure:
    """A bar per step from where the last one ended, and the bid; steps that change nothing are left out."""
    steps = [step for step in explanation.waterfall if round(step.change_cpm, 4) != 0.0]
    names = [step.name for step in steps] + ["bid"]
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for i, step in enumerate(steps):
        axes.barh(i, step.change_cpm, left=step.before_cpm, color=_UP if step.change_cpm > 0.0 else _DOWN)
        axes.annotate(
            f"{step.change_cpm:+.3f}",
            (max(step.before_cpm, step.after_cpm), i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.barh(len(steps), explanation.bid_cpm, color=_TOTAL)
    axes.annotate(
        f"{explanation.bid_cpm:.3f}",
        (explanation.bid_cpm, len(steps)),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlim(left=0.0)
    axes.set_xlabel(f"{explanation.currency} CPM")
    axes.set_title("Why this price", loc="left", fontsize=11)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def save_waterfall(explanation: Explanation, path: Path) -> None:
    """Writes the chart in the format that the name ends in. Raises `ConfigError` for an unknown one."""
    figure = waterfall(explanation)
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise ConfigError(
            "a chart's name ends in its format", value=path.name, remedy=f"one of {sorted(known)}"
        )
    figure.savefig(path)
