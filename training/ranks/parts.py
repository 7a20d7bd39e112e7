"""One part of a model, fitted by all ranks at once, kept by rank 0 as a stage, and the same on every rank."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bidml.atomic import write_atomically
from bidml.errors import RefusedError
from bidml.fit.crew import Crew
from training.stages import Stage, Workshop
from training.steps import PART

_THERE: Final = b"there"


def led(
    crew: Crew,
    workshop: Workshop,
    name: str,
    inputs: Mapping[str, Any],
    make: Callable[[Path], None],
    *,
    says: str,
) -> Stage:
    """Rank 0's side (or that of one machine alone): the stage, made with the others or there already.

    Raises `RefusedError` on every rank when they did not all make the same bytes.
    """
    if crew.size == 1:
        return workshop.run(name, inputs, make, says=says)
    there = workshop.holds(name, inputs)
    crew.told(_THERE if there else b"")

    def made(folder: Path) -> None:
        make(folder)
        _agree(crew, (folder / PART).read_bytes())

    stage = workshop.run(name, inputs, made, says=says)
    if there:
        crew.told((stage / PART).read_bytes())
    return stage


def helped(crew: Crew, make: Callable[[Path], None], folder: Path) -> Path:
    """The other ranks' side: `folder`/part.onnx, made with the others, or as rank 0 has it."""
    folder.mkdir(parents=True, exist_ok=True)
    if crew.told(b"")[0] == _THERE:
        write_atomically(folder / PART, crew.told(b"")[0])
    else:
        make(folder)
        _agree(crew, (folder / PART).read_bytes())
    return folder / PART


def _agree(crew: Crew, part: bytes) -> None:
    digests = [told.decode() for told in crew.told(hashlib.sha256(part).hexdigest().encode())]
    if len(set(digests)) > 1:
        raise RefusedError(
            "all ranks make the same model",
            value=[digest[:12] for digest in digests],
            remedy="this is an error of bidml, or of a machine: report it",
        )
