"""The main job on simulated auctions: a log with known truth → models → artifact → bids on held-out requests.

What a first run made is used again as long as code and settings are the same.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.atomic import write_atomically
from bidml.contract import AuctionType
from bidml.features import Doubles
from bidml.latency import measure_latency
from bidml.log import write_log
from bidml.score import LineItem, Scorer
from bidml.simulate import Simulation, Truth, simulate
from bidml.train.code import code_digest
from bidml.train.config import TrainConfig, parse_config
from bidml.train.report_files import REPORT, Stages
from bidml.train.run import ARTIFACT, train

SEED: Final = 20261125
CAP_CPM: Final = 200.0
_REQUESTS: Final = 12_000
_EXPLAINED: Final = 1_000
_LOG: Final = "auctions.parquet"
_HELD_OUT: Final = "requests.jsonl.gz"
_DONE: Final = "demo.json"


@dataclass(frozen=True, slots=True, eq=False)
class DemoResult:
    """Where things lie, what was measured, and one bid explained."""

    folder: Path
    metrics: dict[str, Any]
    explanation: str

    @property
    def log(self) -> Path:
        return self.folder / _LOG

    @property
    def artifact(self) -> Path:
        return self.folder / ARTIFACT

    @property
    def report(self) -> Path:
        return self.folder / REPORT


def run_demo(out: str | Path, *, n_auctions: int, stages: Stages) -> DemoResult:
    """Runs the demo in `out`, or only its last stage where `out` holds the rest already."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    config = _config(out)
    key = _key(config, n_auctions)
    metrics = _metrics_of_earlier_run(out, key)
    if metrics is None:
        metrics = _train_on_simulation(out, config, n_auctions, stages)
        write_atomically(out / _DONE, json.dumps({"key": key, "metrics": metrics}, indent=1).encode())
    with stages("bid on held-out requests"):
        latency, decisions, explanation = _bid(out)
    return DemoResult(out, metrics | {"latency": latency, "decisions": decisions}, explanation)


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedMarket:
    """The true distribution of the market price in some auctions of a simulation."""

    truth: Truth
    kind: str = "the simulator's true distribution of the market price"

    def win_rate(self, bid_cpm: Doubles) -> Doubles:
        return self.truth.win_rate(bid_cpm)

    def surplus_cpm(self, value_cpm: Doubles, bid_cpm: Doubles) -> Doubles:
        return self.truth.expected_surplus_cpm(value_cpm, bid_cpm)

    def oracle_bid_cpm(self, value_cpm: Doubles) -> Doubles:
        return self.truth.optimal_bid_cpm(value_cpm)


def _config(out: Path) -> TrainConfig:
    return parse_config(
        {"log": {"path": str(out / _LOG), "format": "parquet"}, "pricing": {"cap_cpm": CAP_CPM}}
    )


def _train_on_simulation(out: Path, config: TrainConfig, n_auctions: int, stages: Stages) -> dict[str, Any]:
    with stages("simulate auctions"):
        simulation = simulate(n_auctions, rng=np.random.default_rng(SEED))
        write_log(simulation.log, out / _LOG)
    row_of = pd.Series(np.arange(n_auctions), index=simulation.log["auction_id"])

    def market_of(test: pd.DataFrame) -> SimulatedMarket:
        return SimulatedMarket(simulation.truth[row_of[test["auction_id"]].to_numpy()])

    config = config.model_copy(update={"features": _features(simulation)})
    run = train(config, out, stages=stages, market_of=market_of)
    with stages("write held-out requests"):
        rows = row_of[run.test["auction_id"]].to_numpy()[:_REQUESTS]
        _write_requests(out / _HELD_OUT, simulation, rows)
    return run.metrics


def _features(simulation: Simulation) -> tuple[dict[str, str], ...]:
    return tuple(feature.to_json() for feature in simulation.spec.features)


def _write_requests(path: Path, simulation: Simulation, rows: npt.NDArray[np.int64]) -> None:
    values = simulation.log["value_per_click"].to_numpy()
    lines = [
        json.dumps(
            {
                "request": request,
                "line_item": {**simulation.line_item_fields(int(row)), "value_per_click": float(values[row])},
            }
        )
        for request, row in zip(simulation.requests(rows), rows, strict=True)
    ]
    write_atomically(path, gzip.compress("\n".join(lines).encode(), mtime=0))


def _bid(out: Path) -> tuple[dict[str, Any], dict[str, int], str]:
    """Loads the artifact as a bidder would and bids on every held-out request."""
    scorer = Scorer.load(out / ARTIFACT)
    with gzip.open(out / _HELD_OUT, "rt") as file:
        held_out = [json.loads(line) for line in file]
    lines: dict[str, LineItem] = {}
    bids = []
    for auction in held_out:
        name = json.dumps(auction["line_item"], sort_keys=True)
        if name not in lines:
            lines[name] = scorer.line_item(cap_cpm=CAP_CPM, **auction["line_item"])
        bids.append((scorer.bid(auction["request"], lines[name]), auction["request"], lines[name]))
    counts = {name: n for name, n in scorer.counters().items() if n}
    explained = [scorer.explain(request, line) for _, request, line in bids[:_EXPLAINED]]
    example = max(
        explained, key=lambda why: why.expected_surplus_cpm * (why.auction_type is AuctionType.FIRST_PRICE)
    )
    latency = measure_latency(scorer, [auction["request"] for auction in held_out], bids[0][2])
    return latency, counts, str(example)


def _key(config: TrainConfig, n_auctions: int) -> str:
    document = {"config": config.provenance(), "n": n_auctions, "seed": SEED, "code": code_digest()}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _metrics_of_earlier_run(out: Path, key: str) -> dict[str, Any] | None:
    try:
        done = json.loads((out / _DONE).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(done, dict) or done.get("key") != key or not isinstance(done.get("metrics"), dict):
        return None
    whole = all((out / name).exists() for name in (_LOG, _HELD_OUT, ARTIFACT, f"{ARTIFACT}.json", REPORT))
    metrics: dict[str, Any] = done["metrics"]
    return metrics if whole else None
