"""DuckDB, opened for one join: its memory, threads and temporary files; its errors as ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bidml.errors import ConfigError, DataError
from bidml.log.join.staged import literal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_DISK: Final = ("no space left", "could not write", "failed to write", "file too large", "disk quota")
_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def engine(temporary: Path, *, memory_limit_mb: int, n_threads: int) -> Iterator[DuckDBPyConnection]:
    """A private in-memory database that spills into `temporary`. Times are UTC; extensions are not fetched."""
    if memory_limit_mb < 100 or n_threads < 1:
        raise ConfigError(
            "a join has at least 100 MB and one thread",
            value=f"{memory_limit_mb} MB, {n_threads} threads",
            remedy="raise them",
        )
    try:
        import duckdb
    except ImportError:
        raise ConfigError(
            "the join of events needs duckdb", value="not installed", remedy="pip install bidml[train]"
        ) from None
    connection = duckdb.connect(
        config={
            "memory_limit": f"{memory_limit_mb}MB",
            "threads": n_threads,
            "temp_directory": str(temporary),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
    )
    try:
        connection.execute("SET TimeZone = 'UTC'")
        with suppress(
            duckdb.InvalidInputException
        ):  # in Jupyter without ipywidgets: there is no bar then, either
            connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


@contextmanager
def refusing_failures(out: Path) -> Iterator[None]:
    """What DuckDB and the disk raise, as errors of the family; nothing has been published by then."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise ConfigError(
            "the join fits its memory limit and temporary disk",
            value=str(error),
            remedy="raise memory_limit_mb, free disk space, or join fewer days at once",
        ) from error
    except (duckdb.Error, OSError) as error:
        is_disk = getattr(error, "errno", None) in _NO_ROOM or any(
            sign in str(error).lower() for sign in _DISK
        )
        if is_disk:
            raise DataError(
                f"the disk of {out} has room for the output and as much again",
                value=str(error),
                remedy="free some and run again; what was there before is untouched",
            ) from error
        raise DataError(
            f"events can be read to their end ({type(error).__name__})",
            value=str(error),
            remedy="a file is damaged, or out cannot be written: see the message",
        ) from error


def copy(connection: DuckDBPyConnection, query: str, target: Path, options: str) -> int:
    """Writes the rows of `query` as Parquet; their number."""
    found = connection.execute(f"COPY ({query}) TO {literal(str(target))} (FORMAT parquet, {options})")
    row = found.fetchone()
    return int(row[0]) if row else 0


def parquet(files: list[Path]) -> str:
    """The rows of `files` in SQL, without columns from their paths."""
    return f"read_parquet([{', '.join(literal(str(file)) for file in files)}], hive_partitioning=false)"
