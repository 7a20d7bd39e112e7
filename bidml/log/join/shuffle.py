"""All events into buckets by a hash of the auction: afterwards an auction is in one bucket, and a bucket in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from bidml.log.join.engine import copy, parquet
from bidml.log.join.staged import quoted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MALFORMED: Final = -1
_AFTER_WATERMARK: Final = -2
_MOST_BUCKETS: Final = 256  # each is an open file and a buffer of every thread
_ROWS_PER_MEGABYTE: Final = 800


@dataclass
class Buckets:
    """Where the buckets of one kind of row are, and what was left out on the way."""

    folder: Path
    schema: pa.Schema
    n_rows: int = 0
    n_after_watermark: int = 0
    malformed: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def sql(self, bucket: int) -> str:
        """The rows of one bucket."""
        files = sorted((self.folder / f"bucket={bucket}").glob("*.parquet"))
        if files:
            return f"SELECT {', '.join(map(quoted, self.schema.names))} FROM {parquet(files)}"
        return f"SELECT {', '.join(_null_of(column) for column in self.schema)} WHERE false"


def n_buckets(n_rows: int, memory_limit_mb: int) -> int:
    """So many that a bucket takes a fraction of the memory, whatever the number of rows."""
    return max(1, min(_MOST_BUCKETS, -(-n_rows // (_ROWS_PER_MEGABYTE * memory_limit_mb))))


def shuffle(
    connection: DuckDBPyConnection,
    sources: list[str],
    folder: Path,
    schema: pa.Schema,
    *,
    buckets: int,
    as_of_ms: float | None,
) -> Buckets:
    """Writes the rows of `sources` (SQL, the columns of `schema` and `bad`) below `folder`, by bucket."""
    found = Buckets(folder, schema)
    if not sources:
        return found
    after = "" if as_of_ms is None else f"WHEN timestamp_ms >= {as_of_ms!r} THEN {_AFTER_WATERMARK}"
    copy(
        connection,
        f"SELECT *, CASE WHEN bad IS NOT NULL THEN {_MALFORMED} {after} "
        f"ELSE (hash(auction_id) % {buckets})::INTEGER END AS bucket FROM ({' UNION ALL '.join(sources)})",
        folder,
        "COMPRESSION uncompressed, PARTITION_BY (bucket)",
    )
    for bucket, files in _files_by_bucket(folder).items():
        n = _count(connection, files)
        if bucket == _MALFORMED:
            rows = connection.execute(
                f"SELECT bad, count(*), coalesce(min(auction_id), '') FROM {parquet(files)} GROUP BY bad ORDER BY bad"
            ).fetchall()
            found.malformed = {rule: count for rule, count, _ in rows}
            found.examples = {rule: example[:200] for rule, _, example in rows}
        elif bucket == _AFTER_WATERMARK:
            found.n_after_watermark = n
        else:
            found.n_rows += n
    return found


def _files_by_bucket(folder: Path) -> dict[int, list[Path]]:
    return {
        int(path.name.removeprefix("bucket=")): sorted(path.glob("*.parquet"))
        for path in sorted(folder.glob("bucket=*"))
    }


def _count(connection: DuckDBPyConnection, files: list[Path]) -> int:
    row = connection.execute(f"SELECT count(*) FROM {parquet(files)}").fetchone()
    return int(row[0]) if row else 0


_SQL_TYPE: Final = {
    pa.string(): "VARCHAR",
    pa.float64(): "DOUBLE",
    pa.int64(): "BIGINT",
    pa.uint64(): "UBIGINT",
}


def _null_of(column: pa.Field) -> str:
    return f"NULL::{_SQL_TYPE[column.type]} AS {quoted(column.name)}"
