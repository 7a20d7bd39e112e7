"""What ranks agree on before they read, and what the ranks other than 0 do in a retraining: read, and fit along.

Rank 0 alone compares with the champion, judges, publishes and keeps stages. The others stay until it has ended, so that
a job ends in the same way everywhere, and is run again as a whole.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bidml.errors import ConfigError
from bidml.fit.crew import ALONE, Crew
from bidml.train.config import ModelPart, TrainConfig
from bidml.train.report_files import Stages
from training.config import RetrainConfig
from training.intake import wait_for_files
from training.ranks.meeting import PATIENT, Machine, Patience, machines_of
from training.ranks.parts import helped
from training.ranks.star import meet
from training.stages import Stage, Workshop
from training.steps import data_of, fit_part, read_window
from training.window import Window

_PACKAGES: Final = ("lightgbm", "numpy", "pandas", "scipy")


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of the `machines` this process is."""

    rank: int
    machines: tuple[Machine, ...]
    patience: Patience = PATIENT


def ranks_of(rank: int | None, machines: str | None, patience: Patience) -> Ranks | None:
    """From the command line; None alone. Raises `ConfigError` for one option without the other."""
    if rank is None and machines is None:
        return None
    if rank is None or machines is None:
        raise ConfigError(
            "one of several machines says which, and where all are",
            value={"rank": rank, "machines": machines},
            remedy="give --rank and --machines",
        )
    return Ranks(rank, machines_of(machines), patience)


def crew_of(
    ranks: Ranks | None, config: RetrainConfig, window: Window, *, code: str
) -> AbstractContextManager[Crew]:
    """The crew of one job, once all ranks have met; without `ranks` this process alone.

    Raises `ConfigError` for a section [cvr]: conversions are few, and one machine fits them; and for a sampled log.
    """
    if ranks is None:
        return nullcontext(ALONE)
    if config.train.log.is_sampled:
        raise ConfigError(
            "ranks share a whole log",
            value="train.log.keep_unclicked or keep_lost below 1, and --machines",
            remedy="leave the shares out, or train the sample on one machine",
        )
    if config.train.cvr is not None:
        raise ConfigError(
            "a CVR model is fitted by one machine", value="[train.cvr]", remedy="leave the section out"
        )
    if config.train.ctr.uncertainty:
        raise ConfigError(
            "an uncertainty is fitted by one machine", value="ctr.uncertainty", remedy="leave it out"
        )
    return meet(ranks.rank, ranks.machines, about(config, window, code=code), ranks.patience)


def about(config: RetrainConfig, window: Window, *, code: str) -> dict[str, Any]:
    """What must be the same on all ranks: the code and what it computes with, the configuration but for its paths."""
    document = config.model_dump(mode="json", exclude={"train", "publish", "mlflow"})
    document["train"] = config.train.provenance() | {"features": config.train.features}
    text = json.dumps(document, sort_keys=True)
    return {
        "code": code,
        "config": hashlib.sha256(text.encode()).hexdigest(),
        "window": str(window),
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def read_stage(
    workshop: Workshop, config: RetrainConfig, window: Window, crew: Crew, announce: Stages
) -> Stage:
    """This rank's rows of the window, once its days are complete."""
    with announce("wait for complete days"):
        intake = wait_for_files(str(config.train.log.path), config.data, window)
    inputs: dict[str, Any] = {
        "files": intake.digest,
        "log": config.train.log.model_dump(mode="json", exclude={"path"}),
        "train": config.train.provenance() | {"features": config.train.features},
        "data": config.data.model_dump(),
        "window": str(window),
    }
    if crew.size > 1:
        inputs["share"] = [crew.rank, crew.size]
    return workshop.run(
        "read",
        inputs,
        lambda folder: read_window(config, window, intake, folder, crew),
        says="read and check the log",
    )


def help_along(
    config: RetrainConfig, window: Window, out: Path, crew: Crew, workshop: Workshop, announce: Stages
) -> Path:
    """A rank other than 0: the folder with its parts, the same as those of rank 0, once rank 0 has ended its job."""
    folder = out / str(window)
    read = read_stage(workshop, config, window, crew, announce)
    data = data_of(read, config.train, crew)
    win: Path | None = None
    for part in order_of_parts(config.train):
        with announce(f"fit with the others: {part}"):
            make = partial(fit_part, part, config.train, data, win_part=win, crew=crew)
            made = helped(crew, make, folder / part.value)
        win = made if part is ModelPart.WIN else win
    workshop.forget_old()
    with announce("wait for rank 0 to judge and publish"):
        crew.told(b"")
    return folder


def order_of_parts(config: TrainConfig) -> list[ModelPart]:
    """The win curve first: clicks are weighted by it."""
    return sorted(config.parts, key=lambda part: part is not ModelPart.WIN)
