"""How much of a bid is Python's own dicts: `Scorer.bid` beside the bare lookups of the same keys (floor.c).

    python -m benchmarks.dict_floor

Both over the 10,000 requests of bench_score, decoded just before the call (fresh), long before (reused), and one again
and again (hot). Needs a C compiler.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bid_models, measure
from bidml.export import write_artifact
from bidml.score import Scorer

SHAPE = "300 trees of depth 5"


def lookups(folder: Path) -> Callable[[Any], object]:
    """floor.c's function, compiled."""
    library = folder / "floor.so"
    source = Path(__file__).with_name("floor.c")
    include = sysconfig.get_paths()["include"]
    subprocess.run(
        ["cc", "-O3", "-shared", "-fPIC", f"-I{include}", str(source), "-o", str(library)], check=True
    )
    found = importlib.util.spec_from_file_location("floor", library)
    assert found is not None
    module: Any = importlib.util.module_from_spec(found)
    call: Callable[[Any], object] = module.lookups
    return call


def main() -> None:
    rng = np.random.default_rng(1)
    log = bid_models.simulated_log(bid_models.N_TRAIN + 10_000, rng)
    rows = slice(bid_models.N_TRAIN, bid_models.N_TRAIN + 10_000)
    requests = bid_models.requests_of({name: column[rows] for name, column in log.columns.items()}, rng)
    decoded = [json.loads(request) for request in requests]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.onnx"
        write_artifact(bid_models.train(log, SHAPE).blueprint(), path)
        scorer = Scorer.load(path)
        line = scorer.line_item(value_per_click=1.5, cap_cpm=50.0, creative="creative-3")
        calls = {"lookups": lookups(Path(name)), "bid": lambda request: scorer.bid(request, line)}
        null = measure.null_contender(decoded)
        contenders = [
            measure.Contender(what, kind, call, kind_rows, prepare=json.loads if kind == "fresh" else None)
            for kind, kind_rows in (("fresh", requests), ("reused", decoded), ("hot", decoded[:1]))
            for what, call in calls.items()
        ]
        measure.run([null, *contenders], seconds=8.0)
    print("| requests | µs per call, net of a null call | p10 | p50 | p99 |\n|---|---|--:|--:|--:|")
    for row in (measure.summary(contender, null) for contender in contenders):
        cells = " | ".join(f"{row['warm'][p] / 1e3:.2f}" for p in ("p10", "p50", "p99"))
        print(f"| {row['group']} | {row['name']} | {cells} |")


if __name__ == "__main__":
    main()
