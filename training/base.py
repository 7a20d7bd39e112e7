"""What a refresh starts from: the newest published model that has not seen the window."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bidml.errors import ConfigError
from bidml.score.publication import Publication, read_release
from bidml.score.reader import parse_artifact
from training.window import Window


@dataclass(frozen=True, slots=True)
class Base:
    """A published artifact and its digest."""

    artifact: bytes
    sha256: str

    def provenance(self, n_new: int) -> dict[str, Any]:
        """What a model refreshed with `n_new` rows says: whom it started from, and the larger of the two numbers of
        rows as its own, so that a chain of refreshed models does not outgrow the next full fit."""
        known = parse_artifact(self.artifact).blueprint.provenance.get("n_train")
        n_train = max(n_new, known) if isinstance(known, int) else n_new
        return {"n_refresh": n_new, "n_train": n_train, "refreshed_from": self.sha256}


def base_of(folder: str | Path, published: Publication | None, window: Window) -> Base | None:
    """The newest release in `folder` whose data ends before `window` begins; None where nothing was ever published.

    Not simply the champion: a job that was killed after it had published, run again, must start from where it started.
    Raises `ConfigError` where every release has seen the window, or does not say: rows would be learnt from twice.
    """
    if published is None:
        return None
    for release in published.releases:
        if release.data_end is not None and datetime.fromisoformat(release.data_end) <= window.start:
            return Base(read_release(folder, release), release.sha256)
    raise ConfigError(
        "a refresh learns from rows that the champion has not seen",
        value=f"window from {window.start.isoformat()}, champion's data to {published.current.data_end}",
        remedy="take a later window, or fit anew without --refresh",
    )
