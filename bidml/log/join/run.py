"""The join, start to finish: find, flatten, shuffle, join, sort, publish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, timedelta
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from bidml.contract import FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.log.events import EVENT_TYPES
from bidml.log.files import Source, files_of
from bidml.log.join.bucket import JoinCounts, join_bucket
from bidml.log.join.engine import engine, parquet, refusing_failures
from bidml.log.join.flatten import Defaults, Flattened, flatten, is_parquet
from bidml.log.join.publish import build_days, publish, staging
from bidml.log.join.report import DayReport, JoinReport
from bidml.log.join.rules import JoinRules
from bidml.log.join.shuffle import Buckets, n_buckets, shuffle
from bidml.log.join.staged import OUTCOMES, bid_schema
from bidml.log.join.tables import EventTable, bids_sql, event_tables, outcomes_sql
from bidml.log.quarantine import ReadingReport
from bidml.log.remote import fetched

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def join_events(
    events: Source,
    out: str | PathLike[str],
    *,
    spec: FeatureSpec | None = None,
    currency: str | None = None,
    auction_type: int | None = None,
    rules: JoinRules | None = None,
    memory_limit_mb: int = 600,
    n_threads: int = 2,
) -> JoinReport:
    """Joins raw events (docs/events.md) into `out/day=YYYY-MM-DD/auctions.parquet`, one file a day of bids.

    `events`: a file, a folder or a list; Parquet, Avro or JSON Lines (plain, gzip, bzip2, zstd), by content; or URIs
    of such, which are copied beside `out` first.
    `spec`, `currency` and `auction_type` are as in `read_log`, and with the default `rules` so are the rows.
    `memory_limit_mb` is DuckDB's; Python adds about 150 MB, and 200 MB a thread while JSON is read. The
    report is also written to `out/_join.json`. Days that this run has no bids for are left as they are; the
    others are replaced, each at once, when all of them are complete.

    Raises `DataError` for damaged files, tables of another schema, days without bids, too much that is
    malformed or out of time, and a full disk; `SpecError`; `ConfigError` for unusable options or too little
    memory; `RefusedError` while another join writes to `out`. Then `out` is as it was.
    """
    rules = rules or JoinRules()
    defaults = Defaults(spec, currency, auction_type)
    bid_schema(spec)  # refuses an unusable spec before anything is read
    target = Path(out)
    with (
        staging(target) as folder,
        engine(folder / "spill", memory_limit_mb=memory_limit_mb, n_threads=n_threads) as connection,
        refusing_failures(target),
    ):
        files = _checked(files_of(fetched(events, folder / "fetched")))
        return _Join(connection, folder, defaults, rules).run(files, target, memory_limit_mb, n_threads)


class _Join:
    def __init__(
        self, connection: DuckDBPyConnection, folder: Path, defaults: Defaults, rules: JoinRules
    ) -> None:
        self._connection = connection
        self._folder = folder
        self._defaults = defaults
        self._rules = rules
        for name in ("flat", "built"):
            (folder / name).mkdir()

    def run(self, files: list[Path], out: Path, memory_limit_mb: int, n_threads: int) -> JoinReport:
        tables = event_tables([file for file in files if is_parquet(file)], self._defaults)
        flat_tables = [table for table in tables if not table.has_requests]
        with_requests = [file for table in tables if table.has_requests for file in table.files]
        lines = [file for file in files if file.suffix != ".parquet"]
        flattened = flatten(lines + with_requests, self._folder / "flat", self._defaults, n_workers=n_threads)
        n_table_rows = sum(pq.read_metadata(file).num_rows for table in flat_tables for file in table.files)
        n_read = n_table_rows + sum(found.n_lines for found in flattened)
        n_staged = n_table_rows + sum(found.n_bids + found.n_outcomes for found in flattened)
        buckets = n_buckets(n_staged, memory_limit_mb)
        bids, outcomes = self._shuffled(flat_tables, buckets)
        malformed, examples = _malformed(flattened, bids, outcomes)
        self._check_reading(n_read, bids.n_rows, malformed, examples)
        counts = JoinCounts()
        joined = self._folder / "joined"
        joined.mkdir()
        for bucket in range(buckets):
            join_bucket(self._connection, bucket, bids, outcomes, joined, self._rules, counts)
        self._check_clocks(counts)
        days = build_days(self._connection, joined, self._folder / "built", self._defaults.spec, self._rules)
        assert sum(day.n_rows for day in days) == counts.n_rows
        missing = self._missing([day.day for day in days])
        report = _report(n_read, malformed, examples, bids, outcomes, counts, days, missing, self._rules)
        _check_rows(report, n_read)
        publish(out, self._folder / "built", report)
        return report

    def _shuffled(self, tables: list[EventTable], buckets: int) -> tuple[Buckets, Buckets]:
        offsets = {
            kind: offset / timedelta(milliseconds=1) for kind, offset in self._rules.clock_offset.items()
        }
        later = {kind: ms for kind, ms in offsets.items() if kind != "bid"}
        bid_sources = [
            bids_sql(table, self._defaults, offsets.get("bid", 0.0)) for table in tables if table.has_bids
        ]
        event_sources = [outcomes_sql(table, later) for table in tables]
        bid_files = sorted((self._folder / "flat").glob("*.bids.parquet"))
        event_files = sorted((self._folder / "flat").glob("*.outcomes.parquet"))
        if bid_files:
            shift = f"timestamp_ms + {offsets.get('bid', 0.0)!r}"
            bid_sources.append(_flat(bid_files, shift))
            by_type = "".join(f" WHEN '{kind}' THEN {ms!r}" for kind, ms in later.items())
            shift = f"timestamp_ms + CASE type{by_type} ELSE 0.0 END" if by_type else "timestamp_ms"
            event_sources.append(_flat(event_files, shift))
        as_of = self._rules.as_of
        as_of_ms = None if as_of is None else as_of.astimezone(UTC).timestamp() * 1000.0
        bids = shuffle(
            self._connection, bid_sources, self._folder / "bids", bid_schema(self._defaults.spec),
            buckets=buckets, as_of_ms=as_of_ms,
        )  # fmt: skip
        outcomes = shuffle(
            self._connection, event_sources, self._folder / "outcomes", OUTCOMES,
            buckets=buckets, as_of_ms=as_of_ms,
        )  # fmt: skip
        return bids, outcomes

    def _check_reading(
        self, n_read: int, n_bids: int, malformed: Counter[str], examples: dict[str, str]
    ) -> None:
        n_malformed = malformed.total()
        if n_read and n_malformed == n_read:
            raise DataError(
                "a file of OpenRTB events has one JSON event a line",
                value=next(iter(examples.values())),
                remedy="see docs/events.md",
            )
        if n_malformed > self._rules.max_malformed * n_read:
            raise DataError(
                f"at most {self._rules.max_malformed:.1%} of the events are malformed",
                value=f"{n_malformed:,} of {n_read:,}: {dict(malformed)}, such as {next(iter(examples.values()))}",
                remedy="correct the logging, or raise max_malformed",
            )
        if not n_bids:
            raise DataError(
                "a log of OpenRTB events has bids",
                value=f"{n_read:,} events, no usable bid; {dict(malformed)}",
                remedy="give the files of bid events too",
            )

    def _check_clocks(self, counts: JoinCounts) -> None:
        for kind in EVENT_TYPES:
            n, judged = counts.dropped[kind], counts.judged[kind]
            if n > self._rules.max_out_of_time * judged:
                lags = sorted(counts.lags_ms[kind])
                lag_s = lags[len(lags) // 2] / 1000.0
                raise DataError(
                    f"at most {self._rules.max_out_of_time:.1%} of the {kind} events are out of time",
                    value=f"{n:,} of {judged:,}, typically {lag_s:+,.1f} s after their cause",
                    remedy=f"a clock may be off: set clock_offset for {kind}; or widen its window",
                )

    def _missing(self, days: list[date]) -> tuple[date, ...]:
        if not days:
            return ()
        first, last = self._rules.days or (days[0], days[-1])
        span = (first + timedelta(days=i) for i in range((last - first).days + 1))
        missing = tuple(day for day in span if day not in days)
        if missing and self._rules.days is not None:
            raise DataError(
                "every day that a join is asked for has bids",
                value=[day.isoformat() for day in missing],
                remedy="fetch the missing files, or set other days",
            )
        return missing


def _flat(files: list[Path], time: str) -> str:
    return f"SELECT * REPLACE ({time} AS timestamp_ms), NULL::VARCHAR AS bad FROM {parquet(files)}"


def _checked(files: Sequence[Path]) -> list[Path]:
    for file in files:
        if any(sign in str(file) for sign in "*?["):
            raise ConfigError(
                "names of event files are without *, ? and [", value=str(file), remedy="rename the file"
            )
    return list(files)


def _malformed(
    flattened: list[Flattened], bids: Buckets, outcomes: Buckets
) -> tuple[Counter[str], dict[str, str]]:
    malformed: Counter[str] = Counter()
    examples: dict[str, str] = {}
    parts: list[Flattened | Buckets] = [*flattened, bids, outcomes]
    for part in parts:
        malformed.update(part.malformed)
        examples = {**part.examples, **examples}
    return malformed, examples


def _check_rows(report: JoinReport, n_read: int) -> None:
    if not report.n_rows:
        raise DataError(
            "a log of OpenRTB events has bids",
            value=f"{n_read:,} events, no row; auctions set aside: {dict(report.set_aside)}",
            remedy="check days, rates and the files",
        )


def _report(
    n_read: int,
    malformed: Counter[str],
    examples: dict[str, str],
    bids: Buckets,
    outcomes: Buckets,
    counts: JoinCounts,
    days: tuple[DayReport, ...],
    missing: tuple[date, ...],
    rules: JoinRules,
) -> JoinReport:
    kinds = ("out_of_time", "repeated", "without_bid", "set_aside", "used")
    events = {
        "read": n_read,
        "malformed": malformed.total(),
        "after_watermark": bids.n_after_watermark + outcomes.n_after_watermark,
        **{name: counts.events[name] for name in kinds},
    }
    contradictory = (
        {"won_and_lost": counts.set_aside["won_and_lost"]} if counts.set_aside["won_and_lost"] else {}
    )
    reading = ReadingReport(
        {**dict(sorted(malformed.items())), **contradictory},
        dict(sorted(counts.notes.items())),
        {**examples, **counts.examples},
    )
    return JoinReport(
        events=events,
        reading=reading,
        out_of_time=dict(sorted(counts.out_of_time.items())),
        set_aside=dict(sorted(counts.set_aside.items())),
        corrected=dict(sorted(counts.corrected.items())),
        days=days,
        missing_days=missing,
        rules=rules.to_json(),
    )
