"""Events on disk → the auction log as Parquet by day, out of core: see docs/events.md."""

from bidml.log.join.report import DayReport, JoinReport
from bidml.log.join.rules import JoinRules
from bidml.log.join.run import join_events
from bidml.log.join.stream import read_sample, stream_log

__all__ = ["DayReport", "JoinReport", "JoinRules", "join_events", "read_sample", "stream_log"]
