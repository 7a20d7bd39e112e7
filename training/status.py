"""A job's status as one JSON file, for monitors: what runs, or how it ended."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bidml.atomic import write_atomically


class Status:
    """Written whole at every change. `state`: running, done, failed; `running` with a `pid` that is gone: killed."""

    def __init__(self, path: Path, **about: Any) -> None:
        self._path = path
        self._document: dict[str, Any] = {**about, "pid": os.getpid(), "started": _now()}

    def running(self, stage: str) -> None:
        self._write(state="running", stage=stage)

    def done(self, **outcome: Any) -> None:
        self._write(state="done", exit_code=0, **outcome)

    def failed(self, error: BaseException, exit_code: int) -> None:
        self._write(state="failed", exit_code=exit_code, error=str(error), error_kind=type(error).__name__)

    def _write(self, **changes: Any) -> None:
        self._document |= {**changes, "updated": _now()}
        write_atomically(self._path, json.dumps(self._document, indent=1).encode() + b"\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
