"""What crosses of categories are worth: the linear model and the trees, with and without them.

    python -m benchmarks.crosses [--quick] [--logs NAME ...] [--rows N] [--seeds N] [--named A*B ...] [--json FILE]

The logs are those of `bench_ctr`. Crosses are chosen on the training rows alone: the linear model's progressive scores
are out of sample, so a pair is taken, best first, while it lowers their log loss by more than `--z` standard errors (it
is the best of some dozens of pairs, hence 3). The same pairs then go to the trees, which also say what they would have
made of them on the last 15 % of the training rows. `--most` pairs at most; where none is chosen, the best are tried all
the same and reported as not chosen. Differences on the test rows are with − without, paired, with a 95 % interval; of
a simulated log also in expectation over clicks, relative to the log loss of the true pctr.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import measure
from benchmarks.bench_ctr import PACKAGES, paired
from benchmarks.ctr_data import ClickLog, click_logs
from bidml.blueprint import Blueprint, CtrBlueprint, Head, WinBlueprint
from bidml.contract import FeatureKind
from bidml.features import margins, raw_columns
from bidml.fit import ClickModel
from bidml.fit.crosses import Pair, cross_categories
from bidml.fit.encoding import Categories
from bidml.fit.ftrl import ALPHAS, FtrlLinear, fit_ftrl
from bidml.metadata import SelfCheck
from bidml.metrics import log_loss, log_loss_from_log_odds
from bidml.score import Scorer
from bidml.score.reader import Artifact

Doubles = npt.NDArray[np.float64]
VALIDATION_SHARE = 0.15
N_REQUESTS = 2_000


def fit_linear(
    log: ClickLog, categories: dict[str, Categories], crosses: list[Pair], alphas: Sequence[float] = ALPHAS
) -> FtrlLinear:
    y, _ = log.outcomes()
    rate = y.mean()
    features = [*categories.values(), *cross_categories(categories, crosses).values()]
    return fit_ftrl(
        features,
        y,
        base_log_odds=math.log(rate / (1.0 - rate)),
        time=np.arange(len(y)) if log.timed else None,
        rng=np.random.default_rng(0),
        alphas=alphas,
    )


def losses(y: Doubles, s: Doubles) -> Doubles:
    return np.logaddexp(0.0, s) - y * s


def ranked_pairs(log: ClickLog, categories: dict[str, Categories], *, most: int) -> list[tuple[Pair, float]]:
    """Greedily the best pairs and by how many standard errors each lowers the progressive loss of the training rows."""
    y, _ = log.outcomes()
    names = [name for name, found in categories.items() if len(found.keys) > 1]
    taken: list[tuple[Pair, float]] = []
    plain = fit_linear(log, categories, [])
    before = losses(y, plain.progressive)
    left = list(combinations(names, 2))
    while left and len(taken) < most:
        tried = []
        for pair in left:
            crosses = [*(p for p, _ in taken), pair]
            after = losses(y, fit_linear(log, categories, crosses, [plain.alpha]).progressive)
            d = before - after
            tried.append((float(d.mean() / (d.std() / math.sqrt(len(d)) + 1e-300)), pair, after))
        gain, best, before = max(tried, key=lambda found: found[0])
        taken.append((best, gain))
        # what does not help now seldom helps later: half of the pairs are tried again
        tried.sort(key=lambda found: -found[0])
        left = [pair for _, pair, _ in tried[: (len(tried) + 1) // 2] if pair != best]
    return taken


def trees(log: ClickLog, crosses: list[Pair], rows: slice = slice(None)) -> ClickModel:
    y, _ = log.outcomes()
    train = log.train[rows]
    when = np.arange(len(train)) if log.timed else None
    return ClickModel(log.spec, crosses=crosses, n_jobs=1).fit(train, y[rows], timestamp=when)


def run_log(log: ClickLog, *, most: int, z: float, named: list[Pair]) -> list[dict[str, Any]]:
    raw, raw_test = log.raw()
    y_train, y = log.outcomes()
    categories = {f.name: Categories.of(f.name, raw[f.name]) for f in log.spec.categories()}
    pairs = [(pair, math.inf) for pair in named] or ranked_pairs(log, categories, most=most)
    print(
        f"{log.name} #{log.seed}: " + ", ".join(f"{a}*{b} z {gain:+.1f}" for (a, b), gain in pairs),
        flush=True,
    )
    n_chosen = next((i for i, (_, gain) in enumerate(pairs) if gain < z), len(pairs))
    crosses = [pair for pair, _ in pairs[: n_chosen or most]]
    rows = []
    for kind in ("linear", "trees"):
        found: dict[bool, tuple[Doubles, float, CtrBlueprint]] = {}
        for with_them in (False, True):
            begun = time.perf_counter()
            if kind == "linear":
                fitted = fit_linear(log, categories, crosses if with_them else [])
                model = CtrBlueprint(Head((), None, fitted.terms, fitted.intercept))
                seconds = time.perf_counter() - begun
                scores = margins(raw_test, model.head)
            else:
                clicks = trees(log, crosses if with_them else [])
                seconds = time.perf_counter() - begun
                scores, model = clicks.predict_log_odds(log.test), clicks.to_blueprint()
            found[with_them] = scores, seconds, model
        row: dict[str, Any] = {
            "log": log.name,
            "seed": log.seed,
            "model": kind,
            "crosses": ["*".join(pair) for pair in crosses],
            "chosen": n_chosen > 0,
            "log_loss": log_loss_from_log_odds(y, found[False][0]),
            "difference": paired(y, found[True][0], found[False][0]),
            "fit_seconds": [found[False][1], found[True][1]],
            "bid_ns": bid_nanoseconds(log, found[False][2], found[True][2]),
        }
        if kind == "trees":
            row["validation"] = _validated(log, y_train, crosses)
        if log.true_pctr is not None:
            least = log_loss(log.true_pctr, log.true_pctr)
            expected = [log_loss_from_log_odds(log.true_pctr, found[which][0]) for which in (False, True)]
            row["excess"] = [loss / least - 1.0 for loss in expected]
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def _validated(log: ClickLog, y: Doubles, crosses: list[Pair]) -> tuple[float, float, float]:
    """The difference on the last rows of the training part, of models that have not seen them."""
    n = round((1.0 - VALIDATION_SHARE) * len(y))
    last = log.train[n:]
    with_them, without = (trees(log, which, slice(0, n)).predict_log_odds(last) for which in (crosses, []))
    return paired(y[n:], with_them, without)


def bid_nanoseconds(log: ClickLog, *models: CtrBlueprint) -> list[float]:
    """The median `bid` of each, net of a null call, on rotating requests with the log's own values; taken in turns."""
    win = WinBlueprint(Head((), None), Head((), None), 0.0)
    rows = raw_columns(log.test.head(N_REQUESTS), log.spec)
    n = len(log.test.head(N_REQUESTS))

    def requests() -> list[Any]:  # each its own: who comes second would find them in the cache
        return [request_of(log, rows, i) for i in range(n)]

    fields = {f.source.partition(".")[2]: "" for f in log.spec.features if f.source.startswith("line_item.")}
    contenders = [measure.null_contender(requests())]
    for model in models:
        scorer = Scorer(Artifact(Blueprint(log.spec, model, win, "USD"), SelfCheck({}, {}), ""))
        line = scorer.line_item(value_per_click=1.0, cap_cpm=50.0, **fields)
        contenders.append(
            measure.Contender("bid", "", lambda request, s=scorer, at=line: s.bid(request, at), requests())  # type: ignore[misc]
        )
    measure.run(contenders, seconds=3.0, cold_share=0.0)
    null, *medians = (measure.percentile(contender.warm_ns, 50.0) for contender in contenders)
    return [median - null for median in medians]


