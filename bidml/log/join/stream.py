"""The joined log, read a batch at a time, and a sample of it that says how it was drawn.

Negative downsampling keeps every click and a share of the other rows. Which ones is decided by a hash of the
`auction_id` alone, so the same auctions are kept today, tomorrow, on every machine and in every warehouse: a row is
kept when the first 13 hexadecimal digits of the MD5 of its id are below `threshold(rate)`. A smaller rate keeps a
subset. The column `sampling_rate` holds each row's rate; 1 / sampling_rate is its weight in every sum over auctions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bidml.errors import ConfigError, DataError
from bidml.log.conform import conform
from bidml.log.files import refusing_damage
from bidml.log.join.engine import engine, parquet, refusing_failures
from bidml.log.join.staged import literal, quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SAMPLING_RATE: Final = "sampling_rate"
_DIGITS: Final = 13  # 52 bits: a double holds them exactly


def stream_log(
    log: str | PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    days: tuple[date, date] | None = None,
    since: datetime | None = None,
    keep: float = 1.0,
    keep_unclicked: float = 1.0,
    keep_lost: float | None = None,
    won_only: bool = False,
    batch_rows: int = 65_536,
    memory_limit_mb: int = 600,
    n_threads: int = 2,
) -> Iterator[pa.RecordBatch]:
    """The rows of a joined log, in order of time, as Arrow batches of at most `batch_rows` rows.

    `columns` (default: all) in this order; `days`: first and last day, inclusive; `since`: the first moment;
    `won_only`: impressions. With `keep_unclicked` below 1, that share of the rows without a click, and the column
    `sampling_rate` last; `keep_lost` (default: the same) is the share for lost auctions. `keep` is the share of all
    auctions, clicked or not: with it alone the rows weigh alike.
    At most a few batches and DuckDB's memory limit are held. Raises `DataError` for a folder without the days, a
    damaged file, or days of different columns; `ConfigError` for a rate outside (0, 1].
    """
    keep_lost = keep_unclicked if keep_lost is None else keep_lost
    shares = {"keep": keep, "keep_unclicked": keep_unclicked, "keep_lost": keep_lost}
    for name, share in shares.items():
        if not 0.0 < share <= 1.0:
            raise ConfigError(f"{name} is in (0, 1]", value=share, remedy="a share, such as 0.1")
    files = files_of_days(log, days)
    kept = _Kept(keep, min(keep, keep_unclicked), min(keep, keep_lost))
    query = _query(files, columns, kept, since, won_only)
    with (
        TemporaryDirectory(prefix="bidml.") as spill,
        engine(Path(spill), memory_limit_mb=memory_limit_mb, n_threads=n_threads) as connection,
        refusing_failures(Path(log)),
    ):
        yield from _batches(connection, query, batch_rows)


def read_sample(
    log: str | PathLike[str],
    *,
    columns: Sequence[str] | None = None,
    days: tuple[date, date] | None = None,
    since: datetime | None = None,
    keep: float = 1.0,
    keep_unclicked: float = 1.0,
    keep_lost: float | None = None,
    won_only: bool = False,
) -> pd.DataFrame:
    """What `stream_log` gives, as a table in the schema's types: what `validate` and the fits take."""
    batches = list(
        stream_log(
            log,
            columns=columns,
            days=days,
            since=since,
            keep=keep,
            keep_unclicked=keep_unclicked,
            keep_lost=keep_lost,
            won_only=won_only,
        )
    )
    if not batches:
        raise DataError("a sample has rows", value=str(log), remedy="keep more, or choose other days")
    return conform(pa.Table.from_batches(batches).to_pandas())


def files_of_days(log: str | PathLike[str], days: tuple[date, date] | None = None) -> list[Path]:
    """The files of a joined log in order of time; raises `DataError` for none, and for a chosen day not there."""
    found: dict[date, list[Path]] = {}
    for path in sorted(Path(log).glob("day=????-??-??/*.parquet")):
        found.setdefault(date.fromisoformat(path.parent.name.removeprefix("day=")), []).append(path)
    if days is None:
        if not found:
            raise DataError(
                "a joined log has folders day=YYYY-MM-DD", value=str(log), remedy="write it with bidml join"
            )
        return [path for files in found.values() for path in files]
    wanted = [date.fromordinal(number) for number in range(days[0].toordinal(), days[1].toordinal() + 1)]
    missing = [day.isoformat() for day in wanted if day not in found]
    if missing or not wanted:
        raise DataError(
            "a log has every day that is read", value=missing, remedy="join them, or choose other days"
        )
    return [path for day in wanted for path in found[day]]


def threshold(rate: float) -> str:
    """The hexadecimal prefix below which a share `rate` < 1 of all hashes is.

    >>> threshold(0.5), threshold(0.1)
    ('8000000000000', '1999999999999')
    """
    return f"{int(rate * 16**_DIGITS):0{_DIGITS}x}"


@dataclass(frozen=True, slots=True)
class _Kept:
    """Shares of the rows that are kept."""

    clicked: float
    unclicked: float
    lost: float


def _below(hashed: str, share: float) -> str:
    return "true" if share == 1.0 else f"{hashed} < {literal(threshold(share))}"


def _query(
    files: list[Path],
    columns: Sequence[str] | None,
    kept: _Kept,
    since: datetime | None,
    won_only: bool,
) -> str:
    known: list[str] | None = None
    for file in files:
        with refusing_damage(file):
            names = pq.read_schema(file).names
        if known is not None and names != known:
            raise DataError(
                "all days of a log have the same columns",
                value=f"{sorted(set(names) ^ set(known))} in {file}",
                remedy="join the days with one spec",
            )
        known = names
    assert known is not None  # there are files
    chosen = list(known if columns is None else columns)
    missing = [name for name in chosen if name not in known]
    if missing:
        raise DataError("the log has the columns to read", value=missing, remedy=f"among {known}")
    selected = [quoted(name) for name in chosen]
    where = ["won"] if won_only else []
    if since is not None:
        where.append(f"timestamp >= {literal(since.isoformat())}::TIMESTAMPTZ")
    if min(kept.clicked, kept.unclicked, kept.lost) < 1.0:
        rate = (
            f"CASE WHEN clicked THEN {kept.clicked!r} WHEN won THEN {kept.unclicked!r} ELSE {kept.lost!r} END"
        )
        selected.append(f"{rate}::DOUBLE AS {SAMPLING_RATE}")
        hashed = f"substr(md5(auction_id), 1, {_DIGITS})"
        rows = (("clicked", kept.clicked), ("won AND NOT clicked", kept.unclicked), ("NOT won", kept.lost))
        where.append(f"({' OR '.join(f'({which} AND {_below(hashed, share)})' for which, share in rows)})")
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    return f"SELECT {', '.join(selected)} FROM {parquet(files)}{condition}"


def _batches(connection: DuckDBPyConnection, query: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    connection.execute("SET preserve_insertion_order = true")
    for batch in connection.sql(query).to_arrow_reader(batch_rows):
        if batch.num_rows:
            yield batch
