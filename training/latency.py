"""The latency contract: how long a model takes per auction, in units of a fixed workload timed in the same run.

Processor time of this thread is counted, not time that passes, in turn with the workload, by the least of many short
rounds: so a busy machine, slow at one moment and quick at another, gives the same ratio. The workload is a made-up
model of the latency preset's size.
"""

from __future__ import annotations

import functools
import time
from array import array
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, NodeMode, Trees, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.export import model_bytes
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of

_ROWS: Final = 256
_ROUNDS: Final = 40
_DEPTH: Final = 5
_FEATURES: Final = 12
_PRICE: Final = {
    "value_per_click": 1.0,
    "floor_cpm": 0.0,
    "cap_cpm": 100.0,
    "pacing_multiplier": 1.0,
    "auction_type": 1.0,
}


def latency_ratio(scorer: Scorer, columns: Mapping[str, Any]) -> float:
    """Time per row of `scorer` (all its outputs, in a batch) over the workload's; `columns` are raw columns."""
    n = min(_ROWS, len(next(iter(columns.values()))))
    rows = {name: np.asarray(cells)[np.arange(_ROWS) % n].tolist() for name, cells in columns.items()}
    numbers = {
        name: array("d", cells) if cells and isinstance(cells[0], float) else cells
        for name, cells in rows.items()
    }
    outputs = [name for part, name in (("ctr", "pctr"), ("win", "win_location")) if part in scorer.parts]
    if len(outputs) == 2:
        outputs.append("bid_cpm")
    workload, workload_rows = _workload()
    mine = {name: array("d", bytes(8 * _ROWS)) for name in outputs}
    its = {name: array("d", bytes(8 * _ROWS)) for name in outputs}
    best = [float("inf"), float("inf")]
    for _ in range(_ROUNDS):
        for i, (model, table, found) in enumerate(((scorer, numbers, mine), (workload, workload_rows, its))):
            start = time.thread_time()
            model.score_many({**table, **_PRICE}, found)
            best[i] = min(best[i], time.thread_time() - start)
    return best[0] / best[1]


@functools.cache
def _workload() -> tuple[Scorer, dict[str, Any]]:
    rng = np.random.default_rng(20261125)
    names = [f"x{i}" for i in range(_FEATURES)]
    spec = FeatureSpec(tuple(Feature(name, FeatureKind.NUMBER, f"ext.{name}") for name in names))
    columns = tuple(map(Column, names))
    heads = [Head(columns, _complete_trees(rng, n), scale=0.01) for n in (100, 100, 20)]
    blueprint = Blueprint(
        spec=spec,
        ctr=CtrBlueprint(heads[0], Calibration(1.0, 1.0, 0.0)),
        win=WinBlueprint(heads[1], heads[2], 0.0, 1.0, 0.0, 1.0),
        currency="USD",
    )
    scorer = Scorer(parse_artifact(model_bytes(blueprint, self_check_of(blueprint, {}))))
    return scorer, {name: array("d", rng.normal(size=_ROWS)) for name in names}


def _complete_trees(rng: np.random.Generator, n_trees: int) -> Trees:
    """Complete trees of depth `_DEPTH` with random thresholds, in preorder."""
    trees = Trees(
        *(array("q"), array("q"), array("B"), array("d"), array("q"), array("q")),
        *(array("q"), array("q"), array("q"), array("d"), array("d")),
    )

    def grow(depth: int) -> int:
        at = len(trees.column)
        trees.column.append(int(rng.integers(_FEATURES)))
        trees.mode.append(int(NodeMode.LEQ))
        trees.threshold.append(round(float(rng.normal()), 2))
        trees.missing_true.append(0)
        for links in (trees.true_child, trees.false_child, trees.true_is_leaf, trees.false_is_leaf):
            links.append(0)
        for child, is_leaf in (
            (trees.true_child, trees.true_is_leaf),
            (trees.false_child, trees.false_is_leaf),
        ):
            if depth == 1:
                trees.leaf.append(float(rng.normal()))
                child[at], is_leaf[at] = len(trees.leaf) - 1, 1
            else:
                child[at] = grow(depth - 1)
        return at

    for _ in range(n_trees):
        trees.roots.append(grow(_DEPTH))
    return trees
