"""One self-contained HTML file: no network, no script, readable in dark, light, print and on a phone."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure

from bidml.certify import Certificate
from bidml.features import Doubles
from bidml.log import price_loss
from bidml.pricing import WinCurve
from bidml.report import plots
from bidml.report.curves import quantile_bins
from bidml.report.tables import tables_of


@dataclass(frozen=True, slots=True, eq=False)
class ReportData:
    """What a report is made of. `test` is the held-out log; `pctr` (n_test,) and `curve` belong to it."""

    title: str
    currency: str
    metrics: Mapping[str, Any]
    provenance: Mapping[str, Any]
    quarantine: Mapping[str, Any]
    certificate: Certificate
    test: pd.DataFrame
    pctr: Doubles | None = None
    curve: WinCurve | None = None


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
        tables=tables_of(data.metrics, currency=data.currency),
        figures=[svg(figure) for figure in _figures(data).values()],
        quarantine=data.quarantine,
        certificate=data.certificate,
        provenance=json.dumps(data.provenance, indent=1, sort_keys=True),
    )


def plot_files(data: ReportData) -> dict[str, str]:
    """The report's figures as files: name.svg → its text."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return {f"{name}.svg": head + svg(figure) for name, figure in _figures(data).items()}


def svg(figure: Figure) -> Markup:
    """The figure as an inline SVG element; text stays text."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "bidml", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    _, _, element = text.getvalue().partition("<svg")
    return Markup("<svg" + element)  # the drawing is ours; its labels were escaped by matplotlib


def _figures(data: ReportData) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    test = data.test
    won = test["won"].to_numpy(dtype=bool) if "won" in test else None
    if data.pctr is not None:
        shown = slice(None) if won is None else won
        p = data.pctr[shown]
        clicked = test["clicked"].to_numpy(dtype=bool)[shown]
        figures["reliability_of_pctr"] = plots.reliability(quantile_bins(p, clicked, p))
    if data.curve is not None and won is not None:
        counts = won | price_loss(test).to_numpy(dtype=bool)
        bid = test["bid_cpm"].to_numpy(dtype=float)[counts]
        predicted = data.curve[counts].win_rate(bid)
        figures["win_rate_by_bid"] = plots.win_rate_by_bid(
            quantile_bins(bid, won[counts], predicted), currency=data.currency
        )
        figures["reliability_of_win_rate"] = plots.reliability(
            quantile_bins(predicted, won[counts], predicted), what="win rate"
        )
    if "money" in data.metrics:
        figures["surplus_of_policies"] = plots.surplus_of_policies(
            data.metrics["money"], currency=data.currency
        )
    return figures
