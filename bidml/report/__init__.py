"""What a run says: tables and plots as functions of numbers, one self-contained HTML file, a model card."""

from bidml.report.card import model_card
from bidml.report.curves import Bins, Gain, gain_curve, log_bins, quantile_bins, wilson_interval
from bidml.report.data import Duel, ReportData
from bidml.report.html import html_report, report_with_plots
from bidml.report.tables import Table, tables_of

__all__ = [
    "Bins",
    "Duel",
    "Gain",
    "ReportData",
    "Table",
    "gain_curve",
    "html_report",
    "log_bins",
    "model_card",
    "quantile_bins",
    "report_with_plots",
    "tables_of",
    "wilson_interval",
]
