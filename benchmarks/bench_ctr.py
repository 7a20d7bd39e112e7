"""CTR models by log loss, ranking, calibration and money, against what a user would pick instead.

    python -m benchmarks.bench_ctr [--quick] [--json FILE] [--only NAME ...] [--logs NAME ...] [--rows N] [--seeds N]

Logs: KDD Cup 2012, Open Bandit, iPinYou (../shared/data) and simulated ones with known pctr (1 M rows at 1 % and
0.1 %); the last quarter is the test, in time where there is time. Every contender is tuned on the training part alone.
Differences of log loss are paired, row by row, with a 95 % interval, for each seed and for all of a simulated log;
`excess` is the log loss over that of the true pctr, both in expectation over clicks, relative to the latter. `utility`
is the expected surplus of bidding pctr · value truthfully in second-price auctions whose price is log-normal around
the base rate's value, in % of bidding with the true pctr. Beside the contenders stands a fit that is told the
simulator's formula (`informed_clicks.py`): what these clicks can teach. Times are of a shared machine: compare them
within a run.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from benchmarks import measure
from benchmarks.ctr_data import FIRST_SEED, ClickLog, click_logs
from benchmarks.ctr_peers import N_JOBS, PEERS, is_installed
from benchmarks.informed_clicks import InformedClicks
from bidml import metrics
from bidml.blueprint import Blueprint
from bidml.features import raw_columns
from bidml.fit import ClickModel

PACKAGES = ("numpy", "scikit-learn", "lightgbm", "catboost", "xgboost", "vowpalwabbit", "river")
OURS: dict[str, dict[str, Any]] = {
    "bidml latency": {"preset": "latency"},
    "bidml accuracy": {"preset": "accuracy"},
    "bidml without crosses": {"preset": "latency", "crosses": ()},
}
INFORMED = "told the simulator's formula"  # no contender: nobody is
MIN_SEGMENT_CLICKS = 200


def evaluate(log: ClickLog, log_odds: npt.NDArray[np.float64]) -> dict[str, Any]:
    """The metrics of one contender on one log."""
    _, y = log.outcomes()
    p = 1.0 / (1.0 + np.exp(-log_odds))
    area = metrics.auc_interval(y, log_odds)
    ratio = metrics.calibration_ratio_interval(y, p)
    found: dict[str, Any] = {
        "log_loss": metrics.log_loss_from_log_odds(y, log_odds),
        "normalized_entropy": metrics.normalized_entropy_from_log_odds(y, log_odds),
        "auc": area.value,
        "auc_interval": (area.low, area.high),
        "pr_auc": metrics.pr_auc(y, log_odds),
        "calibration_ratio": ratio.value,
        "calibration_ratio_interval": (ratio.low, ratio.high),
        "worst_segment": _worst_segment(log, y, p),
    }
    if log.true_pctr is not None:
        truth = log.true_pctr
        least = metrics.log_loss(truth, truth)
        found["excess"] = metrics.log_loss_from_log_odds(truth, log_odds) / least - 1.0
        found["true_ratio"] = float(p.sum() / truth.sum())
        found["worst_segment_by_truth"] = _worst_segment(log, truth, p)
        found["utility"] = _utility(p, truth) / _utility(truth, truth)
    return found


def paired(y: npt.NDArray[np.float64], one: Any, other: Any) -> tuple[float, float, float]:
    """Mean difference of log loss, one − other, and its 95 % interval."""
    d = (np.logaddexp(0.0, one) - y * one) - (np.logaddexp(0.0, other) - y * other)
    half = 1.96 * float(d.std(ddof=1)) / np.sqrt(len(d))
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half)


def run_log(log: ClickLog, only: list[str]) -> list[dict[str, Any]]:
    """Every contender on one log; rows of the table."""
    y_train, y = log.outcomes()
    rows, scores = [], {}
    for name in [*OURS, *PEERS, *([INFORMED] if log.true_pctr is not None else [])]:
        if only and not any(word.lower() in name.lower() for word in only):
            continue
        row: dict[str, Any] = {"log": log.name, "seed": log.seed, "contender": name}
        rows.append(row)
        if name in OURS:
            begun = time.perf_counter()
            model = ClickModel(log.spec, n_jobs=N_JOBS, **OURS[name])
            model.fit(log.train, y_train, timestamp=np.arange(len(log.train)) if log.timed else None)
            row["fit_seconds"] = time.perf_counter() - begun
            scores[name] = model.predict_log_odds(log.test)
            row["row_us"] = _row_microseconds(model, log)
        elif name == INFORMED:
            begun = time.perf_counter()
            scores[name] = InformedClicks().fit(log.train, y_train).predict_log_odds(log.test)
            row["fit_seconds"] = time.perf_counter() - begun
        else:
            package, peer = PEERS[name]
            if not is_installed(package):
                row["note"] = "not installed"
                continue
            train, test = log.raw()
            begun = time.perf_counter()
            scores[name] = peer(train, y_train, test, log.spec)
            row["fit_seconds"] = time.perf_counter() - begun
        row |= evaluate(log, scores[name])
        print(_line(row), flush=True)
    peers = [row for row in rows if row["contender"] in scores and row["contender"] in PEERS]
    if peers:
        best = min(peers, key=lambda row: row["log_loss"])["contender"]
        for row in rows:
            if row["contender"] in OURS:
                row["best_peer"] = best
                row["against"] = {
                    peer["contender"]: paired(y, scores[row["contender"]], scores[peer["contender"]])
                    for peer in peers
                }
                print(f"    {_verdict(row['contender'], best, row['against'][best])}")
    return rows


def _verdict(one: str, other: str, difference: tuple[float, float, float]) -> str:
    low, high = difference[1:]
    verdict = "ahead of" if high < 0 else "behind" if low > 0 else "equal to"
    return f"{one} is {verdict} {other} in log loss [{low:+.2e}, {high:+.2e}]"


def pooled(rows: list[dict[str, Any]]) -> list[str]:
    """Over the seeds of a simulated log, which are worlds of their own (splits of a real one share rows): means, and
    each of ours against the peer that is best in the mean."""
    lines = []
    for log in dict.fromkeys(row["log"] for row in rows):
        of_log = [row for row in rows if row["log"] == log and "excess" in row]
        names = list(dict.fromkeys(row["contender"] for row in of_log))
        by_name = {name: [row for row in of_log if row["contender"] == name] for name in names}
        n_seeds = max((len(found) for found in by_name.values()), default=0)
        if n_seeds < 2:
            continue
        loss = {name: float(np.mean([row["log_loss"] for row in found])) for name, found in by_name.items()}
        for name, found in by_name.items():
            excess = np.mean([row["excess"] for row in found])
            lines.append(
                f"{log}, mean of {len(found)}  {name:34s}  log loss {loss[name]:.6f}  excess {excess:.2%}"
            )
        peers = [name for name in names if name in PEERS and len(by_name[name]) == n_seeds]
        best = min(peers, key=loss.__getitem__, default=None)
        for name in names:
            if best is not None and name in OURS:
                each = np.array([row["against"][best] for row in by_name[name]])
                mean, half = each[:, 0].mean(), np.sqrt(((each[:, 2] - each[:, 0]) ** 2).sum()) / len(each)
                lines.append(f"    {_verdict(name, best, (mean, mean - half, mean + half))}")
    return lines


def _worst_segment(log: ClickLog, y: Any, p: Any) -> dict[str, Any] | None:
    """The segment of 200 clicks or more, `y` or expected ones, whose ratio is farthest from 1."""
    worst: dict[str, Any] | None = None
    for name in log.segments:
        table = metrics.calibration_by_segment(y, p, log.test[name].astype(str))
        table = table[table["events"] >= MIN_SEGMENT_CLICKS]
        for segment, ratio, low, high in zip(
            table.index, table["calibration_ratio"], table["low"], table["high"], strict=True
        ):
            if worst is None or abs(np.log(ratio)) > abs(np.log(worst["ratio"])):
                worst = {"segment": f"{name}={segment}", "ratio": ratio, "low": low, "high": high}
    return worst


def _utility(p: Any, truth: Any) -> float:
    """Σ E[(truth − price)·1(price < p)], in units of a click's value; ln price ~ N(ln mean truth, 1)."""
    centre = np.log(truth.mean())
    z = np.log(np.maximum(p, 1e-300)) - centre
    return float((truth * norm.cdf(z) - np.exp(centre + 0.5) * norm.cdf(z - 1.0)).sum())


