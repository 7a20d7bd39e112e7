"""One machine, many auctions: `bidml train` on a joined log, time and peak memory against the number of auctions.

    python -m benchmarks.bench_scale [--quick] [--auctions N ...] [--keep-lost 0.1] [--json FILE] [--plot FILE]

A week of one simulated market, 2 % of the bids won, 0.2 % clicked, as `bidml join` leaves it: 24 features, a file a
day. No floors: they lift bids to where they win, and 17 % of these bids would be won. Every impression and a share of
the losses are read (`log.keep_lost`), fitted, evaluated, exported and certified, in a process of its own. `of the
oracle` is what the bids of the artifact earn on the held-out days, of what one would who knows pctr and market. With
`--whole` the smallest log is also trained on without sampling.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np

from benchmarks import measure
from bidml.log import write_log
from bidml.simulate import Market
from bidml.simulate.columns import SPEC
from bidml.simulate.world import draw_world

N_AUCTIONS: Final = (200_000, 600_000, 2_000_000, 6_000_000, 20_000_000)
QUICK_N_AUCTIONS: Final = (100_000, 200_000)
WIN_RATE: Final = 0.02
CTR: Final = 0.1
DAYS: Final = 7
CHUNK: Final = 500_000
SEED: Final = 20261126
TARGET_GB, TARGET_SECONDS = 8.0, 900.0


def generate(folder: Path, n_auctions: int) -> None:
    """`folder`/day=…/auctions.parquet, a week of one world."""
    market = Market(observed_win_rate=WIN_RATE, base_ctr=CTR, floor_share=0.0, days=1.0)
    world = draw_world(market, rng=np.random.default_rng(SEED))
    for day in range(DAYS):
        start = market.start + timedelta(days=day)
        of_day = replace(world, market=replace(market, start=start))
        target = folder / f"day={start.date().isoformat()}"
        target.mkdir(parents=True)
        n = n_auctions // DAYS
        for part, first in enumerate(range(0, n, CHUNK)):
            rng = np.random.default_rng([SEED, day, part])
            log = of_day.simulate(min(CHUNK, n - first), rng=rng).log
            log["auction_id"] = [f"{day}-{first + i}" for i in range(len(log))]
            write_log(log, target / f"auctions-{part:03}.parquet")


def child(log: Path, keep_lost: float, n_threads: int) -> None:
    """One training, measured from inside its process."""
    from bidml.train import parse_config, train

    start = perf_counter()
    config = parse_config(
        {
            "log": {
                "path": str(log),
                "format": "parquet",
                **({"keep_lost": keep_lost} if keep_lost < 1.0 else {}),
            },
            "features": [feature.to_json() for feature in SPEC.features],
            "n_threads": n_threads,
        }
    )
    with tempfile.TemporaryDirectory(prefix="bench_scale.") as folder:
        run = train(config, Path(folder) / "run")
    used = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "seconds": perf_counter() - start,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss / 2**20,
        "rows": run.n_train + run.n_test,
        "ctr_log_loss": run.metrics["ctr"]["model"]["log_loss"],
        "win_log_loss": run.metrics["win"]["model"]["log_loss"],
        "of_oracle": run.metrics["money"]["bidml"]["of_oracle"],
    }
    print(json.dumps(found))


def measured(folder: Path, n_auctions: int, keep_lost: float, n_threads: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.bench_scale", "--child", str(folder)]
    options = ["--keep-lost", str(keep_lost), "--threads", str(n_threads)]
    found = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"auctions": n_auctions, "keep_lost": keep_lost, **json.loads(found.splitlines()[-1])}


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            "| auctions | losses kept | rows read | seconds | processor s | peak GB | log loss, CTR | log loss, win "
            "| of the oracle |"
        ),
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cost = f"{row['seconds']:.0f} | {row['cpu_seconds']:.0f} | {row['peak_gb']:.2f}"
        quality = f"{row['ctr_log_loss']:.5f} | {row['win_log_loss']:.5f} | {row['of_oracle']:.1%}"
        lines.append(f"| {row['auctions']:,} | {row['keep_lost']:g} | {row['rows']:,} | {cost} | {quality} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Time and memory against the number of auctions, in logarithms, with the line through the two largest."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["keep_lost"] < 1.0]
    n = np.array([row["auctions"] for row in rows], dtype=np.float64)
    far = np.array([n[0], 1e9])
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for ax, name, unit, target in (
        (axes[0], "cpu_seconds", "processor seconds", 2.0 * TARGET_SECONDS),
        (axes[1], "peak_gb", "peak memory, GB", TARGET_GB),
    ):
        y = np.array([row[name] for row in rows])
        ax.loglog(n, y, "o-", label="measured")
        if len(n) > 1:
            slope, level = np.polyfit(n[-2:], y[-2:], 1)
            ax.loglog(far, level + slope * far, "--", color="grey", linewidth=1, label="straight on")
        ax.axhline(target, color="grey", linestyle=":", linewidth=1)
        ax.set(xlabel="auctions", ylabel=unit)
        ax.legend(frameon=False)
    figure.suptitle("Training on one machine (dotted: the aim for 20 million)")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--auctions", type=int, nargs="*")
    parser.add_argument("--keep-lost", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.keep_lost, options.threads)
        return
    rows: list[dict[str, Any]] = []
    for i, n in enumerate(options.auctions or (QUICK_N_AUCTIONS if options.quick else N_AUCTIONS)):
        folder = Path(tempfile.mkdtemp(prefix="bench_scale.", dir=options.folder))
        try:
            generate(folder, n)
            for keep in (1.0, options.keep_lost) if options.whole and i == 0 else (options.keep_lost,):
                rows.append(measured(folder, n, keep, options.threads))
                print(markdown(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder)
    machine = measure.machine(("lightgbm", "duckdb", "pyarrow"))
    print(f"{machine}\n\n{markdown(rows)}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "runs": rows}, indent=1) + "\n")
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
