"""The end of a job: gate → register → publish. Run again after a death anywhere, it ends the same way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bidml.atomic import write_atomically
from bidml.errors import RefusedError
from bidml.fit.maturity import Maturity
from bidml.score.publication import Publication, Release, read_release
from bidml.train.report_files import Stages
from training.config import RetrainConfig
from training.gate import Verdict, judge
from training.publication import publish_bytes
from training.tracking import Tracking
from training.window import Window

GATE: Final = "gate.json"

Report = Callable[[Verdict | None, bytes | None], None]
"""Writes the report of a verdict, beside the champion's artifact; None: nothing was judged, there is no champion."""


class Decision:
    """On the artifact of one job. `folder`: the job's run directory, complete; `out`: where MLflow's default is."""

    def __init__(
        self, config: RetrainConfig, window: Window, out: Path, folder: Path, announce: Stages
    ) -> None:
        self._config = config
        self._window = window
        self._folder = folder
        self._announce = announce
        self._tracking = Tracking(config.mlflow, out) if config.mlflow else None

    def on(
        self,
        artifact: bytes,
        champion: Publication | None,
        test: Any,
        report: Report,
        maturity: Maturity | None,
        *,
        key: bytes | None,
        dry_run: bool,
    ) -> tuple[bool, int | None]:
        """(whether it was published now, the generation in force); raises `RefusedError` when the gate says no."""
        sha256 = hashlib.sha256(artifact).hexdigest()
        current = champion.current if champion else None
        generation = current.generation if current else None
        if current is not None and current.sha256 == sha256:
            report(None, None)
            self._tell(sha256)  # a job that died after publishing may not have
            self._register(sha256)
            self._crown(sha256)
            return False, generation
        self._judge(artifact, sha256, current, test, report, maturity)
        if self._config.publish is None or dry_run:
            return False, generation
        self._register(sha256)
        with self._announce("publish"):
            made = publish_bytes(
                self._config.publish.folder,
                artifact,
                expected_generation=generation or 0,
                data_end=self._window.end.isoformat(),
                note=f"retrained on {self._window}",
                key=key,
            )
        self._crown(sha256)
        return True, made.current.generation

    def _judge(
        self,
        artifact: bytes,
        sha256: str,
        current: Release | None,
        test: Any,
        report: Report,
        maturity: Maturity | None,
    ) -> None:
        config = self._config
        champion = read_release(config.publish.folder, current) if current and config.publish else None
        with self._announce("judge against the champion"):
            verdict = judge(
                artifact, champion, test, config.gate, pricing=config.train.pricing, maturity=maturity
            )
        text = json.dumps(verdict.to_json(), indent=1, sort_keys=True)
        write_atomically(self._folder / GATE, text.encode() + b"\n")
        report(verdict, champion)
        self._tell(sha256, refused=not verdict.promoted)
        refuse(verdict)

    def _tell(self, sha256: str, *, refused: bool = False) -> None:
        if self._tracking:
            self._tracking.log(self._job(sha256), self._folder, refused=refused)

    def _register(self, sha256: str) -> None:
        if self._tracking:
            with self._announce("register"):
                self._tracking.register(sha256, self._job(sha256))

    def _crown(self, sha256: str) -> None:
        if self._tracking:
            self._tracking.crown(sha256)

    def _job(self, sha256: str) -> str:
        """With the configuration: under another gate it is another run, and MLflow changes no parameter of a run."""
        config = hashlib.sha256((self._folder / "config.json").read_bytes()).hexdigest()
        return f"{self._window} {sha256} {config[:16]}"


def refuse(verdict: Verdict) -> None:
    """Raises `RefusedError` when the gate says no."""
    if not verdict.promoted:
        raise RefusedError(
            "the challenger passes every check of the gate",
            value=verdict.reasons,
            remedy="the champion stays; see gate.json and report.html in the run directory",
        )
