"""Finding and opening log files. Whatever cannot be read is a `DataError` that names the file."""

from __future__ import annotations

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

import pyarrow as pa

from bidml.errors import DataError

Source: TypeAlias = str | PathLike[str] | Sequence[str | PathLike[str]]


def files_of(source: Source) -> list[Path]:
    """The files of `source`: a file, a folder's files (by name, hidden ones left out), or a list."""
    paths = [Path(source)] if isinstance(source, (str, PathLike)) else [Path(path) for path in source]
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith((".", "_")))
        elif path.is_file():
            files.append(path)
        else:
            raise DataError("a log file exists", value=str(path), remedy="correct the path")
    if not files:
        raise DataError("a log has files", value=[str(path) for path in paths], remedy="correct the path")
    return files


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """`path` as a stream of bytes; gzip, bzip2 and zstd are known by their first bytes, not by the name."""
    with refusing_damage(path), path.open("rb") as raw:
        start = raw.read(4)
        raw.seek(0)
        if start.startswith(b"\x1f\x8b"):
            with gzip.open(raw, "rb") as stream:
                yield io.BufferedReader(cast(io.RawIOBase, stream))
        elif start.startswith(b"BZh"):
            with bz2.open(raw, "rb") as stream:
                yield io.BufferedReader(cast(io.RawIOBase, stream))
        elif start == b"\x28\xb5\x2f\xfd":
            yield io.BufferedReader(cast(io.RawIOBase, pa.CompressedInputStream(raw, "zstd")))
        else:
            yield raw


@contextmanager
def refusing_damage(path: Path) -> Iterator[None]:
    """Turns what decompressors and Arrow raise on a damaged file into a `DataError`."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(
            f"a log file can be read to its end ({type(error).__name__}: {error})",
            value=str(path),
            remedy="it is truncated, damaged or of another format: fetch it again, or set format",
        ) from error
