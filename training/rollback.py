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
) -> None:
    """Roll back to an earlier release."""
    publication = republish(folder, generation=generation, note=note, key=key_in(key_file))
    typer.echo(json.dumps(publication.current.to_json()))


if __name__ == "__main__":
    run(main, "rollback")
