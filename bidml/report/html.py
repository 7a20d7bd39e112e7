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
            (title, [(svg(d.figure), d.caption) for d in drawings])
            for title, drawings in figures_of(data).items()
        ],
        quarantine=data.quarantine,
        certificate=data.certificate,
        provenance=json.dumps(data.provenance, indent=1, sort_keys=True),
    )


def plot_files(data: ReportData) -> dict[str, str]:
    """The report's figures as files: name.svg → its text."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return {
        f"{drawing.name}.svg": head + _svg(drawing.figure, transparent=False)
        for drawings in figures_of(data).values()
        for drawing in drawings
    }


def svg(figure: Figure) -> Markup:
    """The figure as an inline SVG element; text stays text, colours become variables of the page."""
    element = _COLOURS.sub(lambda found: f"var({_variable(found[0])})", _svg(figure, transparent=True))
    return Markup(element)  # the drawing is ours; its labels were escaped by matplotlib


def _svg(figure: Figure, *, transparent: bool) -> str:
    text = io.StringIO()
    title = figure.axes[0].get_title(loc="left") if figure.axes else ""
    with mpl.rc_context({"svg.hashsalt": f"bidml {title}", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=transparent, metadata={"Date": None, "Creator": None})
    _, _, element = text.getvalue().partition("<svg")
    return "<svg" + element


def _variable(colour: str) -> str:
    return f"--c{colour.lower().lstrip('#')}"
