"""Auction logs: one table, checked, from iPinYou files, Parquet, CSV or OpenRTB events."""

from bidml.log.inference import infer_spec
from bidml.log.join import JoinReport, JoinRules, join_events, read_sample, stream_log
from bidml.log.mapping import PriceUnit, TimeUnit, settled
from bidml.log.quarantine import QuarantineReport, ReadingReport, reading_report
from bidml.log.read import LogFormat, read_log
from bidml.log.rules import RULES, price_loss, sample_weights
from bidml.log.schema import COLUMNS, Need, markdown_table
from bidml.log.tables import write_log
from bidml.log.validate import ValidatedLog, validate

__all__ = [
    "COLUMNS",
    "RULES",
    "JoinReport",
    "JoinRules",
    "LogFormat",
    "Need",
    "PriceUnit",
    "QuarantineReport",
    "ReadingReport",
    "TimeUnit",
    "ValidatedLog",
    "infer_spec",
    "join_events",
    "markdown_table",
    "price_loss",
    "read_log",
    "read_sample",
    "reading_report",
    "sample_weights",
    "settled",
    "stream_log",
    "validate",
    "write_log",
]
