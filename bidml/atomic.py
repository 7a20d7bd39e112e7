"""Files that appear whole or not at all. Standard library only."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path


def write_atomically(path: str | Path, data: bytes) -> None:
    """Writes `data` beside `path`, forces it to the disk, and renames it; raises `OSError`.

    After an error `path` is what it was, or, when only the last step failed (forcing the rename to the disk), new.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        _write(part, data)
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(part)
        raise
    sync_folder(path.parent)


def sync_folder(folder: str | Path) -> None:
    """Forces the names in `folder` to the disk; raises `OSError`."""
    _sync(os.open(folder, os.O_RDONLY))


def sync_file(path: str | Path) -> None:
    """Forces the content of `path` to the disk; raises `OSError`."""
    _sync(os.open(path, os.O_RDONLY))


def _write(path: Path, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
    except BaseException:
        _close_anyhow(file)
        raise
    _sync(file)


def _sync(file: int) -> None:
    """Forces an open file to the disk and closes it; a failed close is a failed write on some file systems."""
    try:
        os.fsync(file)
    except BaseException:
        _close_anyhow(file)
        raise
    os.close(file)


def _close_anyhow(file: int) -> None:
    with suppress(OSError):
        os.close(file)
