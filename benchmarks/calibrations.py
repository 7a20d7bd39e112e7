"""Calibration maps: what each costs where a model is right already, and what it mends where it is not.

    python -m benchmarks.calibrations [--quick] [--only curves | logs] [--json FILE]

Curves: scores from N(−4, 1.2²) whose clicks follow a known curve of them. A map is fitted to n rows and judged by
its expected log loss above that of the truth on 200,000 others, times n: nats of a log as large as the one it learnt
from, so that a parameter fitted without need costs about half of one; mean over the seeds, with its standard error.

Logs: those of bench_ctr. A `ClickModel` without calibration learns from the first 80 % of the training part (in time
where there is time), the maps from the rest, and the test part judges: log loss against the beta map's, row by row,
with a 95 % interval; the worst tenth of the test part (of 200 clicks or more) by predicted ÷ clicks, or ÷ truth
where known. Then the same with the model's log-odds distorted by an S.

scikit-learn's IsotonicRegression is what a user would take: on probabilities, clipped to 1e-6 where it says 0.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from benchmarks import measure
from benchmarks.bench_ctr import paired
from benchmarks.ctr_data import ClickLog, click_logs
from bidml.fit import ClickModel
from bidml.fit.calibration import calibrated, fit_calibration

Doubles = npt.NDArray[np.float64]
Map = Callable[[Doubles], Doubles]

CALIBRATION_SHARE = 0.2
MIN_CLICKS = 200
PACKAGES = ("numpy", "scikit-learn", "lightgbm")


def sigmoid(s: Doubles) -> Doubles:
    found: Doubles = 1.0 / (1.0 + np.exp(-s))
    return found


def _of_bidml(method: str) -> Callable[[Doubles, Doubles], Map]:
    def fit(s: Doubles, y: Doubles) -> Map:
        found = fit_calibration(s, y, method=method)
        return lambda at: calibrated(found, at)

    return fit


def _of_scikit_learn(s: Doubles, y: Doubles) -> Map:
    found = IsotonicRegression(out_of_bounds="clip").fit(sigmoid(s), y)

    def apply(at: Doubles) -> Doubles:
        p = np.clip(found.predict(sigmoid(at)), 1e-6, 1.0 - 1e-6)
        return np.log(p) - np.log1p(-p)

    return apply


MAPS = {
    "none": _of_bidml("none"),
    "platt": _of_bidml("platt"),
    "beta": _of_bidml("beta"),
    "isotonic": _of_bidml("isotonic"),
    "scikit-learn isotonic": _of_scikit_learn,
}
CURVES: dict[str, Map] = {
    "right": lambda s: s,
    "level and slope": lambda s: 0.7 * s - 1.0,
    "an S": lambda s: -4.0 + np.tanh(1.2 * (s + 4.0)) + 0.25 * (s + 4.0),
    "a small S": lambda s: s + 0.15 * np.sin(2.0 * (s + 4.0)),
    "a kink": lambda s: np.where(s < -3.0, s, -3.0 + 0.3 * (s + 3.0)),
    "a step": lambda s: s + 0.5 * (s > -3.5),
}


def of_curve(name: str, n: int, seeds: int) -> dict[str, Any]:
    """Per map the mean and standard error of its cost in nats; how many of ours have knots."""
    curve = CURVES[name]
    costs: dict[str, list[float]] = {contender: [] for contender in MAPS}
    bends = 0
    for seed in range(seeds):
        rng = np.random.default_rng((seed, n))
        s, others = rng.normal(-4.0, 1.2, n), rng.normal(-4.0, 1.2, 200_000)
        y = (rng.random(n) < sigmoid(curve(s))).astype(float)
        truth = curve(others)
        for contender, fit in MAPS.items():
            costs[contender].append(
                (_expected_loss(fit(s, y)(others), truth) - _expected_loss(truth, truth)) * n
            )
        bends += fit_calibration(s, y, method="isotonic").knots is not None
    row: dict[str, Any] = {"curve": name, "n_rows": n, "seeds": seeds, "bent": bends}
    row |= {
        contender: (float(np.mean(x)), float(np.std(x, ddof=1) / np.sqrt(len(x))))
        for contender, x in costs.items()
    }
    return row


def _expected_loss(log_odds: Doubles, truth: Doubles) -> float:
    return float((np.logaddexp(0.0, log_odds) - sigmoid(truth) * log_odds).mean())


def of_log(log: ClickLog) -> list[dict[str, Any]]:
    """One row per map, for the model as it is and for the model distorted."""
    y_train, y = log.outcomes()
    n = round((1.0 - CALIBRATION_SHARE) * len(y_train))
    times = np.arange(n) if log.timed else None
    model = ClickModel(log.spec, calibration="none", n_jobs=1).fit(
        log.train[:n], y_train[:n], timestamp=times
    )
    rows = []
    margins = {
        "": (model.predict_log_odds(log.train[n:]), model.predict_log_odds(log.test)),
    }
    centre, spread = np.median(margins[""][0]), np.std(margins[""][0])

    def distorted(s: Doubles) -> Doubles:
        u = (s - centre) / spread
        return centre + spread * (u + 0.4 * np.sin(2.0 * u))

    margins["distorted"] = (distorted(margins[""][0]), distorted(margins[""][1]))
    for how, (of_calibration, of_test) in margins.items():
        found = {name: fit(of_calibration, y_train[n:])(of_test) for name, fit in MAPS.items()}
        for name, log_odds in found.items():
            rows.append(
                {
                    "log": log.name,
                    "seed": log.seed,
                    "model": how,
                    "map": name,
                    "clicks": float(y_train[n:].sum()),
                    "against_beta": paired(y, log_odds, found["beta"]),
                    "worst_tenth": _worst_tenth(log, of_test, y, sigmoid(log_odds)),
                }
            )
    return rows


def _worst_tenth(log: ClickLog, s: Doubles, y: Doubles, p: Doubles) -> float | None:
    code = np.searchsorted(np.quantile(s, np.arange(1, 10) / 10), s)
    clicks = np.bincount(code, weights=y, minlength=10)
    expected = clicks if log.true_pctr is None else np.bincount(code, weights=log.true_pctr, minlength=10)
    enough = clicks >= MIN_CLICKS
    if not enough.any():
        return None
    ratio = np.bincount(code, weights=p, minlength=10)[enough] / expected[enough]
    return float(ratio[np.abs(np.log(ratio)).argmax()])


def _line(row: dict[str, Any]) -> str:
    if "curve" in row:
        costs = "  ".join(f"{name} {row[name][0]:9.2f} ± {row[name][1]:.2f}" for name in MAPS)
        return f"{row['curve']:16s} {row['n_rows']:>7,} rows  {costs}  bent {row['bent']} of {row['seeds']}"
    mean, low, high = row["against_beta"]
    worst = "" if row["worst_tenth"] is None else f"  worst tenth {row['worst_tenth']:.3f}"
    return (
        f"{row['log']:16s} #{row['seed']} {row['model']:9s} {row['map']:22s} {row['clicks']:>6.0f} clicks  "
        f"log loss {mean:+.2e} [{low:+.2e}, {high:+.2e}]{worst}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer seeds, 100,000 simulated rows")
    parser.add_argument("--only", choices=("curves", "logs"), help="one of the two parts")
    parser.add_argument("--json", type=Path, help="write every figure there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    if arguments.only != "logs":
        for n, seeds in ((4_000, 40), (40_000, 40), (400_000, 8)):
            for name in CURVES:
                rows.append(of_curve(name, n, seeds // 4 if arguments.quick else seeds))
                print(_line(rows[-1]), flush=True)
    if arguments.only != "curves":
        for log in click_logs(quick=arguments.quick, first_seed=0):
            for row in of_log(log):
                rows.append(row)
                print(_line(row), flush=True)
    if arguments.json:
        document = {"machine": measure.machine(PACKAGES), "quick": arguments.quick, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
