"""Time and memory of one CTR fit against the number of rows.

    python -m benchmarks.ctr_growth [--quick] [--rows N ...] [--base-ctr 0.01] [--json FILE]

One simulated market, 24 raw features and 6 copies of texts with other texts' rarity, as impressions in time order; the
default preset on two threads. Each fit has a process of its own that reads its rows from Parquet first: `seconds` and
`processor s` are of `ClickModel.fit` alone, `peak GB` of the whole process, rows and libraries included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks import measure
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.fit import ClickModel
from bidml.simulate import Market
from bidml.simulate.columns import SPEC
from bidml.simulate.world import draw_world

N_ROWS: Final = (300_000, 1_000_000, 3_000_000, 10_000_000)
QUICK_N_ROWS: Final = (30_000, 100_000)
N_COPIES: Final = 6
CHUNK: Final = 250_000
SEED: Final = 20261126
TARGET_SECONDS, TARGET_GB = 90.0, 2.0


def spec() -> FeatureSpec:
    """30 raw features."""
    copies = (Feature(f"copy_{i}", FeatureKind.CATEGORY, f"ext.copy_{i}") for i in range(N_COPIES))
    return FeatureSpec((*SPEC.features, *copies))


def write_rows(path: Path, n_rows: int, base_ctr: float) -> None:
    """Impressions of one world; each copy merges the values of a category at random."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    world = draw_world(Market(base_ctr=base_ctr), rng=np.random.default_rng(SEED))
    originals = [feature.name for feature in SPEC.categories()][:N_COPIES]
    writer = None
    for part, first in enumerate(range(0, n_rows, CHUNK)):
        n, rng = min(CHUNK, n_rows - first), np.random.default_rng([SEED, part])
        log = world.simulate(n, rng=rng).log
        rows = log[["timestamp", *SPEC.names]].assign(clicked=rng.random(n) < log["true_pctr"])
        for i, name in enumerate(originals):
            codes = pd.util.hash_array(log[name].astype(str).to_numpy(dtype=object)) % (50 * 4**i)
            rows[f"copy_{i}"] = [f"v{code}" for code in codes]
        table = pa.Table.from_pandas(rows, preserve_index=False)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def fit(path: Path) -> dict[str, float]:
    """The figures of one fit, in this process."""
    rows = pd.read_parquet(path).sort_values("timestamp", kind="stable", ignore_index=True)
    wall, processor = perf_counter(), process_time()
    model = ClickModel(spec(), n_jobs=2).fit(rows, rows["clicked"])
    return {
        "rows": len(rows),
        "clicks": int(rows["clicked"].sum()),
        "trees": model.booster_.num_trees(),
        "seconds": perf_counter() - wall,
        "processor_seconds": process_time() - processor,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ctr_growth")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, nargs="*")
    parser.add_argument("--base-ctr", type=float, default=0.01)
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fit:
        print(json.dumps(fit(options.fit)))
        return
    found: list[dict[str, Any]] = []
    print("| rows | clicks | trees | seconds | processor s | peak GB |\n|--:|--:|--:|--:|--:|--:|")
    for n_rows in options.rows or (QUICK_N_ROWS if options.quick else N_ROWS):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.parquet"
            write_rows(path, n_rows, options.base_ctr)
            command = [sys.executable, "-m", "benchmarks.ctr_growth", "--fit", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        found.append(row)
        print(
            f"| {row['rows']:,} | {row['clicks']:,} | {row['trees']} | {row['seconds']:.1f} | "
            f"{row['processor_seconds']:.1f} | {row['peak_gb']:.2f} |",
            flush=True,
        )
    print(f"\ntarget for 1,000,000 rows: {TARGET_SECONDS:.0f} s, {TARGET_GB:.0f} GB")
    if options.json:
        options.json.write_text(json.dumps({"machine": measure.machine(), "rows": found}, indent=1))


if __name__ == "__main__":
    main()
