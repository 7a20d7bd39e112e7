"""Win curves judged by the money they earn: worlds with a known win rate, real auctions with known prices.

Per feedback and shape of the market price, mean over seeds with 95 % intervals (Student's t over worlds): surplus as %
of the oracle's that knows F, with the true pctr given; bias@opt, predicted ÷ true win rate at the chosen bids; excess
log loss at the logged bids. "ahead" is the paired difference of bidml's surplus to a baseline's, in points.

    python -m benchmarks.bench_pricing [--quick] [--json FILE] [--seeds 5] [--auctions 100000] [--plots runs/pricing]

The seeds reported are 1001, 1002, …. Parameters were chosen on others: 101 to 202.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks import win_real
from benchmarks.pacing_replay import paced_day
from benchmarks.win_curves import Contender, Policy, best_constant_shade, contenders
from benchmarks.win_peers import peers
from benchmarks.win_worlds import CLOSED, EXACT, FEEDBACK, SHAPES, Experiment, judge, make_experiment

SEGMENT = "app_bundle"
OURS = "bidml"
FIRST_SEED = 1001
CONSTANT = "best constant shade"
_QUICK_SHAPES = ("log_logistic", "mixture")

Scores = dict[str, list[float]]  # per score, one number a seed
Table = dict[str, dict[str, dict[str, Scores]]]  # feedback → shape → contender


def run_worlds(
    who: Sequence[Contender],
    *,
    shapes: Sequence[str],
    feedbacks: Iterable[str],
    seeds: Sequence[int],
    n_train: int,
    n_test: int,
) -> Table:
    """Every contender in every world; one line a world is printed as it is done."""
    table: Table = {feedback: {shape: {} for shape in shapes} for feedback in feedbacks}
    for seed in seeds:
        for shape in shapes:
            experiment = make_experiment(shape, seed=seed, n_train=n_train, n_test=n_test)
            floor = experiment.test.truth.floor_cpm
            _, shaded = best_constant_shade(
                experiment.value_cpm, floor, experiment.test.log, experiment.surplus
            )
            last: dict[str, dict[str, float]] = {}
            for feedback in table:
                rows = table[feedback][shape]
                _add(rows, CONSTANT, {"surplus": shaded})
                for contender in who:
                    if contender.needs_prices and feedback == CLOSED:
                        continue
                    if not (contender.outcomes_only and contender.name in last):
                        last[contender.name] = _scores(contender, experiment, feedback, seed)
                    _add(rows, contender.name, last[contender.name])
                print(_line(feedback, shape, seed, rows), flush=True)
    return table


def merged(tables: Sequence[Table]) -> Table:
    """Tables of different worlds as one; seeds in the order of the tables."""
    whole: Table = {}
    for table in tables:
        for feedback, by_shape in table.items():
            for shape, rows in by_shape.items():
                into = whole.setdefault(feedback, {}).setdefault(shape, {})
                for name, scores in rows.items():
                    for key, values in scores.items():
                        into.setdefault(name, {}).setdefault(key, []).extend(values)
    return whole


def _scores(contender: Contender, experiment: Experiment, feedback: str, seed: int) -> dict[str, float]:
    start = time.process_time()
    y = experiment.observations(feedback)
    policy = contender.fit(experiment.test.spec, experiment.train, y, seed)
    seconds = time.process_time() - start
    return judge(policy, experiment)[0] | {"fit_cpu_seconds": seconds}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (NaN for one value)."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
    return float(np.mean(values)), float(half)


def summary(table: Table) -> list[str]:
    """The table as lines of text."""
    lines = []
    for feedback, by_shape in table.items():
        lines += ["", f"{feedback}: surplus, % of the oracle (mean ± 95 %)"]
        shapes = list(by_shape)
        lines.append(f"{'':28s}" + "".join(f"{shape:>16s}" for shape in [*shapes, "mean of shapes"]))
        for name in by_shape[shapes[0]]:
            cells = [interval(by_shape[shape][name]["surplus"]) for shape in shapes]
            mean = np.mean([m for m, _ in cells])
            lines.append(f"{name:28s}" + "".join(_cell(m, h) for m, h in cells) + f"{100 * mean:16.2f}")
        if OURS not in by_shape[shapes[0]]:
            continue
        lines.append("bias@opt | excess NLL | paired: bidml ahead by, points")
        for name, first in by_shape[shapes[0]].items():
            if "bias" not in first:
                continue
            bias = [np.mean(by_shape[shape][name]["bias"]) for shape in shapes]
            nll = [np.mean(by_shape[shape][name]["excess_nll"]) for shape in shapes]
            ahead = [_ahead(by_shape[shape], name) for shape in shapes]
            lines.append(
                f"{name:28s}" + " ".join(f"{b:6.3f}" for b in bias) + " | " + " ".join(f"{x:6.4f}" for x in nll)
                + " | " + " ".join(f"{100 * m:+5.2f}±{100 * h:4.2f}" for m, h in ahead)
            )  # fmt: skip
    return lines


def real_summary(table: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """The table of the real auctions as lines of text."""
    lines = []
    for feedback, rows in table.items():
        lines += ["", f"iPinYou 2259, {feedback}: surplus % of the ex-post bound | win cross-entropy | ANLP"]
        for name, scores in rows.items():
            rest = f"{scores['win_cross_entropy']:8.4f} {scores['anlp']:8.3f}" if "anlp" in scores else ""
            lines.append(
                f"{name:28s}{100 * scores['surplus']:8.2f} ±{100 * scores['surplus_sd']:5.2f} {rest}"
            )
    return lines


def draw(folder: Path, auctions: win_real.RealAuctions, *, n_train: int, n_test: int) -> None:
    """The plots, of one world and of the real auctions."""
    from benchmarks import win_plots

    folder.mkdir(parents=True, exist_ok=True)
    experiment = make_experiment("log_normal", seed=FIRST_SEED, n_train=n_train, n_test=n_test)
    y = experiment.observations(EXACT)
    wanted = (OURS, "LR in log bid", f"KM / isotonic by {SEGMENT}")
    policies: dict[str, Policy] = {
        c.name: c.fit(experiment.test.spec, experiment.train, y, 1)
        for c in contenders(SEGMENT)
        if c.name in wanted
    }
    win_plots.plot_landscapes(policies, experiment, SEGMENT, folder / "landscapes.png")
    win_plots.plot_surplus_curves(policies[OURS], experiment, folder / "surplus_curves.png")
    bids = {name: judge(policy, experiment)[1] for name, policy in policies.items()}
    win_plots.plot_regret(bids, experiment, SEGMENT, folder / "regret_by_segment.png")
    ours = {
        f"bidml, {feedback}": contenders(SEGMENT)[0].fit(
            auctions.spec, auctions.train, auctions.observations(feedback), 1
        )
        for feedback in FEEDBACK
    }
    win_plots.plot_real_landscape(ours, auctions, folder / "real_landscape.png")
    paced_day(1458, 1 / 8).savefig(folder / "pacing_over_a_day.png", dpi=120)


def wanted(who: Iterable[Contender], options: argparse.Namespace) -> list[Contender]:
    """Those that `--variants` and `--contender` leave."""
    return [
        c
        for c in who
        if (options.variants or not c.variant) and (options.contender is None or c.name in options.contender)
    ]


def _add(rows: dict[str, Scores], name: str, scores: dict[str, float]) -> None:
    row = rows.setdefault(name, {})
    for key, value in scores.items():
        row.setdefault(key, []).append(value)


def _ahead(rows: dict[str, Scores], name: str) -> tuple[float, float]:
    return interval((np.array(rows[OURS]["surplus"]) - np.array(rows[name]["surplus"])).tolist())


def _cell(mean: float, half: float) -> str:
    return f"{100 * mean:10.2f} ±{100 * half:4.2f}" if half == half else f"{100 * mean:16.2f}"


def _line(feedback: str, shape: str, seed: int, rows: dict[str, Scores]) -> str:
    best = {name: row["surplus"][-1] for name, row in rows.items()}
    return f"{feedback}, {shape}, seed {seed}: " + ", ".join(f"{n} {100 * s:.2f}" for n, s in best.items())


def main() -> None:
    """Prints the tables; writes JSON and plots where asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one seed, 20,000 auctions, two shapes")
    parser.add_argument("--json", type=Path, help="write every number here")
    parser.add_argument("--plots", type=Path, default=Path("runs/pricing"))
    parser.add_argument("--seeds", type=int, default=5, help="of worlds; of fits to real auctions, up to 3")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--auctions", type=int, default=100_000)
    parser.add_argument("--feedback", choices=FEEDBACK, action="append")
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--contender", action="append", help="leave out all others")
    parser.add_argument("--only", choices=("worlds", "real"))
    parser.add_argument("--variants", action="store_true", help="also bidml with options switched off")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="print the tables of earlier --json files, and stop"
    )
    options = parser.parse_args()
    if options.merge:
        print("\n".join(summary(merged([json.loads(path.read_text())["worlds"] for path in options.merge]))))
        return
    n_train = 20_000 if options.quick else options.auctions
    seeds = [options.first_seed + i for i in range(1 if options.quick else options.seeds)]
    shapes = options.shape or (_QUICK_SHAPES if options.quick else SHAPES)
    n_test = 4_000 if options.quick else 8_000
    found, missing = peers()
    for package in missing:
        print(f"{package}: not installed, left out")
    result: dict[str, Any] = {"n_train": n_train, "n_test": n_test, "seeds": seeds}
    if options.only != "real":
        who = wanted(contenders(SEGMENT), options)
        result["worlds"] = run_worlds(
            who,
            shapes=shapes, feedbacks=options.feedback or FEEDBACK, seeds=seeds, n_train=n_train, n_test=n_test,
        )  # fmt: skip
        print("\n".join(summary(result["worlds"])))
    if options.only != "worlds":
        auctions = win_real.load(n_draws=3 if options.quick else 10)
        result["real"] = win_real.run(
            wanted([*contenders("domain"), *found], options),
            auctions,
            seeds=range(1, 2 if options.quick else 1 + min(options.seeds, 3)),
        )
        print("\n".join(real_summary(result["real"])))
        if options.contender is None:
            draw(options.plots, auctions, n_train=n_train, n_test=n_test)
            print(f"plots: {options.plots}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
