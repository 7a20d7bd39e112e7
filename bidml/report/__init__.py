"""What a run says: tables and plots as functions of numbers, and one self-contained HTML file."""

from bidml.report.html import ReportData, html_report, plot_files
from bidml.report.tables import Table, tables_of

__all__ = ["ReportData", "Table", "html_report", "plot_files", "tables_of"]
