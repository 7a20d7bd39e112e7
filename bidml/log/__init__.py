"""Auction logs: one table, checked, from iPinYou files, Parquet, CSV or OpenRTB events."""

from bidml.log.schema import COLUMNS, Need, markdown_table

__all__ = ["COLUMNS", "Need", "markdown_table"]
