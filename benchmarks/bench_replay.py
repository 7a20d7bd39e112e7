"""How long a replay of simulated auctions takes through `bid_many`, by its parts.

    python -m benchmarks.bench_replay MODEL [--auctions 1000000]

MODEL is the artifact of `make demo` (24 features). The simulated log is without the true prices, so that the curve has
something to impute. `correct`: the bids of a sample equal those of the oracle to 1e-9, and the bounds hold the replay
of the true prices.
"""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bidml.contract import PRICE_INPUTS
from bidml.features import raw_columns
from bidml.oracle import evaluate
from bidml.replay import ReplayAuctions, predict, replay, replay_artifact, scorer_bidder
from bidml.score import Scorer
from bidml.simulate import simulate

SEED = 20261126
CAP_CPM = 200.0
SAMPLE = 200


def measure(model: Path, n_auctions: int) -> dict[str, Any]:
    scorer = Scorer.load(model)
    simulation = simulate(n_auctions, rng=np.random.default_rng(SEED))
    log = simulation.log.drop(columns="true_market_price_cpm")
    seconds: dict[str, float] = {}
    start = perf_counter()
    found = replay_artifact(scorer, log, cap_cpm=CAP_CPM)
    seconds["replay_artifact, log to result"] = perf_counter() - start

    start = perf_counter()
    columns = raw_columns(log, scorer.spec)
    seconds["of it: raw columns"] = perf_counter() - start
    auctions = ReplayAuctions.from_log(log)
    bidder = scorer_bidder(
        scorer, columns, auctions, value_per_click=log["value_per_click"].to_numpy(), cap_cpm=CAP_CPM
    )
    start = perf_counter()
    bids = bidder(slice(0, n_auctions), 1.0)
    seconds["of it: bid_many"] = perf_counter() - start
    start = perf_counter()
    curve = predict(scorer, columns).curve
    seconds["of it: pctr and curves"] = perf_counter() - start
    start = perf_counter()
    replay(bids, auctions, curve=curve)
    seconds["of it: outcomes and sums"] = perf_counter() - start

    truth = replay(bids, ReplayAuctions.from_log(simulation.log))
    rows = np.linspace(0, n_auctions - 1, SAMPLE).astype(np.int64)
    priced = dict(zip(PRICE_INPUTS, (log["value_per_click"].to_numpy(), auctions.floor_cpm, CAP_CPM, 1.0,
                                     auctions.auction_type), strict=True))  # fmt: skip
    cells = {name: np.broadcast_to(x, (n_auctions,))[rows] for name, x in {**columns, **priced}.items()}
    oracle = np.array(evaluate(scorer.blueprint, cells)["bid_cpm"])
    correct = np.allclose(oracle, bids[rows], rtol=1e-9, atol=0.0) and all(
        truth_of.lower in bounds
        for truth_of, bounds in (
            (truth.wins, found["artifact"].wins), (truth.surplus, found["artifact"].surplus)
        )
    )  # fmt: skip
    return {
        "auctions": n_auctions,
        "seconds": seconds,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
        "correct": bool(correct),
        "artifact": found["artifact"].to_json(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--auctions", type=int, default=1_000_000)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.model, arguments.auctions), indent=1))


if __name__ == "__main__":
    main()
