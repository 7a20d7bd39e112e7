"""`python -m training.rollback FOLDER`: the release before the current one counts again, as a new generation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from training.command import key_in, run
from training.publication import republish


def main(
    folder: Annotated[Path, typer.Argument(help="The folder that bidders follow.")],
    generation: Annotated[
        int | None, typer.Option(help="Which; default: the last before the current artifact.")
    ] = None,
    note: Annotated[str, typer.Option(help="Why; kept in the manifest.")] = "",
    key_file: Annotated[Path | None, typer.Option(help="Sign the manifest with this key.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow's: @champion goes back, too.")] = None,
    model: Annotated[str, typer.Option(help="The registered model's name in MLflow.")] = "bidml",
) -> None:
    """Roll back to an earlier release."""
    publication = republish(folder, generation=generation, note=note, key=key_in(key_file))
    if tracking_uri is not None:
        from training.config import MlflowConfig
        from training.tracking import Tracking

        config = MlflowConfig(tracking_uri=tracking_uri, model=model)  # type: ignore[call-arg]
        Tracking(config, folder).crown(publication.current.sha256)
    typer.echo(json.dumps(publication.current.to_json()))


if __name__ == "__main__":
    run(main, "rollback")