def _row_microseconds(model: ClickModel, log: ClickLog) -> float:
    """A row of a batch in `bidml.score`, raw texts in, pctr out; single requests are bench_bid's subject."""
    from bidml.certify import DEFAULT_EVALUATORS
    from bidml.export import model_bytes
    from bidml.score import Scorer
    from bidml.score.reader import parse_artifact
    from bidml.self_check import self_check_of

    blueprint = Blueprint(log.spec, model.to_blueprint(), None, "USD")
    assert DEFAULT_EVALUATORS
    scorer = Scorer(parse_artifact(model_bytes(blueprint, self_check_of(blueprint, {}))))
    raw = raw_columns(log.test.head(10_000), log.spec)
    columns = {name: cells.tolist() if cells.dtype == object else cells for name, cells in raw.items()}
    n = len(next(iter(raw.values())))
    out = array("d", bytes(8 * n))
    return measure.throughput_ns(lambda: scorer.score_many(columns, {"pctr": out}), n, seconds=0.3) / 1e3


def _line(row: dict[str, Any]) -> str:
    parts = [
        f"{row['log']} #{row['seed']}",
        f"{row['contender']:34s}",
        f"log loss {row['log_loss']:.6f}",
        f"NE {row['normalized_entropy']:.4f}",
        f"AUC {row['auc']:.4f}",
        f"PR {row['pr_auc']:.4f}",
        f"ratio {row['calibration_ratio']:.3f}",
    ]
    if "excess" in row:
        parts += [
            f"excess {row['excess']:.2%}",
            f"true ratio {row['true_ratio']:.3f}",
            f"utility {row['utility']:.2%}",
        ]
    for key, name in (("worst_segment", "worst"), ("worst_segment_by_truth", "worst by truth")):
        if row.get(key):
            parts.append(f"{name} {row[key]['segment']} {row[key]['ratio']:.3f}")
    parts.append(f"{row['fit_seconds']:.1f} s")
    if "row_us" in row:
        parts.append(f"{row['row_us']:.2f} µs/row")
    return "  ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="100,000 simulated rows, one seed")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument(
        "--only", nargs="*", default=[], help="contenders whose name contains one of these words"
    )
    parser.add_argument("--logs", nargs="*", default=[], help="logs whose name contains one of these words")
    parser.add_argument("--rows", type=int, help="rows of a simulated log")
    parser.add_argument("--seeds", type=int, help="seeds of each log that has some")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for log in click_logs(
        quick=arguments.quick,
        n_rows=arguments.rows,
        seeds=arguments.seeds,
        first_seed=arguments.first_seed,
        named=arguments.logs,
    ):
        rows += run_log(log, arguments.only)
        if arguments.json:
            document = {"machine": measure.machine(PACKAGES), "quick": arguments.quick, "rows": rows}
            arguments.json.write_text(json.dumps(document, indent=1, default=float) + "\n")
    print("\n".join(pooled(rows)))
    for row in rows:
        if "note" in row:
            print(f"{row['log']}: {row['contender']} {row['note']}")


if __name__ == "__main__":
    main()
