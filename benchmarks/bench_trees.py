"""Trees only: one encoded vector in, one margin out, against what a bidder would otherwise call.

    python -m benchmarks.bench_trees [--quick] [--json FILE]

Per model: bidml on each instruction set of the machine, LightGBM's predict and SingleRowFast, onnxruntime,
and those of treelite, tl2cgen, lleaves, XGBoost, CatBoost and YDF that are installed. 10,000 rows rotate.
`correct`: all of them agree with LightGBM's own raw score to 1e-12; else a note counts the wrong ones.
"""

from __future__ import annotations

import argparse
import json
import warnings
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from benchmarks import measure, tree_peers
from benchmarks.tree_models import MODELS, N_COLUMNS, ad_rows, as_arrays, head_of, train
from bidml.blueprint import Head
from bidml.score._native import Engine, isa_available

PACKAGES = (
    "numpy",
    "lightgbm",
    "onnxruntime",
    "treelite",
    "tl2cgen",
    "lleaves",
    "xgboost",
    "catboost",
    "ydf",
)
TOLERANCE = 1e-12
N_ROWS = 10_000
N_TRAIN = 60_000
QUICK_MODELS = ("300 × 63 leaves", "300, depth 5")


def engine_of(head: Head, isa: str) -> Engine:
    slots = {f"x{i}": (False, i) for i in range(N_COLUMNS)}
    return Engine([head], slots, N_COLUMNS, 0, isa)


def verdict(call: Callable[[Any], object], rows: Any, expected: NDArray[np.float64]) -> tuple[bool, str]:
    """Whether every row agrees, and a note where one does not."""
    found = np.array([np.asarray(call(row), dtype=np.float64).item() for row in rows])
    wrong = int((np.abs(found - expected) > TOLERANCE).sum())
    worst = float(np.abs(found - expected).max())
    return wrong == 0, "" if wrong == 0 else f"{wrong} of {len(rows)} rows differ, by up to {worst:.2g}"


def contenders_of(
    name: str,
    booster: lgb.Booster,
    training: tuple[NDArray[np.float64], NDArray[np.float64]],
    rows: NDArray[np.float64],
    *,
    peers: bool,
) -> tuple[list[measure.Contender], dict[str, str]]:
    """All contenders for one model, and the peers that are absent with the reason."""
    head = head_of(booster)
    expected = booster.predict(rows, raw_score=True, num_threads=1)
    peers_of: dict[str, Callable[[], tree_peers.Peer]] = {}
    for isa in ("avx512", "avx2", "scalar"):
        if isa_available(isa):
            peers_of[f"bidml {isa}"] = lambda isa=isa: tree_peers.Peer(
                engine_of(head, isa).score_vector, lambda row: array("d", row.tolist())
            )
    peers_of["LightGBM SingleRowFast (ctypes)"] = lambda: tree_peers.lightgbm_single_row_fast(booster)
    peers_of["LightGBM predict"] = lambda: tree_peers.lightgbm_predict(booster)
    peers_of["onnxruntime run"] = lambda: tree_peers.onnxruntime_run(head, N_COLUMNS)
    peers_of["onnxruntime IOBinding"] = lambda: tree_peers.onnxruntime_bound(head, N_COLUMNS)
    if peers:
        peers_of["treelite"] = lambda: tree_peers.treelite_gtil(booster)
        peers_of["tl2cgen"] = lambda: tree_peers.tl2cgen_compiled(booster)
        peers_of["lleaves"] = lambda: tree_peers.lleaves_compiled(booster)
        peers_of["XGBoost"] = lambda: tree_peers.xgboost_own(*training, MODELS[name])
        peers_of["CatBoost"] = lambda: tree_peers.catboost_own(*training, MODELS[name])
        peers_of["YDF"] = lambda: tree_peers.ydf_own(*training, MODELS[name])

    contenders, absent = [], {}
    for peer, make in peers_of.items():
        try:
            made = make()
        except ImportError as error:
            absent[peer] = f"not installed ({error.name})"
            continue
        except Exception as error:  # that a peer cannot build a model is a result
            absent[peer] = f"failed: {type(error).__name__}: {str(error)[:200]}"
            continue
        call, its_rows = made.call, [made.prepare(row) for row in rows]
        if peer in ("XGBoost", "CatBoost", "YDF"):
            contenders.append(measure.Contender(peer, name, call, its_rows, correct=None))
            continue
        correct, note = verdict(call, its_rows, expected)
        contenders.append(measure.Contender(peer, name, call, its_rows, correct=correct, note=note))
    return contenders, absent


def bench(*, models: tuple[str, ...], seconds_per_model: float, peers: bool) -> dict[str, Any]:
    """Runs it; the document that --json writes."""
    rng = np.random.default_rng(1)
    x, y = ad_rows(N_TRAIN + N_ROWS, rng)
    rows = np.ascontiguousarray(x[N_TRAIN:])
    summaries, absent, paths, batches = [], {}, {}, []
    for name in models:
        booster = train(name, x[:N_TRAIN], y[:N_TRAIN])
        contenders, missing = contenders_of(name, booster, (x[:N_TRAIN], y[:N_TRAIN]), rows, peers=peers)
        absent |= missing
        null = measure.null_contender(as_arrays(rows))
        measure.run([null, *contenders], seconds=seconds_per_model)
        summaries += [measure.summary(contender, null) for contender in contenders]
        engine = engine_of(head_of(booster), "best")
        paths[name] = engine.info()[0]
        out = np.empty((len(rows), 1))
        batches.append(
            {
                "group": name,
                "bidml margins_many": measure.throughput_ns(
                    lambda engine=engine, out=out: engine.margins_many(rows, (), out), len(rows), seconds=0.5
                ),
                "LightGBM predict": measure.throughput_ns(
                    lambda booster=booster: booster.predict(rows[:1000], raw_score=True, num_threads=1),
                    1000,
                    seconds=0.5,
                ),
            }
        )
    return {
        "machine": measure.machine(PACKAGES),
        "unit": "ns per call, net of the null call; one thread, rows rotate",
        "n_rows": N_ROWS,
        "results": summaries,
        "absent": absent,
        "paths": paths,
        "batch_ns_per_row": batches,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two models, no optional peers, under 50 s")
    parser.add_argument("--json", type=Path, help="write everything there")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    document = bench(
        models=QUICK_MODELS if arguments.quick else tuple(MODELS),
        seconds_per_model=4.0 if arguments.quick else 20.0,
        peers=not arguments.quick,
    )
    machine = document["machine"]
    print(f"{machine['cpu']}, Python {machine['python']}; µs per call, net of a null call\n")
    print(measure.markdown(document["results"]))
    for row in document["results"]:
        if row["note"]:
            print(f"\n{row['group']}, {row['name']}: {row['note']}")
    for batch in document["batch_ns_per_row"]:
        print("\nbatch, ns per row:", batch)
    for name, path in document["paths"].items():
        print(f"\n{name}: {path}")
    for peer, reason in document["absent"].items():
        print(f"\n{peer}: {reason}")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
