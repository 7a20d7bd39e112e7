"""What a CVR model in the artifact is worth: line items that pay for conversions, on simulated auctions of known truth.

    python -m benchmarks.bench_conversions [--auctions N] [--seeds N] [--spread X]

Trains CTR model, CVR model and win curve on the first 80 % of a simulated log and bids on the rest for a conversion of
one worth, through the artifact. Rivals have the same CTR model and win curve, and one conversion rate for all auctions:
that of the training side's clicks, and the best constant in hindsight, which nobody can know. Surplus is expected
under the true probabilities of clicks, conversions and wins; the oracle knows all three.

The simulator's conversion rates vary little (0.4 in log-odds); `--spread` widens them around their mean. What a model
can earn above a constant is what they vary.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from bidml.features import raw_columns
from bidml.fit.maturity import Maturity
from bidml.log import write_log
from bidml.score import Scorer
from bidml.simulate import Market, simulate
from bidml.train import parse_config, train

VALUE_PER_CONVERSION = 0.1  # an impression is then worth about 3 CPM, near what others pay
CAP_CPM = 1e4
CONSTANTS = np.geomspace(0.2, 5.0, 41)  # of the true mean rate


def widened(log: pd.DataFrame, spread: float, rng: np.random.Generator) -> pd.DataFrame:
    """The log with other conversions: log-odds `spread` times as far from their mean, and delays of 20 hours."""
    odds = special.logit(log["true_pcvr"].to_numpy())
    pcvr = special.expit(odds.mean() + spread * (odds - odds.mean()))
    delay = pd.to_timedelta(20.0 * rng.exponential(1.0, len(log)), unit="h").round("us")
    when = log["click_timestamp"] + delay
    converted = log["clicked"] & (rng.random(len(log)) < pcvr) & (when <= log["timestamp"].max())
    times = when.where(converted).astype(log["conversion_timestamp"].dtype)
    return log.assign(true_pcvr=pcvr, converted=converted, conversion_timestamp=times)


def one(n_auctions: int, seed: int, spread: float) -> dict[str, float]:
    """Surplus of each policy as a share of the oracle's, and the CVR model's scores."""
    rng = np.random.default_rng(seed)
    simulation = simulate(n_auctions, market=Market(base_ctr=0.2, base_cvr=0.15), rng=rng)
    log = widened(simulation.log, spread, rng)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_log(log, Path(folder) / "log.parquet")
        config = parse_config(
            {
                "log": {"path": str(Path(folder) / "log.parquet"), "format": "parquet"},
                "features": [feature.to_json() for feature in simulation.spec.features],
                "win": {"slope": "global"},
                "cvr": {"window": "7D"},
            }
        )
        run = train(config, Path(folder) / "run")
        scorer = Scorer.load(run.artifact)
    test = run.test
    row_of = dict(zip(log["auction_id"], range(n_auctions), strict=True))
    truth = simulation.truth[np.array([row_of[name] for name in test["auction_id"]])]
    pcvr = test["true_pcvr"].to_numpy()
    value = 1000.0 * truth.pctr * pcvr * VALUE_PER_CONVERSION
    terms = {
        **raw_columns(test, scorer.spec),
        "floor_cpm": truth.floor_cpm,
        "cap_cpm": CAP_CPM,
        "pacing_multiplier": 1.0,
        "auction_type": truth.auction_type.astype(np.float64),
    }

    def surplus(value_per_click: float, value_per_conversion: float) -> float:
        bids = np.zeros(len(test))
        worth = {"value_per_click": value_per_click, "value_per_conversion": value_per_conversion}
        scorer.bid_many({**terms, **worth}, out=bids)
        return float(truth.expected_surplus_cpm(value, bids).mean())

    clicks = log[log["clicked"] & ~log["auction_id"].isin(test["auction_id"])]
    maturity = Maturity.of(log, "7D")
    assert maturity is not None
    rate = float(maturity.converted(clicks).sum() / maturity.arrived(clicks).sum())
    mean = float(np.average(pcvr, weights=truth.pctr))
    constants = [surplus(mean * c * VALUE_PER_CONVERSION, 0.0) for c in CONSTANTS]
    oracle = float(truth.expected_surplus_cpm(value, truth.optimal_bid_cpm(value)).mean())
    scores = run.metrics["cvr"]
    return {
        "with pcvr": surplus(0.0, VALUE_PER_CONVERSION) / oracle,
        "rate of the log": surplus(rate * VALUE_PER_CONVERSION, 0.0) / oracle,
        "best constant in hindsight": max(constants) / oracle,
        "log loss, model": scores["model"]["log_loss"],
        "log loss, base rate": scores["base rate"]["log_loss"],
        "log loss, truth": scores["truth"]["log_loss"],
        "calibration out of time": scores["model"]["calibration_ratio"],
        "conversions learnt from": float(maturity.converted(clicks).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--auctions", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--spread", type=float, default=2.5)
    arguments = parser.parse_args()
    found = [one(arguments.auctions, seed, arguments.spread) for seed in range(arguments.seeds)]
    print("| | " + " | ".join(f"seed {seed}" for seed in range(len(found))) + " | mean |")
    print("|---" * (len(found) + 2) + "|")
    for name in found[0]:
        values = [row[name] for row in found]
        print(
            f"| {name} | " + " | ".join(f"{value:.4g}" for value in (*values, float(np.mean(values)))) + " |"
        )


if __name__ == "__main__":
    main()
