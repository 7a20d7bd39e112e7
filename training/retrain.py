"""`python -m training.retrain --config FILE --window FIRST/LAST`: from a window of logs to a published model, or not.

Complete? → read → drift → fit → evaluate, export, certify → gate → report → publish. Each stage is kept under the
digest of its inputs, of the configuration it reads and of the code: a job that was killed, run again, repeats only
what is missing, and ends with the same bytes. A refusal names its reasons and changes nothing.

With `--rank R --machines HOST:PORT,…` the job is one of several, each on its share of the auctions (training.ranks).
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bidml import __version__
from bidml.atomic import write_atomically
from bidml.errors import BidmlError, ConfigError, RefusedError
from bidml.export import write_model
from bidml.fit.crew import Crew
from bidml.score.publication import Publication, read_publication
from bidml.train.code import code_digest
from bidml.train.config import ModelPart
from bidml.train.prepare import TrainingData
from bidml.train.report_files import Stages
from bidml.train.run import maturity_of
from training.base import base_of
from training.command import key_in, run
from training.config import RetrainConfig, load_retrain_config
from training.decision import Decision
from training.gate import Verdict
from training.ranks.job import Ranks, crew_of, help_along, order_of_parts, ranks_of, read_stage
from training.ranks.meeting import Patience
from training.ranks.parts import led
from training.stages import Stage, Workshop
from training.status import Status
from training.steps import (
    ALARMS,
    CARD,
    CERTIFICATE,
    DATA,
    METRICS,
    MODEL,
    PART,
    PROFILE,
    QUARANTINE,
    REPORT,
    check_drift,
    data_of,
    fit_part,
    make_model,
    write_report,
)
from training.window import Window

_PROFILES: Final = "profiles"
_SAID: Final = {
    ModelPart.CTR: "the CTR model",
    ModelPart.WIN: "the win curve",
    ModelPart.CVR: "the CVR model",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended well. `generation`: what is published now; None without [publish].

    `stages`: (name, whether it was there already), in order.
    """

    folder: Path
    sha256: str
    generation: int | None
    published: bool
    stages: tuple[tuple[str, bool], ...]


def retrain(
    config: RetrainConfig,
    window: Window,
    out: str | Path,
    *,
    announce: Stages,
    dry_run: bool = False,
    refresh: bool = False,
    ranks: Ranks | None = None,
) -> Outcome | None:
    """Runs the job; its files appear in `out`/<window>, its stages in `out`/stages, its state in `out`/status.json.

    `dry_run` judges and does not publish. `refresh` moves the champion by the window's rows (`bidml.fit.refresh`)
    instead of fitting anew; without a champion it fits; one machine does it. With `ranks` this process is one of
    several; those other than rank 0 work in `out`/rank-N, and return None once rank 0 has ended well. Raises
    `ConfigError`, `DataError`, `RefusedError` (also when another job works in `out`, and when the gate says no),
    `LostRankError`, `OSError`.
    """
    if ranks and refresh:
        raise ConfigError(
            "one machine refreshes a champion",
            value="--refresh with --machines",
            remedy="a refresh is one pass over the rows: give one machine a shorter window",
        )
    rank = ranks.rank if ranks else 0
    out = Path(out) / f"rank-{rank}" if rank else Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with _alone_in(out):
        status = Status(
            out / "status.json", job="retrain", window=str(window), **({"rank": rank} if ranks else {})
        )
        try:
            status.running("meet the other ranks") if ranks else None
            with crew_of(ranks, config, window, code=job_code_digest()) as crew:
                job = _Job(config, window, out, announce, status, crew)
                outcome = None
                if rank == 0:
                    outcome = job.run(dry_run=dry_run, refresh=refresh)
                else:
                    job.help_along()
        except BaseException as error:
            status.failed(error, error.exit_code if isinstance(error, BidmlError) else 1)
            raise
        if outcome is None:
            status.done()
        else:
            status.done(artifact=outcome.sha256, generation=outcome.generation, published=outcome.published)
        return outcome


