"""Where the time of a bid goes: the same calls with a part left out, in one interleaved run.

    python -m benchmarks.bid_parts [--seconds 20] [--json FILE]

Trees: the CTR model of bench_score with all 300 trees and with the first 100; what a tree of depth 5 costs there is
taken for the 200 of the win curve, too. Reading: an impression that the request has not is asked for, so that the
request is read and nothing else is done. Texts of a batch: columns of one text each, which is found once. Price of a
batch: its margins alone are asked for. The rest is encoding, calibration, for single bids the price, and the call.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np

from benchmarks import bid_models, measure
from benchmarks.bench_score import LINE, N_BATCH, N_REQUESTS
from bidml.contract import PRICE_INPUTS
from bidml.export import write_artifact
from bidml.lightgbm_trees import head_of_booster
from bidml.metadata import CTR_MARGINS, WIN_MARGINS
from bidml.score import RawExtractor, Scorer

N_TREES, N_FEW, N_WIN_TREES = 300, 100, 200
NO_IMP = 7
SHAPES = tuple(bid_models.SHAPES)  # the first is that of the win curve
CALLS = ("bid", "bid_json", "bid_many")


def scorers(log: bid_models.Log, shape: str, folder: Path) -> tuple[Scorer, Scorer]:
    """The bid model, and the same with its first CTR trees only."""
    models = bid_models.train(log, shape)
    whole = models.blueprint()
    assert whole.ctr is not None
    few = lgb.Booster(model_str=models.ctr.model_to_string(num_iteration=N_FEW))
    short = replace(whole, ctr=replace(whole.ctr, head=head_of_booster(few, models.clicks)))
    found = []
    for name, blueprint in (("whole", whole), ("short", short)):
        write_artifact(blueprint, folder / f"{name}.onnx")
        found.append(Scorer.load(folder / f"{name}.onnx"))
    return found[0], found[1]


def contenders(shape: str, pair: tuple[Scorer, Scorer], requests: list[bytes]) -> list[measure.Contender]:
    """`call: part`, of single bids and of batches."""
    found: list[measure.Contender] = []
    decoded = [json.loads(request) for request in requests]
    batches = _batches(pair[0], decoded)
    alike = [{name: _alike(column) for name, column in batch.items()} for batch in batches]
    for scorer, what in zip(pair, ("whole", "few trees"), strict=True):
        line = scorer.line_item(**LINE)
        found += [
            measure.Contender(
                f"bid: {what}", shape, _of_line(scorer.bid, line), requests, prepare=json.loads
            ),
            measure.Contender(f"bid_json: {what}", shape, _of_line(scorer.bid_json, line), requests),
            measure.Contender(f"bid_many: {what}", shape, _batch(scorer, ("bid_cpm",)), batches),
        ]
    scorer, line = pair[0], pair[0].line_item(**LINE)
    return [
        *found,
        measure.Contender(
            "bid: reading", shape, _of_line(scorer.bid, line, NO_IMP), requests, prepare=json.loads
        ),
        measure.Contender("bid_json: reading", shape, _of_line(scorer.bid_json, line, NO_IMP), requests),
        measure.Contender("bid_many: texts alike", shape, _batch(scorer, ("bid_cpm",)), alike),
        measure.Contender("bid_many: margins", shape, _batch(scorer, CTR_MARGINS + WIN_MARGINS), batches),
    ]


def _of_line(call: Callable[..., float], line: Any, imp: int = 0) -> Callable[[Any], float]:
    return lambda request: call(request, line, imp)


def _batch(scorer: Scorer, outputs: tuple[str, ...]) -> Callable[[Any], None]:
    out = {name: array("d", bytes(8 * N_BATCH)) for name in outputs}
    return lambda columns: scorer.score_many(columns, out)


def _batches(scorer: Scorer, requests: list[Any]) -> list[dict[str, Any]]:
    """Raw features and price inputs of `N_BATCH` requests each."""
    found = []
    for first in range(0, len(requests), N_BATCH):
        some = requests[first : first + N_BATCH]
        columns: dict[str, Any] = RawExtractor(scorer.spec).columns(
            some, [{"creative": LINE["creative"]}] * len(some)
        )
        floors = array("d", [float(request["imp"][0].get("bidfloor") or 0.0) for request in some])
        prices = (LINE["value_per_click"], floors, LINE["cap_cpm"], 1.0, 1.0)
        found.append(columns | dict(zip(PRICE_INPUTS, prices, strict=True)))
    return found


def _alike(column: Any) -> Any:
    return [column[0]] * len(column) if isinstance(column, list) and isinstance(column[0], str) else column


def tree_ns(times: dict[str, float], call: str) -> float:
    """What one CTR tree adds."""
    return (times[f"{call}: whole"] - times[f"{call}: few trees"]) / (N_TREES - N_FEW)


def parts_of(times: dict[str, float], win_tree_ns: dict[str, float]) -> list[dict[str, Any]]:
    """Per call kind, ns: the whole, and its parts. `win_tree_ns`: by call kind."""
    found = []
    for call in CALLS:
        whole = times[f"{call}: whole"]
        parts = {
            "CTR trees": N_TREES * tree_ns(times, call),
            "win curve's trees": N_WIN_TREES * win_tree_ns[call],
        }
        if call == "bid_many":
            parts["texts"] = whole - times["bid_many: texts alike"]
            parts["price"] = whole - times["bid_many: margins"]
        else:
            parts["reading"] = times[f"{call}: reading"]
        found.append({"call": call, "whole": whole, **parts, "the rest": whole - sum(parts.values())})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bid_parts")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each shape")
    parser.add_argument("--json", type=Path, help="write every figure there")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    log = bid_models.simulated_log(bid_models.N_TRAIN + N_REQUESTS, rng)
    rows = slice(bid_models.N_TRAIN, bid_models.N_TRAIN + N_REQUESTS)
    requests = bid_models.requests_of({name: column[rows] for name, column in log.columns.items()}, rng)
    found: dict[str, Any] = {"machine": measure.machine(), "p50": {}}
    for shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            pair = scorers(log, shape, Path(folder))
            who = contenders(shape, pair, requests)
        null = measure.null_contender(requests)
        measure.run([null, *who], seconds=options.seconds)
        times = {
            contender.name: measure.summary(contender, null)["warm"]["p50"]
            / (N_BATCH if contender.name.startswith("bid_many") else 1)
            for contender in who
        }
        found["p50"][shape] = times
        print(f"\n{shape}, ns of a bid, p50; load {measure.machine()['load_average']:.1f}\n")
        of_win_curve = {call: tree_ns(found["p50"][SHAPES[0]], call) for call in CALLS}
        for row in parts_of(times, of_win_curve):
            print(f"{row.pop('call'):<10}" + "  ".join(f"{name} {ns:,.0f}" for name, ns in row.items()))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
