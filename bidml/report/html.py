"""One self-contained HTML file: no network, no script, readable in dark, light, print and on a phone."""

from __future__ import annotations

import io
import json
import re
from typing import Final

import jinja2
import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from bidml.report.data import ReportData
from bidml.report.figures import figures_of
from bidml.report.plots.style import DARK
from bidml.report.summary import summary_of
from bidml.report.tables import tables_of

_COLOURS: Final = re.compile("|".join(DARK), re.IGNORECASE)


def html_report(data: ReportData) -> str:
    """The report as text; the same data gives the same bytes."""
    return report_with_plots(data)[0]


def report_with_plots(data: ReportData) -> tuple[str, dict[str, str]]:
    """The report, and its figures as files, name.svg → text. Each is drawn once: drawing is most of a report's time."""
    drawn = {
        title: [(d.name, _svg(d.figure), d.caption) for d in drawings]
        for title, drawings in figures_of(data).items()
    }
    files = {f"{name}.svg": _on_white(text) for drawings in drawn.values() for name, text, _ in drawings}
    return _page(data, drawn), files


def _page(data: ReportData, drawn: dict[str, list[tuple[str, str, str]]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bidml.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=data.title,
        light={_variable(colour): colour for colour in DARK},
        dark={_variable(colour): dark for colour, dark in DARK.items()},
        summary=summary_of(data.metrics, data.certificate, data.quarantine, data.checks, data.currency),
        checks=data.checks,
        tables=tables_of(data.metrics, currency=data.currency),
        sections=[
            (title, [(_inline(text), caption) for _, text, caption in drawings])
            for title, drawings in drawn.items()
        ],
        quarantine=data.quarantine,
        certificate=data.certificate,
        provenance=json.dumps(data.provenance, indent=1, sort_keys=True),
    )


def _on_white(element: str) -> str:
    """A file of its own: what is transparent on a page stands on white."""
    opening, end, rest = element.partition(">")
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f'{head}{opening}{end}\n <rect width="100%" height="100%" fill="#ffffff"/>{rest}'


def _inline(element: str) -> Markup:
    """Text stays text, colours become variables of the page."""
    return Markup(
        _COLOURS.sub(lambda found: f"var({_variable(found[0])})", element)
    )  # matplotlib escaped the labels


def _svg(figure: Figure) -> str:
    """A transparent SVG element."""
    text = io.StringIO()
    title = figure.axes[0].get_title(loc="left") if figure.axes else ""
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)  # savefig would draw the figure once more for it
        figure.set_layout_engine("none")
    with mpl.rc_context({"svg.hashsalt": f"bidml {title}", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    _, _, element = text.getvalue().partition("<svg")
    return "<svg" + element


def _variable(colour: str) -> str:
    return f"--c{colour.lower().lstrip('#')}"
