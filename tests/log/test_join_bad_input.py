"""Damage, other schemas, a full disk, a kill: an error or exact counts, nothing half-written, a rerun completes."""

from __future__ import annotations

import gzip
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bidml.errors import DataError, RefusedError
from bidml.log import join_events, read_log
from bidml.log.join.publish import staging

MIDNIGHT = 1_772_323_200_000
HOUR = 3_600_000


def bids(n: int, *, days: int = 2) -> list[dict[str, Any]]:
    request = {"at": 1, "imp": [{"id": "1"}]}
    return [
        {"type": "bid", "auction_id": f"a{i:06}", "timestamp_ms": MIDNIGHT + i * days * 24 * HOUR // n,
         "bid_cpm": 1.0 + i % 7, "currency": "USD", "request": request}
        for i in range(n)
    ]  # fmt: skip


def lines_of(events: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two days in one file."""
    path = tmp_path / "events.jsonl"
    path.write_bytes(lines_of(bids(400)))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_left_alone(out: Path, before: dict[str, bytes]) -> None:
    assert contents(out) == before
    assert not list(out.parent.glob(".*"))


DAMAGES = {
    "truncated gzip": lambda data: ("x.gz", gzip.compress(data)[:-20]),
    "truncated zstd": lambda data: ("x.zst", pa.compress(data, codec="zstd", asbytes=True)[:-20]),
    "gzip with a flipped byte": lambda data: ("x.gz", _flipped(gzip.compress(data))),
    "text for Parquet": lambda data: ("x.parquet", data),
    "truncated Parquet": lambda data: ("x.parquet", _parquet(data)[:-9]),
    "Parquet with a damaged page": lambda data: ("x.parquet", b"PAR1" + b"\x00" * 400 + _parquet(data)[404:]),
}


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def _parquet(data: bytes) -> bytes:
    rows = [json.loads(line) for line in data.splitlines()]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([{**row, "request": None, "at": 1} for row in rows]).drop_columns(
        ["request"]
    )
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_refuses_the_join(tmp_path: Path, source: Path, damage: str) -> None:
    """A `DataError`; the earlier output stays, and without the file the join completes."""
    out = tmp_path / "log"
    join_events(source, out, auction_type=1)
    before = contents(out)
    name, data = DAMAGES[damage](lines_of(bids(400)))
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=r"read to (its|their) end"):
        join_events([source, tmp_path / name], out, auction_type=1)
    assert_left_alone(out, before)
    join_events(source, out, auction_type=1)
    assert contents(out) == before


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"auction_id": ["a"], "timestamp_ms": [1], "bid_cpm": [1.0]}, "has the column type"),
        ({"type": ["bid"], "timestamp_ms": [1], "bid_cpm": [1.0]}, "has the column auction_id"),
        ({"type": ["bid"], "auction_id": ["a"], "bid_cpm": [1.0]}, "has the column timestamp_ms"),
        ({"type": ["bid"], "auction_id": [7], "timestamp_ms": [1]}, "holds text in auction_id"),
        ({"type": ["bid"], "auction_id": ["a"], "timestamp_ms": ["now"]}, "holds milliseconds"),
        ({"type": ["bid"], "auction_id": ["a"], "timestamp_ms": [1], "bid_cpm": ["1"]}, "holds numbers in bid_cpm"),
        ({"type": ["bid"], "auction_id": ["a"], "timestamp_ms": [1], "bid_cpm": [True]}, "holds numbers in bid_cpm"),
        ({"type": ["bid"], "auction_id": ["a"], "timestamp_ms": [1], "Type": ["x"]}, "each column once"),
    ],
)  # fmt: skip
def test_a_table_of_another_schema_is_refused(
    tmp_path: Path, source: Path, columns: dict[str, Any], found: str
) -> None:
    """The error names the file and the column, before anything is read."""
    pq.write_table(pa.table(columns), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=rf"{found}.*other.parquet"):
        join_events([source, tmp_path / "other.parquet"], tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_an_hour_twice_changes_nothing(tmp_path: Path, source: Path) -> None:
    """The file of an hour delivered twice is counted, and the output keeps its bytes."""
    first = join_events(source, tmp_path / "log")
    before = contents(tmp_path / "log")
    (tmp_path / "again.jsonl").write_bytes(b"".join(source.read_bytes().splitlines(keepends=True)[40:90]))
    report = join_events([source, tmp_path / "again.jsonl"], tmp_path / "log")
    assert report.reading.notes == {"repeated_bid": 50}
    assert report.n_rows == first.n_rows
    after = contents(tmp_path / "log")
    assert {name for name in after if after[name] != before[name]} == {"_join.json"}


def test_too_much_that_is_malformed_refuses_the_join(tmp_path: Path, source: Path) -> None:
    """A twentieth passes, counted; more is a fault of the logging."""
    good = source.read_bytes()
    source.write_bytes(good + b"{\n" * 21)
    assert join_events(source, tmp_path / "log").reading.malformed == {"not_json": 21}
    source.write_bytes(good + b"{\n" * 40)
    with pytest.raises(DataError, match=r"5\.0% of the events are malformed; found '?40 of 440"):
        join_events(source, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_impossible_times_do_not_make_thousands_of_days(tmp_path: Path) -> None:
    """Bids on 401 days need `days`."""
    (tmp_path / "e.jsonl").write_bytes(lines_of(bids(401, days=401)))
    with pytest.raises(DataError, match="at most 400 days"):
        join_events(tmp_path / "e.jsonl", tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_files_that_are_not_there_and_files_without_bids(tmp_path: Path, source: Path) -> None:
    """The refusals of the reader."""
    with pytest.raises(DataError, match="exists"):
        join_events(tmp_path / "none", tmp_path / "log")
    (tmp_path / "text").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="one JSON event a line"):
        join_events(tmp_path / "text", tmp_path / "log")
    (tmp_path / "wins").write_text('{"type": "win", "auction_id": "a", "timestamp_ms": 1}\n')
    with pytest.raises(DataError, match="has bids"):
        join_events(tmp_path / "wins", tmp_path / "log")
    assert not (tmp_path / "log").exists()


@contextmanager
def disk_of(n_bytes: int) -> Iterator[None]:
    """A disk on which no file grows beyond `n_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("n_bytes", [50, 4_000, 40_000])
def test_a_full_disk_leaves_the_output_alone(tmp_path: Path, source: Path, n_bytes: int) -> None:
    """While flattening, shuffling or sorting: a `DataError`, the old rows, and then room again."""
    out = tmp_path / "log"
    join_events(source, out)
    before = contents(out)
    source.write_bytes(lines_of(bids(9_000)))
    with disk_of(n_bytes), pytest.raises(DataError, match="has room"):
        join_events(source, out)
    assert_left_alone(out, before)
    assert join_events(source, out).n_rows == 9_000


KILLED = """
import os, signal, sys
from bidml.log.join import publish, run
moment, events, out = sys.argv[1:]
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
calls = 0
replace = os.replace
def replace_one(*arguments):
    global calls
    calls += 1
    die() if calls == 2 else replace(*arguments)
if moment == "publish":
    publish.os.replace = replace_one
else:
    setattr(run, moment, die)
run.join_events(events, out)
"""


@pytest.mark.parametrize("moment", ["shuffle", "join_bucket", "publish"])
def test_a_killed_join_leaves_whole_days_and_can_be_rerun(tmp_path: Path, source: Path, moment: str) -> None:
    """SIGKILL before, in the middle of and between the days: each day is old or new, never in between."""
    out, fresh = tmp_path / "log", tmp_path / "fresh"
    join_events(source, out)
    before = contents(out)
    changed = bids(400)
    changed[0]["bid_cpm"] = changed[-1]["bid_cpm"] = 99.0
    source.write_bytes(lines_of(changed))
    died = subprocess.run(
        [sys.executable, "-c", KILLED, moment, source, out], check=False, capture_output=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    join_events(source, fresh)
    old_or_new = {
        name for name, data in contents(out).items() if data not in (before[name], contents(fresh)[name])
    }
    assert not old_or_new
    assert len(read_log(out, format="parquet")) == 400
    join_events(source, out)
    assert contents(out) == contents(fresh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "fresh", "log"]


def test_one_join_at_a_time_writes_to_an_output(tmp_path: Path, source: Path) -> None:
    """The second is refused and disturbs nothing."""
    with staging(tmp_path / "log") as folder:
        (folder / "work").write_text("in progress")
        with pytest.raises(RefusedError, match="one join at a time"):
            join_events(source, tmp_path / "log")
        assert (folder / "work").read_text() == "in progress"
    assert join_events(source, tmp_path / "log").n_rows == 400


def test_the_log_can_be_read_while_it_is_joined_again(tmp_path: Path, source: Path) -> None:
    """A reader sees no unfinished file: the work is beside the output, not in it."""
    join_events(source, tmp_path / "log")
    with staging(tmp_path / "log") as folder:
        (folder / "day=2026-03-01.parquet").write_bytes(b"half")
        assert len(read_log(tmp_path / "log", format="parquet")) == 400


def test_a_report_is_no_part_of_the_log(tmp_path: Path, source: Path) -> None:
    """`read_log` of the folder takes the days alone; each can be read alone."""
    join_events(source, tmp_path / "log")
    assert (tmp_path / "log" / "_join.json").exists()
    whole = read_log(tmp_path / "log", format="parquet")
    parts = [read_log(path, format="parquet") for path in sorted((tmp_path / "log").glob("day=*"))]
    assert [len(part) for part in parts] == [200, 200]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
