"""Events from a store: the rows of the local files, or an error that names the URI; nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from bidml.errors import ConfigError, DataError
from bidml.log import join_events, read_log


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    """A bucket in memory, with two files of one name."""
    files = fsspec.filesystem("memory")
    for day in (1, 2):
        start = 1_772_323_200_000 + (day - 1) * 86_400_000
        bids = [
            {
                "type": "bid",
                "auction_id": f"{day}{i}",
                "timestamp_ms": start + i,
                "bid_cpm": 1.0,
                "request": {"at": 1, "imp": [{}]},
            }
            for i in range(20)
        ]
        files.pipe(f"/bucket/day{day}/bids.jsonl", "\n".join(map(json.dumps, bids)).encode())
    files.pipe("/bucket/_SUCCESS", b"")
    yield files
    files.rm("/bucket", recursive=True)


def test_a_uri_is_the_files_behind_it(store: MemoryFileSystem, tmp_path: Path) -> None:
    """A folder, wildcards and single files; marker files are left out."""
    local = tmp_path / "events"
    store.get("/bucket/", str(local), recursive=True)
    join_events(local, tmp_path / "expected", currency="USD")
    expected = read_log(tmp_path / "expected", format="parquet")
    assert len(expected) == 40
    for i, source in enumerate(
        (
            "memory://bucket",
            "memory://bucket/day*/*.jsonl",
            ["memory://bucket/day1/bids.jsonl", local / "day2" / "bids.jsonl"],
        )
    ):
        join_events(source, tmp_path / str(i), currency="USD")
        pd.testing.assert_frame_equal(read_log(tmp_path / str(i), format="parquet"), expected)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("uri", "error", "words"),
    [
        ("memory://bucket/none", DataError, "memory://bucket/none"),
        ("memory://bucket/day9*", DataError, "has files"),
        ("nosuchscheme://bucket/x", DataError, "nosuchscheme"),
    ],
)
def test_what_is_not_there_is_told(
    store: MemoryFileSystem, tmp_path: Path, uri: str, error: type[Exception], words: str
) -> None:
    """With the URI, and no output."""
    with pytest.raises(error, match=words):
        join_events(uri, tmp_path / "log", currency="USD")
    assert not list(tmp_path.iterdir())


def test_a_transfer_that_ends_early_is_told(
    store: MemoryFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JSON file cut between lines would otherwise be a smaller log."""
    whole = store.cat_file("/bucket/day1/bids.jsonl")
    cut = whole[: whole.index(b"\n") + 1]
    monkeypatch.setattr(MemoryFileSystem, "get_file", lambda self, name, to: Path(to).write_bytes(cut))
    with pytest.raises(DataError, match="bytes arrived"):
        join_events("memory://bucket/day1", tmp_path / "log", currency="USD")


def test_without_fsspec_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a URI needs it."""
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"bidml\[remote\]"):
        join_events("s3://bucket/x", tmp_path / "log")
