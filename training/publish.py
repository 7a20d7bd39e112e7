"""`python -m training.publish MODEL --to FOLDER`: makes an artifact the one that bidders load.

The artifact is read, lowered and replays its own rows first. Exit codes: training/command.py.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bidml.errors import ConfigError, DataError
from bidml.score import Scorer
from bidml.score.publication import Publication, data_end_of, read_publication
from bidml.score.reader import parse_artifact
from training.command import key_in, run
from training.publication import LOCK_SECONDS, publish_bytes


def publish(
    folder: str | Path,
    artifact: str | Path,
    *,
    expected_generation: int | None = None,
    data_end: str | None = None,
    note: str = "",
    key: bytes | None = None,
    lock_seconds: float = LOCK_SECONDS,
) -> Publication:
    """Checks the file `artifact` as a bidder would and makes it the current release of `folder`.

    `expected_generation`: what the folder must be at, such as the champion's that the candidate was judged against;
    by default what it is at now. `data_end`: when the training data ends, ISO 8601 with a time zone; by default the
    end of the window in the artifact's provenance. Raises `ArtifactError` for a file a bidder would refuse,
    `DataError` when it cannot be read, `ConfigError` for the times, and as `publication.publish_bytes`.
    """
    current = read_publication(folder, key=key)
    seen = current.current.generation if current else 0
    try:
        data = Path(artifact).read_bytes()
    except OSError as error:
        raise DataError("the artifact can be read", value=str(error), remedy="correct the path") from None
    scorer = Scorer.of_artifact(parse_artifact(data))
    return publish_bytes(
        folder,
        data,
        expected_generation=seen if expected_generation is None else expected_generation,
        data_end=_utc(data_end) if data_end is not None else data_end_of(scorer.provenance),
        note=note,
        key=key,
        lock_seconds=lock_seconds,
    )


def _utc(time: object) -> str:
    try:
        found = datetime.fromisoformat(time)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise ConfigError(
            "the end of the data is a time with a time zone",
            value=time,
            remedy="for example 2026-11-07T00:00+00:00",
        )
    return found.isoformat()


def main(
    artifact: Annotated[Path, typer.Argument(help="model.onnx")],
    to: Annotated[Path, typer.Option(help="The folder that bidders follow.")],
    expected_generation: Annotated[
        int | None, typer.Option(min=0, help="Refuse unless it is at this.")
    ] = None,
    data_end: Annotated[str | None, typer.Option(help="Default: from the artifact's provenance.")] = None,
    note: Annotated[str, typer.Option(help="Why; kept in the manifest.")] = "",
    key_file: Annotated[Path | None, typer.Option(help="Sign the manifest with this key.")] = None,
) -> None:
    """Make an artifact the one that bidders load."""
    publication = publish(
        to,
        artifact,
        expected_generation=expected_generation,
        data_end=data_end,
        note=note,
        key=key_in(key_file),
    )
    typer.echo(json.dumps(publication.current.to_json()))


if __name__ == "__main__":
    run(main, "publish")
