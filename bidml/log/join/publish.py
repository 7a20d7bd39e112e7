"""Output that is whole or not there: everything is built beside the output, then renamed into it, day by day."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bidml.atomic import write_atomically
from bidml.contract import FeatureSpec
from bidml.errors import ConfigError, DataError, RefusedError
from bidml.log.join.bucket import ORDER_COLUMN
from bidml.log.join.engine import copy, parquet
from bidml.log.join.report import DayReport, JoinReport
from bidml.log.join.rules import JoinRules
from bidml.log.join.staged import JOINED_COLUMNS, literal, quoted, staged_names
from bidml.log.schema import COLUMN

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

METADATA_KEY: Final = "bidml.join"
REPORT_NAME: Final = "_join.json"
FILE_NAME: Final = "auctions.parquet"
_MOST_DAYS: Final = 400
_ROW_GROUP: Final = 122_880


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, on its disk, that is gone afterwards; what a killed join left is removed.

    Raises `RefusedError` while another join writes to `out`.
    """
    if any(sign in str(out) for sign in "*?[") or (out.exists() and not out.is_dir()):
        raise ConfigError(
            "the output is a folder, without *, ? and [", value=str(out), remedy="choose another"
        )
    folder = out.parent / f".{out.name}.joining"
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(out) from None
        if not folder.exists() or folder.stat().st_ino != os.fstat(handle).st_ino:
            raise _busy(out)  # the other one has just finished, and removed the folder
        try:
            _empty(folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def build_days(
    connection: DuckDBPyConnection, joined: Path, built: Path, spec: FeatureSpec | None, rules: JoinRules
) -> tuple[DayReport, ...]:
    """Sorts each day of the `joined` buckets, by time and auction_id, into one file below `built`."""
    numbers = sorted({int(path.name.removeprefix("day=")) for path in joined.glob("*/day=*")})
    if len(numbers) > _MOST_DAYS:
        raise DataError(
            f"one join writes at most {_MOST_DAYS} days",
            value=f"{len(numbers)} days from {_date(numbers[0])} to {_date(numbers[-1])}",
            remedy="set days to leave out bids with impossible times",
        )
    staged = staged_names(spec)
    columns = [quoted(name) for name in JOINED_COLUMNS]
    columns += [f"{quoted(staged[name])} AS {quoted(name)}" for name in staged if name not in COLUMN]
    connection.execute("SET preserve_insertion_order = true")
    return tuple(_build_day(connection, number, joined, built, columns, rules) for number in numbers)


def publish(out: Path, built: Path, report: JoinReport) -> None:
    """Renames the built days into `out`, each at once, then writes the report."""
    for day in report.days:
        folder = out / f"day={day.day}"
        folder.mkdir(parents=True, exist_ok=True)
        source = built / f"{day.day}.parquet"
        _to_disk(source)
        os.replace(source, folder / FILE_NAME)
        _to_disk(folder)
    write_atomically(out / REPORT_NAME, json.dumps(report.to_json(), indent=1, ensure_ascii=False).encode())


def _build_day(
    connection: DuckDBPyConnection,
    number: int,
    joined: Path,
    built: Path,
    columns: list[str],
    rules: JoinRules,
) -> DayReport:
    rows = parquet(sorted(joined.glob(f"*/day={number}/*.parquet")))
    found = connection.execute(
        "SELECT count(*), count(*) FILTER (won), count(*) FILTER (clicked), count(*) FILTER (converted), "
        f"list_sort(list(DISTINCT currency)) FROM {rows}"
    ).fetchone()
    assert found is not None  # an aggregate has one row
    n_rows, n_won, n_clicked, n_converted, currencies = found
    day = _date(number)
    report = DayReport(
        day, n_rows, n_won, n_clicked, n_converted, tuple(currencies or ()), rules.is_final(day)
    )
    described = literal(json.dumps({**report.to_json(), "rules": rules.to_json()}, ensure_ascii=False))
    n_written = copy(
        connection,
        f"SELECT {', '.join(columns)} FROM {rows} ORDER BY {ORDER_COLUMN}, auction_id",
        built / f"{day}.parquet",
        f"COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE {_ROW_GROUP}, "
        f"KV_METADATA {{{quoted(METADATA_KEY)}: {described}}}",
    )
    assert n_written == n_rows
    return report


def _date(number: int) -> date:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=number)).date()


def _busy(out: Path) -> RefusedError:
    return RefusedError(
        "one join at a time writes to an output", value=str(out), remedy="wait for the other one"
    )


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
