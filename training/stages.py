"""Resumable stages: what a stage made is kept under the digest of all it was made from, and used again.

A stage writes into a folder of its own, which gets its name by rename when the stage has ended; so a stage is done or
not. Its outputs are listed with their digests: a stage whose outputs were damaged is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bidml.train.report_files import Stages

_LIST: Final = "stage.json"
_KEPT: Final = 3


@dataclass(frozen=True, slots=True)
class Stage:
    """A finished stage: its folder, the digest of its outputs, and whether it was there already."""

    folder: Path
    digest: str
    was_there: bool

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


class Workshop:
    """The stages below `folder`. One job at a time: the caller holds a lock. `code` is part of every key."""

    def __init__(self, folder: Path, *, code: str, announce: Stages) -> None:
        self._folder = folder
        self._code = code
        self._announce = announce
        self.done: list[tuple[str, Stage]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".making-*"):
            shutil.rmtree(left)

    def run(
        self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None], *, says: str = ""
    ) -> Stage:
        """The stage `name` of `inputs` (JSON; all that its outputs depend on); `make` writes them into a folder.

        Whatever `make` raises passes, and leaves nothing.
        """
        folder = self._place(name, inputs)
        digest = _intact(folder)
        if digest is not None:
            os.utime(folder)
            return self._note(name, Stage(folder, digest, was_there=True))
        shutil.rmtree(folder, ignore_errors=True)
        making = self._folder / f".making-{name}-{os.getpid()}"
        making.mkdir()
        try:
            with self._announce(says or name):
                make(making)
            outputs = _outputs(making)
            (making / _LIST).write_text(
                json.dumps({"inputs": inputs, "outputs": outputs}, indent=1, sort_keys=True)
            )
            making.rename(folder)
        finally:
            shutil.rmtree(making, ignore_errors=True)
        return self._note(name, Stage(folder, _digest_of(outputs), was_there=False))

    def holds(self, name: str, inputs: Mapping[str, Any]) -> bool:
        """Whether the stage `name` of `inputs` is there and whole."""
        return _intact(self._place(name, inputs)) is not None

    def forget_old(self) -> None:
        """Removes all but the newest few of each kind of stage; this job's stay."""
        mine = {stage.folder for _, stage in self.done}
        for name in {name for name, _ in self.done}:
            found = [path for path in self._folder.glob(f"{name}-*") if path not in mine]
            for path in sorted(found, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
                shutil.rmtree(path, ignore_errors=True)

    def _place(self, name: str, inputs: Mapping[str, Any]) -> Path:
        key = _digest_of({"name": name, "code": self._code, "inputs": inputs})
        return self._folder / f"{name}-{key[:24]}"

    def _note(self, name: str, stage: Stage) -> Stage:
        self.done.append((name, stage))
        return stage


def _intact(folder: Path) -> str | None:
    try:
        outputs = json.loads((folder / _LIST).read_text())["outputs"]
        return _digest_of(outputs) if outputs == _outputs(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _outputs(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != _LIST
    }


def _digest_of(document: Any) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