class _Job:
    def __init__(
        self,
        config: RetrainConfig,
        window: Window,
        out: Path,
        announce: Stages,
        status: Status,
        crew: Crew,
    ) -> None:
        self._crew = crew
        self._config = config
        self._window = window
        self._out = out
        self._folder = out / str(window)
        self._status = status

        def stages(name: str) -> Any:
            crew.check()  # also before anything is published
            status.running(name)
            return announce(name)

        self._announce = stages
        self._workshop = Workshop(out / "stages", code=job_code_digest(), announce=stages)

    def help_along(self) -> None:
        help_along(self._config, self._window, self._out, self._crew, self._workshop, self._announce)

    def run(self, *, dry_run: bool, refresh: bool) -> Outcome:
        config = self._config
        key = key_in(Path(config.publish.key_file)) if config.publish and config.publish.key_file else None
        champion = read_publication(config.publish.folder, key=key) if config.publish else None
        base = base_of(config.publish.folder, champion, self._window) if config.publish and refresh else None
        started_from = {"base": base.sha256} if base else {}
        read = read_stage(self._workshop, config, self._window, self._crew, self._announce)
        data = data_of(read, config.train, self._crew)
        data_key = {"data": data.digest}
        drift = self._workshop.run(
            "drift",
            {**data_key, "alarms": config.alarms.model_dump(), "reference": self._profile_of(champion)},
            lambda folder: check_drift(data, self._profile_of(champion), config.alarms, folder),
            says="compare with the champion's data",
        )
        settings = config.train.provenance() | {"features": data.spec.to_json()}
        parts: dict[ModelPart, Stage] = {}
        for part in order_of_parts(config.train):
            win = parts.get(ModelPart.WIN)
            win_part = win / PART if win else None
            parts[part] = led(
                self._crew,
                self._workshop,
                part.value,
                {**data_key, **started_from, "config": settings, "win": win.digest if win else None},
                partial(
                    fit_part,
                    part,
                    config.train,
                    data,
                    win_part=win_part,
                    champion=base.artifact if base else None,
                    crew=self._crew,
                ),
                says=f"{'refresh' if base else 'fit'} {_SAID[part]}",
            )
        model = self._workshop.run(
            "model",
            {
                **data_key,
                **started_from,
                "config": settings,
                "parts": {part.value: stage.digest for part, stage in parts.items()},
                "window": str(self._window),
                "alarms": config.alarms.model_dump(),
            },
            lambda folder: make_model(
                parts, config.train, self._window, data, config.alarms, folder, base=base
            ),
            says="evaluate, export, certify",
        )
        said = sorted(w for stage in (drift, *parts.values()) for w in stage.json(ALARMS)["warnings"])
        left_out = read.json(DATA)
        self._collect({DATA: read, QUARANTINE: read, PROFILE: drift, METRICS: model, CERTIFICATE: model})
        self._write("config.json", config.model_dump(mode="json"))
        artifact = (model / MODEL).read_bytes()
        was_there = self._holds(artifact)
        sha256 = write_model(artifact, self._folder / MODEL)
        decision = Decision(config, self._window, self._out, self._folder, self._announce)

        def report(verdict: Verdict | None, rival: bytes | None) -> None:
            if verdict is not None or not was_there:
                self._report(model, data, drift, left_out, said, verdict, rival)

        published, generation = decision.on(
            artifact, champion, data.test, report, maturity_of(config.train, data), key=key, dry_run=dry_run
        )
        self._remember_profile(sha256, drift)
        self._workshop.forget_old()
        self._crew.told(b"")  # the others may go
        done = tuple((name, stage.was_there) for name, stage in self._workshop.done)
        return Outcome(self._folder, sha256, generation, published, done)

    def _holds(self, artifact: bytes) -> bool:
        """Whether the run directory has this very artifact with its report, from an earlier run."""
        model = self._folder / MODEL
        return (self._folder / REPORT).exists() and model.exists() and model.read_bytes() == artifact

    def _report(
        self,
        model: Stage,
        data: TrainingData,
        drift: Stage,
        left_out: dict[str, Any],
        said: list[str],
        verdict: Verdict | None,
        champion: bytes | None,
    ) -> None:
        checks = verdict.to_json()["checks"] if verdict is not None else []
        inputs = {
            "model": model.digest,
            "drift": drift.digest,
            "left_out": left_out,
            "said": said,
            "window": str(self._window),
            "checks": checks,
            "champion": hashlib.sha256(champion).hexdigest() if champion else None,
        }
        train, title = self._config.train, f"bidml: {self._window}"
        report = self._workshop.run(
            "report",
            inputs,
            lambda folder: write_report(
                model, train, data, drift, left_out, said, title, folder, checks=checks, champion=champion
            ),
            says="write report and model card",
        )
        self._collect(
            dict.fromkeys((REPORT, CARD, *(path.name for path in report.folder.glob("*.svg"))), report)
        )

    def _profile_of(self, champion: Publication | None) -> Mapping[str, Any] | None:
        """What the champion's training data looked like; None when it was not trained here."""
        if champion is None:
            return None
        try:
            found: Mapping[str, Any] = json.loads(
                (self._out / _PROFILES / f"{champion.current.sha256}.json").read_text()
            )
        except FileNotFoundError:
            return None
        return found

    def _remember_profile(self, sha256: str, drift: Stage) -> None:
        folder = self._out / _PROFILES
        folder.mkdir(exist_ok=True)
        write_atomically(folder / f"{sha256}.json", (drift / PROFILE).read_bytes())

    def _collect(self, files: Mapping[str, Stage]) -> None:
        self._folder.mkdir(exist_ok=True)
        for name, stage in files.items():
            if (stage / name).exists():
                write_atomically(self._folder / name, (stage / name).read_bytes())

    def _write(self, name: str, document: Any) -> None:
        self._folder.mkdir(exist_ok=True)
        write_atomically(self._folder / name, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")


@functools.cache
def job_code_digest() -> str:
    """SHA-256 of bidml's and training's sources, as this process found them first."""
    digest = hashlib.sha256(f"{__version__} {code_digest()}".encode())
    for path in sorted(Path(__file__).resolve().parent.rglob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    lock = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(
                "one job works in a run directory at a time",
                value=str(out),
                remedy="wait for the other, or choose another --out",
            ) from None
        yield
    finally:
        os.close(lock)


def main(
    config: Annotated[Path, typer.Option(help="A TOML file: docs/retraining.md.")],
    window: Annotated[
        str,
        typer.Option(help="FIRST/LAST, both included: 2026-11-01/2026-11-07, or last-7-days, last-6-hours."),
    ],
    out: Annotated[Path, typer.Option(help="Where runs, stages and status.json go.")] = Path("runs/retrain"),
    dry_run: Annotated[bool, typer.Option(help="Judge, and do not publish.")] = False,
    refresh: Annotated[
        bool, typer.Option(help="Move the champion by the window's rows instead of fitting anew.")
    ] = False,
    rank: Annotated[int | None, typer.Option(help="Of several machines: which one this is, from 0.")] = None,
    machines: Annotated[
        str | None, typer.Option(help="HOST:PORT of every rank, rank 0 first, with commas between.")
    ] = None,
    meeting_seconds: Annotated[float, typer.Option(help="How long ranks wait for each other.")] = 600.0,
    silence_seconds: Annotated[
        float, typer.Option(help="A rank that gives no sign of life for so long has failed.")
    ] = 120.0,
) -> None:
    """Train on a window of logs, judge against the champion, publish."""
    from bidml.console import Console

    settings = load_retrain_config(config)
    ranks = ranks_of(rank, machines, Patience(meeting_seconds, silence_seconds))
    console = Console()
    with console.progress() as stages:
        outcome = retrain(
            settings,
            Window.parse(window),
            out,
            announce=stages,
            dry_run=dry_run,
            refresh=refresh,
            ranks=ranks,
        )
    if outcome is None:
        console.document({"rank": rank, "model": "the same as on rank 0"})
        return
    console.document(
        {
            "artifact": str(outcome.folder / MODEL),
            "sha256": outcome.sha256,
            "report": str(outcome.folder / REPORT),
            "published": f"generation {outcome.generation}"
            if outcome.published
            else "no: nothing new"
            if outcome.generation
            else "no",
            "stages used again": ", ".join(name for name, was_there in outcome.stages if was_there) or "none",
        }
    )


if __name__ == "__main__":
    run(main, "retrain")
