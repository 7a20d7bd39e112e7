"""What a model of clicks or conversions knows when it has seen few of them: excess log loss over the truth, by base.

    python -m benchmarks.few_events [--rows 600 3000] [--seeds 6]

Rows are clicks of a simulated market, a tenth of which convert by the simulator's true pcvr; 4,000 later ones judge, by
the truth. "the rate": one conversion rate for all. `slope`: of the true log-odds on the predicted ones; below 1 the
model thinks that it knows more than it does.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import logit

from bidml import metrics
from bidml.fit import ClickModel
from bidml.simulate import Market, simulate

BASES = ("mixed", "linear", "none")
CLICKS_PER_AUCTION = 1 / 200
N_TEST = 4_000


def excesses(n_rows: int, seed: int) -> dict[str, tuple[float, float]]:
    """By contender: (excess log loss, slope)."""
    market = Market(base_ctr=0.05, base_cvr=0.1, n_apps=60)
    simulation = simulate(round(n_rows / CLICKS_PER_AUCTION), market=market, rng=np.random.default_rng(seed))
    rng = np.random.default_rng([seed, 1])
    won = simulation.log[simulation.log["won"]]
    clicks = won[rng.random(len(won)) < won["true_pctr"]].reset_index(drop=True)
    train, test = clicks[:n_rows], clicks[n_rows : n_rows + N_TEST]
    converted = rng.random(len(train)) < train["true_pcvr"].to_numpy()
    truth = test["true_pcvr"].to_numpy()
    least = metrics.log_loss(truth, truth)
    found = {}
    for base in BASES:
        model = ClickModel(simulation.spec, base=base, n_jobs=1)
        model.fit(train, converted, timestamp=train["timestamp"])
        s = model.predict_log_odds(test)
        slope = float(np.cov(s, logit(truth))[0, 1] / max(float(np.var(s)), 1e-12))
        found[base] = (metrics.log_loss_from_log_odds(truth, s) / least - 1.0, slope)
    rate = np.full(len(test), logit(converted.mean()))
    found["the rate"] = (metrics.log_loss_from_log_odds(truth, rate) / least - 1.0, float("nan"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[600, 3_000])
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()
    for n_rows in arguments.rows:
        found = [excesses(n_rows, 1001 + i) for i in range(arguments.seeds)]
        for name in found[0]:
            excess, slope = np.array([each[name] for each in found]).T
            half = 1.96 * excess.std(ddof=1) / np.sqrt(len(excess)) if len(excess) > 1 else float("nan")
            print(
                f"{n_rows:>7,} rows  {name:10} excess {excess.mean():.2%} ± {half:.2%}  slope {slope.mean():.2f}"
            )


if __name__ == "__main__":
    main()
