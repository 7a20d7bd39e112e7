"""How a job ends: 0 done, 1 the system failed (a retry may help), 2 configuration, 3 data, 4 refused on purpose."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import typer

from bidml.errors import BidmlError, ConfigError
from training.ranks.meeting import NETWORK_THREAD


def run(job: Callable[..., None], name: str) -> None:
    """Runs `job`, called `name`, as this process's command line; errors become exit codes and one line on stderr."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(job)
    try:
        app()
    except BidmlError as error:
        typer.echo(f"{name}: {error}", err=True)
        _leave(error.exit_code)
    except OSError as error:
        typer.echo(f"{name}: the file system failed: {error}", err=True)
        _leave(1)


def _leave(code: int) -> NoReturn:
    """Ends this process, also where a thread is stuck in LightGBM's network, which a lost rank leaves waiting."""
    if any(thread.name == NETWORK_THREAD for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def key_in(path: Path | None) -> bytes | None:
    """The signing key in a file; raises `ConfigError` when there is none."""
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError("the key file can be read", value=str(error), remedy="correct --key-file") from None
    if len(key) < 16:
        raise ConfigError("a signing key has at least 16 bytes", value=len(key), remedy="make a longer key")
    return key
