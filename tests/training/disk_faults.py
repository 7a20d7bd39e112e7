"""Disks that fail: an error at a chosen system call, and what a power cut leaves.

Both replace functions of `os` (and what `pathlib` and `fcntl` call) for a while; the code under test is not changed.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CALLS = (
    (os, "open"),
    (os, "write"),
    (os, "fsync"),
    (os, "close"),
    (os, "replace"),
    (os, "unlink"),
    (os, "listdir"),
    (os, "mkdir"),
    (os, "stat"),
    (io, "open"),
    (fcntl, "flock"),
)
ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EINTR)


@dataclass
class Fault:
    """The `at`-th call (from 0) fails with `error`; `persistent`: every later one too. at=None only counts."""

    at: int | None = None
    error: int = errno.EIO
    persistent: bool = False
    n_calls: int = 0
    names: list[str] = field(default_factory=list)

    def strikes(self, name: str) -> bool:
        number = self.n_calls
        self.n_calls += 1
        self.names.append(name)
        return self.at is not None and (number == self.at or (self.persistent and number > self.at))


@contextmanager
def failing(fault: Fault) -> Iterator[Fault]:
    """Inside, calls of the file system fail as `fault` says. A failing close closes, as Linux does."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in CALLS:
            patch.setattr(module, name, _struck(getattr(module, name), name, fault))
        yield fault


def _struck(call: Callable[..., Any], name: str, fault: Fault) -> Callable[..., Any]:
    def struck(*args: Any, **options: Any) -> Any:
        if not fault.strikes(name):
            return call(*args, **options)
        if name == "close":
            call(*args, **options)
        raise OSError(fault.error, os.strerror(fault.error))

    return struck


@contextmanager
def short_writes() -> Iterator[None]:
    """Every write takes at most 1000 bytes, as a write may."""
    write = os.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:1000]))
        yield


@dataclass
class _File:
    data: bytes = b""
    durable: bytes = b""


class PowerCuts:
    """Follows what is written to one flat folder, and knows what a power cut at any moment may leave of it.

    The model: content is lost back to the last fsync of its file, or was written; names (create, rename, remove) reach
    the disk in order, at the latest with an fsync of the folder. `states()` lists the worst mixtures at this moment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, _File] = {
            path.name: _File(path.read_bytes(), path.read_bytes()) for path in folder.iterdir()
        }
        self._durable_names = dict(self._names)
        self._pending: list[Callable[[dict[str, _File]], None]] = []
        self._open: dict[int, _File | None] = {}

    def states(self) -> Iterator[dict[str, bytes]]:
        for n_names in range(len(self._pending) + 1):
            names = dict(self._durable_names)
            for change in self._pending[:n_names]:
                change(names)
            for lost in (True, False):
                yield {name: file.durable if lost else file.data for name, file in names.items()}

    @contextmanager
    def recorded(self, after_each_call: Callable[[], None]) -> Iterator[None]:
        real = {name: getattr(os, name) for name in ("open", "write", "fsync", "close", "replace", "unlink")}

        def apply(change: Callable[[dict[str, _File]], None]) -> None:
            change(self._names)
            self._pending.append(change)
            after_each_call()

        def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
            file: int = real["open"](path, flags, *args, **options)
            where = Path(path)
            if where == self._folder:
                self._open[file] = None
            elif where.parent == self._folder:
                name = where.name
                if name not in self._names:
                    made = _File()
                    apply(lambda names: names.__setitem__(name, made))
                elif flags & os.O_TRUNC:
                    self._names[name].data = b""
                self._open[file] = self._names[name]
            return file

        def write(file: int, data: Any) -> int:
            n: int = real["write"](file, data)
            target = self._open.get(file)
            if target is not None:
                target.data += bytes(data[:n])
                after_each_call()
            return n

        def fsync(file: int) -> None:
            real["fsync"](file)
            if file not in self._open:
                return
            target = self._open[file]
            if target is None:
                self._durable_names = dict(self._names)
                self._pending.clear()
            else:
                target.durable = target.data
            after_each_call()

        def close(file: int) -> None:
            real["close"](file)
            self._open.pop(file, None)

        def replace(source: Any, target: Any) -> None:
            real["replace"](source, target)
            old, new = Path(source).name, Path(target).name
            apply(lambda names: names.__setitem__(new, names.pop(old)))

        def unlink(path: Any) -> None:
            real["unlink"](path)
            name = Path(path).name
            apply(lambda names: names.pop(name))

        with pytest.MonkeyPatch.context() as patch:
            for function in (write, fsync, close, replace, unlink):
                patch.setattr(os, function.__name__, function)
            patch.setattr(os, "open", opened)
            yield


def materialise(state: dict[str, bytes], folder: Path) -> None:
    """Makes `folder` hold exactly `state`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in state.items():
        (folder / name).write_bytes(data)
