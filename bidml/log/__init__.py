"""Auction logs: one table, checked, from iPinYou files, Parquet, CSV or OpenRTB events."""

from bidml.log.quarantine import QuarantineReport, ReadingReport, reading_report
from bidml.log.rules import RULES, price_loss
from bidml.log.schema import COLUMNS, Need, markdown_table
from bidml.log.validate import ValidatedLog, validate

__all__ = [
    "COLUMNS",
    "RULES",
    "Need",
    "QuarantineReport",
    "ReadingReport",
    "ValidatedLog",
    "markdown_table",
    "price_loss",
    "reading_report",
    "validate",
]
