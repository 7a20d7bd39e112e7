"""The whole chain taken apart: what of the oracle's surplus is lost by pctr, by the win curve, by one shade for all.

On the market of `bidml demo`, trained as it trains, judged on its held-out auctions by the true distribution of the
market price and the true pctr. Each policy bids the best response to what it is given:

    own pctr, own curve          the artifact's bids: the whole chain
    the same at its best level   values times the one factor that is best in hindsight
    true pctr, own curve         what a perfect CTR model would add
    own pctr, true curve         what a perfect win curve would add
    informed pctr, own curve     pctr from the same clicks by who knows the simulator's formula (`informed_clicks`)
    informed pctr, true curve
    best multiplier, own pctr    truthful bidding times the best factor in hindsight: the best constant shade
    best multiplier, true pctr

An artifact of `bidml demo --auctions N` is judged by `--artifact FILE --seeds 1 --first-seed 20261125 --auctions N`.

    python -m benchmarks.whole_chain [--quick] [--seeds 5] [--first-seed 1001] [--auctions 250000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.bench_pricing import interval
from benchmarks.informed_clicks import InformedClicks
from bidml.demo import CAP_CPM, SEED
from bidml.export import model_bytes
from bidml.features import Doubles, RawColumns, raw_columns
from bidml.metrics import calibration_ratio
from bidml.pricing import WinCurve, optimal_bid_cpm
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.simulate import Truth, simulate
from bidml.train.config import TrainConfig, parse_config
from bidml.train.evaluate import Terms, bids_of, predict, terms_of
from bidml.train.prepare import TrainingData, check, training_data
from bidml.train.run import fit_models, self_check_sample

FIRST_SEED: Final = 1001
_FACTORS: Final = np.geomspace(0.5, 2.0, 57)
_SHADES: Final = np.linspace(0.02, 1.0, 99)
WHOLE: Final = "own pctr, own curve"
MULTIPLIER: Final = "best multiplier, own pctr"


def run(seed: int, n_auctions: int, n_threads: int, artifact: Path | None) -> dict[str, float]:
    """One world: every policy's surplus as a share of the oracle's, and what tells why. `artifact`: trained before."""
    simulation = simulate(n_auctions, rng=np.random.default_rng(seed))
    config = _config(simulation.spec.features, n_threads)
    row_of = pd.Series(np.arange(n_auctions), index=simulation.log["auction_id"])
    data = training_data(*check(simulation.log, config), config)
    columns = raw_columns(data.test, data.spec)
    scorer = _trained(config, data, columns) if artifact is None else Scorer.load(artifact)
    found = predict(scorer, columns)
    terms = terms_of(
        data.test, value_per_click=None, cap_cpm=CAP_CPM, auction_type=config.pricing.default_auction_type
    )
    assert found.pctr is not None
    assert found.curve is not None
    assert terms is not None
    shown = data.train[data.train["won"]]
    informed = InformedClicks().fit(shown, shown["clicked"]).predict_pctr(data.test)
    truth = simulation.truth[row_of[data.test["auction_id"]].to_numpy()]
    scores = judge(bids_of(scorer, columns, terms), found.pctr, informed, found.curve, truth, terms)
    won = data.test["won"].to_numpy(dtype=bool)
    return scores | {
        "clicks learnt from": float(shown["clicked"].sum()),
        "pctr: what it knows": _known(found.pctr, truth.pctr),
        "pctr: what the informed knows": _known(informed, truth.pctr),
        "pctr: predicted ÷ true, all auctions": float(found.pctr.sum() / truth.pctr.sum()),
        "pctr: predicted ÷ clicks, impressions": calibration_ratio(
            data.test["clicked"].to_numpy(dtype=bool)[won], found.pctr[won]
        ),
    }


def _trained(config: TrainConfig, data: TrainingData, columns: RawColumns) -> Scorer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        blueprint = fit_models(config, data, lambda _: nullcontext())
    return Scorer(
        parse_artifact(model_bytes(blueprint, self_check_of(blueprint, self_check_sample(columns))))
    )


def judge(
    own_bid_cpm: Doubles, own: Doubles, informed: Doubles, curve: WinCurve, truth: Truth, terms: Terms
) -> dict[str, float]:
    """Surplus of the policies as a share of the oracle's; arrays (n,), `own` and `informed` are pctr."""
    value = terms.value_cpm(truth.pctr, None)

    def surplus(bid_cpm: Doubles) -> float:
        return float(truth.expected_surplus_cpm(value, bid_cpm).sum())

    def by_curve(pctr: Doubles) -> Doubles:
        return optimal_bid_cpm(
            terms.value_cpm(pctr, None), curve,
            floor_cpm=terms.floor_cpm, cap_cpm=terms.cap_cpm, auction_type=terms.auction_type,
        )  # fmt: skip

    def by_truth(pctr: Doubles) -> Doubles:
        return truth.optimal_bid_cpm(terms.value_cpm(pctr, None), cap_cpm=terms.cap_cpm)

    def times(pctr: Doubles, factor: float) -> Doubles:
        believed = terms.value_cpm(pctr, None)
        bid = np.minimum(np.maximum(factor * believed, terms.floor_cpm), terms.cap_cpm)
        return np.where(believed > terms.floor_cpm, bid, 0.0)

    def best(bids: Callable[[float], Doubles], factors: Doubles) -> float:
        """Of every seventh factor the best, then of its neighbours: surplus rises and falls once."""
        coarse = range(0, len(factors), 7)
        at = max(coarse, key=lambda i: surplus(bids(float(factors[i]))))
        return max(surplus(bids(float(factor))) for factor in factors[max(at - 6, 0) : at + 7])

    found = {
        WHOLE: surplus(own_bid_cpm),
        "the same at its best level": best(lambda factor: by_curve(factor * own), _FACTORS),
        "true pctr, own curve": surplus(by_curve(truth.pctr)),
        "own pctr, true curve": surplus(by_truth(own)),
        "informed pctr, own curve": surplus(by_curve(informed)),
        "informed pctr, true curve": surplus(by_truth(informed)),
        MULTIPLIER: best(lambda factor: times(own, factor), _SHADES),
        "best multiplier, true pctr": best(lambda factor: times(truth.pctr, factor), _SHADES),
    }
    oracle = surplus(by_truth(truth.pctr))
    return {name: of / oracle for name, of in found.items()}


