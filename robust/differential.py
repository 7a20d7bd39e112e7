"""One model on everything that can run it: LightGBM, onnxruntime, the plain oracle, each instruction set of ours.

A model is a LightGBM booster with random data, objective and options, of all that the exporter accepts, in an artifact
with a random win curve. Its leaves are rounded to multiples of 2^-20: sums of them are exact in any order, so that
margins must be equal to the last bit whoever adds them and a single wrong leaf shows. Rows lie on thresholds, one ulp
beside them, on members, NaN and infinities, unseen texts.

Held: LightGBM, onnxruntime, oracle and every native path agree in all margins to the last bit, native paths in the bid,
too; other outputs agree to the certificate's tolerance.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import Any

import lightgbm as lgb
import numpy as np
from artifacts import trees_of
from ensembles import trap_numbers
from numpy.typing import NDArray
from runtimes import run_onnxruntime

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, Rewrite, WinBlueprint
from bidml.contract import GOAL_INPUTS, PRICE_INPUTS, RISK_INPUTS, Feature, FeatureKind, FeatureSpec
from bidml.export import model_bytes
from bidml.lightgbm_trees import head_of_booster
from bidml.metadata import MARGINS, TOLERANCE, difference, expected_names
from bidml.oracle import evaluate
from bidml.score import Scorer
from bidml.score._native import isa_available
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from robust.outcome import WHOLE, Effort, Outcome, Share

N_ROWS, N_ORACLE_ROWS, N_FEATURES = 2_000, 25, 8
_CATEGORIES = [5, 6]  # features that may be LightGBM's own categories
_ISAS = [isa for isa in ("scalar", "avx2", "avx512") if isa_available(isa)]
_TEXTS = ("", "a", "b", "USA", "Ελλάδα", "x" * 70)
SPEC = FeatureSpec(
    (
        *(Feature(f"f{i}", FeatureKind.NUMBER, f"ext.f{i}") for i in range(N_FEATURES)),
        Feature("text", FeatureKind.CATEGORY, "ext.text"),
    )
)
_LOG_ODDS = ("binary", "cross_entropy")
_RAW = ("cross_entropy_lambda", "poisson", "regression", "regression_l1", "huber", "fair", "quantile", "mape",
        "gamma", "tweedie")  # fmt: skip


def attack(effort: Effort, rng: np.random.Generator, share: Share = WHOLE) -> Outcome:
    outcome = Outcome()
    paths: Counter[str] = Counter()
    objectives: Counter[str] = Counter()
    n_models = effort.of(short=10, ci=40, quick=200, long=20_000) // share.of
    for number in range(n_models):
        blueprint, booster, raw_params = _model(rng)
        objectives[raw_params["objective"]] += 1
        _compare(outcome, blueprint, booster, rng, paths, f"model {number}, {raw_params}")
    outcome.note(
        f"{n_models} models x {N_ROWS:,} rows; {len(objectives)} objectives, {len(paths)} native paths"
    )
    outcome.demand(len(paths) >= 4 or effort is Effort.SHORT, f"too few paths were tried: {dict(paths)}")
    return outcome


def _params(rng: np.random.Generator) -> dict[str, Any]:
    """Any objective with any options that the exporter accepts."""

    def one_of(*choices: Any) -> Any:
        return choices[rng.integers(len(choices))]

    objective = one_of(*_LOG_ODDS, *_LOG_ODDS, *_RAW) if rng.random() < 0.6 else "binary"
    params: dict[str, Any] = {
        "objective": objective,
        "boosting": one_of("gbdt", "gbdt", "dart", "rf"),
        "num_leaves": one_of(2, 4, 15, 16, 31, 32, 63, 64, 100),
        "max_depth": one_of(-1, -1, 1, 3, 4, 5, 6, 12),
        "max_bin": one_of(3, 15, 255, 255, 2_000),
        "min_data_in_leaf": one_of(1, 5, 20),
        "min_data_in_bin": 1,
        "learning_rate": one_of(0.05, 0.3, 1.0),
        "zero_as_missing": one_of(False, False, True),
        "use_missing": one_of(True, True, True, False),
        "extra_trees": one_of(False, False, True),
        "path_smooth": one_of(0.0, 2.0),
        "max_cat_to_onehot": one_of(4, 600),
        "cat_smooth": 1.0,
        "min_data_per_group": 5,
        "boost_from_average": one_of(True, False),
        "lambda_l1": one_of(0.0, 0.1),
        "max_delta_step": one_of(0.0, 0.7),
        "data_sample_strategy": "bagging",
        "seed": int(rng.integers(2**31)),
    }
    if params["boosting"] == "rf":
        params |= {"bagging_freq": 1, "bagging_fraction": 0.6}
    elif rng.random() < 0.2:
        params |= {"data_sample_strategy": "goss"}
    if objective == "binary":
        params |= one_of({}, {"is_unbalance": True}, {"scale_pos_weight": 3.0})
        params |= {"sigmoid": one_of(1.0, 1.0, 0.7)}
    if rng.random() < 0.2 and objective not in ("regression_l1", "huber", "quantile", "mape"):
        params |= {"monotone_constraints": [1, -1, 0, 0, 0, 0, 0, 1]}
        params |= {"monotone_constraints_method": one_of("basic", "intermediate", "advanced")}
    return params


def _training(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    n = int(rng.integers(300, 2_500))
    x = np.column_stack(
        [
            rng.normal(size=n).round(int(rng.integers(0, 4))),
            rng.lognormal(0.0, 3.0, n),
            np.where(rng.random(n) < 0.7, 0.0, rng.normal(size=n) * 1e-3),
            rng.integers(0, 24, n),
            np.where(rng.random(n) < 0.4, np.nan, 1.0),
            rng.integers(0, 40, n),
            rng.zipf(1.6, n) % 500,
            rng.uniform(-1.0, 1.0, n).round(3),
        ]
    )
    x[:, :4][rng.random((n, 4)) < 0.05] = np.nan
    effect = np.nan_to_num(x[:, 0]) + np.sin(np.nan_to_num(x[:, 3])) + np.isnan(x[:, 4]) + np.sin(x[:, 5] * 7)
    return x, (rng.random(n) < 1.0 / (1.0 + np.exp(-effect - x[:, 7]))).astype(float)


def _model(rng: np.random.Generator) -> tuple[Blueprint, lgb.Booster, dict[str, Any]]:
    x, y = _training(rng)
    params = _params(rng)
    y = y + 0.5 if params["objective"] in ("gamma", "tweedie", "poisson", "mape") else y
    quiet = {"num_threads": 1, "verbosity": -1, "deterministic": True}
    categories: Any = _CATEGORIES if rng.random() < 0.5 else "auto"
    data = lgb.Dataset(x, y, categorical_feature=categories, params={**params, **quiet})
    booster = lgb.train({**params, **quiet}, data, int(rng.integers(1, 40)))
    for tree, leaf in enumerate(booster.dump_model()["tree_info"]):
        for i in range(leaf["num_leaves"]):
            value = booster.get_leaf_output(tree, i)
            booster.set_leaf_output(tree, i, float(np.round(np.clip(value, -50.0, 50.0) * 2.0**20) / 2.0**20))
    columns = tuple(Column(f"f{i}") for i in range(N_FEATURES))
    head = head_of_booster(booster, columns, raw=params["objective"] not in _LOG_ODDS)
    calibration = Calibration(*rng.choice([0.5, 1.0, 1.0, 2.0], 2), float(rng.choice([0.0, 0.25])))
    win = WinBlueprint(_random_head(rng), _random_head(rng), *rng.choice([0.25, 0.75, 1.25], 4).tolist())
    cvr = CtrBlueprint(_random_head(rng), Calibration(0.75, 1.25, -0.25)) if rng.random() < 0.5 else None
    variance = _random_head(rng) if rng.random() < 0.5 else None
    ctr = CtrBlueprint(head, calibration, variance)
    return Blueprint(SPEC, ctr, win, "USD", cvr=cvr), booster, params


def _random_head(rng: np.random.Generator) -> Head:
    lookup = Lookup("text", ("", "USA", "a", "Ελλάδα"), array("d", [0.0, 1.0, 2.0, -1.5]), float("nan"))
    rewrites = [Rewrite(rng.choice(list(Rewrite))) for _ in range(N_FEATURES)]
    columns = (
        *(Column(f"f{i}", None, rewrite) for i, rewrite in enumerate(rewrites)),
        Column("text", lookup),
    )
    depth = int(rng.choice([0, 1, 3, 5, 6, 9]))
    trees = trees_of(*(_random_tree(columns, depth, rng) for _ in range(int(rng.integers(1, 20)))))
    term = Lookup("text", ("a", "b"), array("d", [0.25, -0.5]), 0.0)
    return Head(columns, trees, (term,), 0.5)


def _random_tree(columns: tuple[Column, ...], depth: int, rng: np.random.Generator) -> Any:
    if depth == 0 or rng.random() < 0.1:
        return float(np.round(rng.normal() * 2.0**18) / 2.0**20)
    column = int(rng.integers(len(columns)))
    test: Any = float(rng.choice([round(rng.normal(), 2), 0.0, -0.0, 1.0, 7.0, 23.0, np.inf]))
    if columns[column].rewrite is Rewrite.TRUNCATE and rng.random() < 0.5:
        test = frozenset(rng.integers(0, 60, rng.integers(1, 6)).astype(float).tolist())
    sides = [_random_tree(columns, depth - 1, rng) for _ in range(2)]
    return (column, test, bool(rng.random() < 0.5), *sides)


def _columns(blueprint: Blueprint, rng: np.random.Generator) -> dict[str, Any]:
    assert blueprint.ctr is not None
    assert blueprint.win is not None
    heads = [blueprint.ctr.head, blueprint.win.location, blueprint.win.log_slope]
    heads += [blueprint.cvr.head] if blueprint.cvr is not None else []
    heads += [blueprint.ctr.variance] if blueprint.ctr.variance is not None else []
    rows = trap_numbers(heads, N_ROWS, N_FEATURES, rng)
    for feature in _CATEGORIES:
        ids = rng.random(N_ROWS) < 0.6
        rows[ids, feature] = rng.integers(-2, 502, int(ids.sum()))
    columns: dict[str, Any] = {f"f{i}": np.ascontiguousarray(rows[:, i]) for i in range(N_FEATURES)}
    columns["text"] = rng.choice(np.array([*_TEXTS, "unseen"], dtype=object), N_ROWS).tolist()
    money = {"value_per_click": 2.0, "floor_cpm": 0.02, "cap_cpm": 9.0, "pacing_multiplier": 1.0}
    risks = RISK_INPUTS if blueprint.ctr.variance is not None else ()
    for name in PRICE_INPUTS + (GOAL_INPUTS if blueprint.cvr is not None else ()) + risks:
        spread = money.get(name, 1.0) * np.exp(rng.normal(0.0, 1.0, N_ROWS))
        columns[name] = rng.choice([1.0, 2.0], N_ROWS) if name == "auction_type" else spread
    return columns


def _compare(
    outcome: Outcome,
    blueprint: Blueprint,
    booster: lgb.Booster,
    rng: np.random.Generator,
    paths: Counter[str],
    what: str,
) -> None:
    columns = _columns(blueprint, rng)
    names = expected_names(blueprint)
    data = model_bytes(blueprint, self_check_of(blueprint, {}))
    artifact = parse_artifact(data)
    found: dict[str, dict[str, Any]] = {}
    for isa in _ISAS:
        scorer = Scorer(artifact, isa=isa)
        found[isa] = {name: np.empty(N_ROWS) for name in names}
        scorer.score_many(columns, found[isa])
        paths.update(head["path"] for head in scorer.info()["engine"]["heads"].values())
    first = found[_ISAS[0]]
    for isa in _ISAS[1:]:
        for name in names:
            _demand_bits(outcome, first[name], found[isa][name], f"{what}: {name} of {_ISAS[0]} and {isa}")
    rows = np.column_stack([columns[f"f{i}"] for i in range(N_FEATURES)])
    head = blueprint.ctr.head if blueprint.ctr is not None else None
    assert head is not None
    sums = booster.predict(rows, raw_score=True, num_threads=1) / head.divisor * head.scale
    _demand_bits(outcome, sums, first["ctr_margin"], f"{what}: LightGBM and the scorer")
    by_file = run_onnxruntime(data, columns, names)
    few = {name: column[:N_ORACLE_ROWS] for name, column in columns.items()}
    by_oracle = evaluate(blueprint, few)
    for other, values in (("onnxruntime", by_file), ("the oracle", by_oracle)):
        for name in names:
            mine = first[name][: len(values[name])]
            if name in MARGINS:
                _demand_bits(outcome, np.asarray(values[name]), mine, f"{what}: {name} of {other}")
                continue
            pairs = zip(values[name], mine.tolist(), strict=True)
            far = [(i, a, b) for i, (a, b) in enumerate(pairs) if not difference(name, a, b) <= TOLERANCE]
            outcome.demand(not far, f"{what}: {name} of {other}: {len(far)} differ, {far[:2]}")
    outcome.trials += N_ROWS


def _demand_bits(
    outcome: Outcome, wanted: NDArray[np.float64], found: NDArray[np.float64], what: str
) -> None:
    different = np.flatnonzero((wanted != found) & ~(np.isnan(wanted) & np.isnan(found)))
    if len(different):
        i = int(different[0])
        outcome.broke(
            f"{what}: {len(different)} of {len(found)} differ, row {i}: {wanted[i]!r}, {found[i]!r}"
        )
