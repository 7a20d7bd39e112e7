"""`python -m training.demo_log`: simulated days of auctions, laid out as a pipeline would leave them.

<out>/date=2026-11-01/auctions.parquet
<out>/date=2026-11-01/_SUCCESS            {"rows": ...}: the day is complete
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bidml.atomic import write_atomically
from bidml.errors import ConfigError
from bidml.log import write_log
from bidml.simulate import Market, draw_world
from training.command import run
from training.window import Window

_SEED = 20261101


def write_demo_log(out: str | Path, window: Window, n_auctions: int, *, market: Market | None = None) -> int:
    """Writes `n_auctions` of one world over `window`, day by day, always the same rows; returns how many."""
    if n_auctions < 100:
        raise ConfigError("a demo has at least 100 auctions", value=n_auctions, remedy="ask for more")
    rng = np.random.default_rng(_SEED)
    settings = replace(market or Market(), start=window.start, days=float(len(window.days)))
    log = draw_world(settings, rng=rng).simulate(n_auctions, rng=rng).log
    day_of = log["timestamp"].dt.date
    for day in window.days:
        folder = Path(out) / f"date={day}"
        folder.mkdir(parents=True, exist_ok=True)
        rows = log[day_of == day].reset_index(drop=True)
        write_log(rows, folder / "auctions.parquet")
        write_atomically(folder / "_SUCCESS", json.dumps({"rows": len(rows)}).encode())
    return len(log)


def main(
    out: Annotated[Path, typer.Option(help="Where the days go.")] = Path("runs/demo-logs"),
    window: Annotated[str, typer.Option(help="FIRST/LAST, both included.")] = "2026-11-01/2026-11-07",
    auctions: Annotated[int, typer.Option(min=100, help="How many auctions in all.")] = 200_000,
) -> None:
    """Simulate days of auctions."""
    n = write_demo_log(out, Window.parse(window), auctions)
    typer.echo(f"{n:,} auctions in {out}")


if __name__ == "__main__":
    run(main, "demo_log")