def _known(pctr: Doubles, true_pctr: Doubles) -> float:
    """The share of the expected log loss between base rate and truth that a prediction takes away, in all auctions."""

    def expected(p: Doubles) -> float:
        return float(-(true_pctr * np.log(p) + (1.0 - true_pctr) * np.log1p(-p)).mean())

    base, least = expected(np.full_like(true_pctr, true_pctr.mean())), expected(true_pctr)
    return (base - expected(pctr)) / (base - least)


def _config(features: Any, n_threads: int) -> TrainConfig:
    return parse_config(
        {
            "log": {"path": "simulated", "format": "parquet"},
            "pricing": {"cap_cpm": CAP_CPM},
            "features": [feature.to_json() for feature in features],
            "n_threads": n_threads,
        }
    )


def summary(runs: list[dict[str, float]]) -> list[str]:
    """Means over worlds with 95 % intervals."""
    lines = []
    for name in runs[0]:
        mean, half = interval([run[name] for run in runs])
        scale = 1.0 if mean > 2.0 or ":" in name else 100.0
        lines.append(f"{name:40s}{scale * mean:10.3f} ± {scale * half:.3f}")
    mean, half = interval([100.0 * (run[WHOLE] / run[MULTIPLIER] - 1.0) for run in runs])
    most, spread = interval([100.0 * (1.0 / run[MULTIPLIER] - 1.0) for run in runs])
    return [
        *lines,
        f"{'the whole chain above it, %':40s}{mean:10.2f} ± {half:.2f}",
        f"{'the oracle above it, %':40s}{most:10.2f} ± {spread:.2f}",
    ]


def main() -> None:
    """Prints a line a world, then the means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one world of 30,000 auctions")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED, help=f"the demo's is {SEED}")
    parser.add_argument("--auctions", type=int, default=250_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--artifact", type=Path, help="judge this one, trained on the same seed and auctions")
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="print the means of earlier --json files, and stop"
    )
    options = parser.parse_args()
    if options.merge:
        print(
            "\n".join(
                summary([run for path in options.merge for run in json.loads(path.read_text())["runs"]])
            )
        )
        return
    n_auctions = 30_000 if options.quick else options.auctions
    seeds = [options.first_seed + i for i in range(1 if options.quick else options.seeds)]
    runs = []
    for seed in seeds:
        runs.append(run(seed, n_auctions, options.threads, options.artifact))
        print(f"seed {seed}: " + ", ".join(f"{name} {x:.4g}" for name, x in runs[-1].items()), flush=True)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            done = {"auctions": n_auctions, "seeds": seeds[: len(runs)], "runs": runs}
            options.json.write_text(json.dumps(done, indent=1))
    print("\n".join(summary(runs)))


if __name__ == "__main__":
    main()