def request_of(log: ClickLog, rows: Any, i: int) -> dict[str, Any]:
    """A request with row `i` of the raw columns where the spec looks; derived features and line items' are missing."""
    request: dict[str, Any] = {"at": 1, "imp": [{}]}
    for feature in log.spec.features:
        value = rows[feature.name][i]
        root, *path = feature.source.split(".")
        is_missing = value == "" if feature.kind is FeatureKind.CATEGORY else math.isnan(value)
        if is_missing or root in ("line_item", "derived"):
            continue
        at: Any = request["imp"][0] if root == "imp" else request.setdefault(root, {}) if path else request
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at[path[-1] if path else root] = value
    return request


def _line(row: dict[str, Any]) -> str:
    mean, low, high = row["difference"]
    verdict = "better" if high < 0.0 else "worse" if low > 0.0 else "equal"
    parts = [
        f"  {row['model']:6s} {'chosen' if row['chosen'] else 'not chosen'}  log loss {row['log_loss']:.5f}",
        f"with crosses {mean:+.2e} [{low:+.2e}, {high:+.2e}] {verdict} ({mean / row['log_loss']:+.2%})",
    ]
    if "validation" in row:
        parts.append("validation {:+.2e} [{:+.2e}, {:+.2e}]".format(*row["validation"]))
    if "excess" in row:
        parts.append("excess {:.2%} → {:.2%}".format(*row["excess"]))
    parts.append("fit {:.1f} → {:.1f} s".format(*row["fit_seconds"]))
    parts.append("bid {:.0f} → {:.0f} ns".format(*row["bid_ns"]))
    return "  ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="100,000 simulated rows, one seed")
    parser.add_argument("--json", type=Path, help="write every figure there")
    parser.add_argument("--logs", nargs="*", default=[], help="logs whose name contains one of these words")
    parser.add_argument("--rows", type=int, help="rows of a simulated log")
    parser.add_argument("--seeds", type=int, help="seeds of each log that has some")
    parser.add_argument("--most", type=int, default=3, help="crosses at most")
    parser.add_argument("--z", type=float, default=3.0, help="standard errors that a cross has to gain")
    parser.add_argument("--named", nargs="*", default=[], help="crosses, a*b, that are not chosen but told")
    arguments = parser.parse_args()
    named = [(first, second) for first, _, second in (text.partition("*") for text in arguments.named)]
    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for log in click_logs(quick=arguments.quick, n_rows=arguments.rows, seeds=arguments.seeds):
        if not arguments.logs or any(word.lower() in log.name.lower() for word in arguments.logs):
            rows += run_log(log, most=arguments.most, z=arguments.z, named=named)
    if arguments.json:
        document = {"machine": measure.machine(PACKAGES), "quick": arguments.quick, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
