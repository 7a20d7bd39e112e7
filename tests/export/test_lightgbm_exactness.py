"""Laws of the trees: what LightGBM computes, the file computes, to the last bit, on every kind of row."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, fields
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from numpy.typing import NDArray
from runtimes import run_lowest_onnxruntime, run_onnxruntime

from bidml.blueprint import LIGHTGBM_ZERO, Blueprint, Column, CtrBlueprint, NodeMode, Trees
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import CertificateError, ExportError
from bidml.export import model_bytes, write_artifact
from bidml.graph_parts import same_bits
from bidml.lightgbm_trees import head_of_booster, trees_of_booster, trees_of_text
from bidml.score import Scorer
from bidml.self_check import self_check_of

N_FEATURES = 8
N_ROWS = 100_000
NATIVE_CATEGORIES = [5, 6]
SPEC = FeatureSpec(tuple(Feature(f"f{i}", FeatureKind.NUMBER, f"ext.f{i}") for i in range(N_FEATURES)))
COLUMNS = tuple(Column(name) for name in SPEC.names)
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Kind:
    """How to train a booster, and what to demand of its trees."""

    params: dict[str, Any]
    n_trees: int = 12
    categories: bool = False
    raw: bool = False
    early_stopping: bool = False


def _squared_error(predicted: NDArray[np.float64], data: lgb.Dataset) -> tuple[Any, Any]:
    return predicted - data.get_label(), np.ones(len(predicted))


KINDS = {
    "binary": Kind({"objective": "binary"}),
    "cross_entropy": Kind({"objective": "cross_entropy"}),
    "sigmoid 0.7": Kind({"objective": "binary", "sigmoid": 0.7}),
    "random forest": Kind({"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}),
    "dart": Kind({"boosting": "dart", "drop_rate": 0.5}),
    "goss": Kind({"data_sample_strategy": "goss", "learning_rate": 0.4}),
    "native categories": Kind({"cat_smooth": 1.0, "min_data_per_group": 5}, categories=True),
    "one against the rest": Kind({"max_cat_to_onehot": 600, "min_data_per_group": 5}, categories=True),
    "zero_as_missing": Kind({"zero_as_missing": True}),
    "zero_as_missing, categories": Kind({"zero_as_missing": True, "min_data_per_group": 5}, categories=True),
    "missing ignored": Kind({"use_missing": False}),
    "best iteration": Kind({"learning_rate": 1.0}, n_trees=60, early_stopping=True),
    "monotone": Kind(
        {"monotone_constraints": [1, -1, 0, 0, 0, 0, 0, 1], "monotone_constraints_method": "advanced"}
    ),
    "depth first": Kind({"max_depth": 4, "num_leaves": 16, "path_smooth": 2.0}),
    "a bin per value": Kind({"max_bin": 5000, "min_data_in_bin": 1, "min_data_in_leaf": 1, "num_leaves": 63}),
    "poisson, raw": Kind({"objective": "poisson"}, raw=True),
    "custom objective, raw": Kind({"objective": _squared_error}, raw=True),
    "weights in [0, 1], raw": Kind({"objective": "cross_entropy_lambda"}, raw=True),
}


@pytest.fixture(scope="module")
def training() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """6,000 rows: rounded, heavy-tailed, zero-heavy, clock, constant or missing, two ids, complete; 0/1 labels."""
    rng = np.random.default_rng(11)
    n = 6_000
    x = np.column_stack(
        [
            rng.normal(size=n).round(2),
            rng.lognormal(0.0, 3.0, n),
            np.where(rng.random(n) < 0.7, 0.0, rng.normal(size=n) * 1e-3),
            rng.integers(0, 24, n),
            np.where(rng.random(n) < 0.4, NAN, 1.0),
            rng.integers(0, 40, n),
            rng.zipf(1.6, n) % 500,
            rng.uniform(-1.0, 1.0, n).round(3),
        ]
    )
    x[:, :4][rng.random((n, 4)) < 0.05] = NAN
    effect = np.nan_to_num(x[:, 0]) + np.sin(x[:, 3]) + np.isnan(x[:, 4]) + np.sin(x[:, 5] * 7) + x[:, 7]
    effect = np.nan_to_num(effect) + (x[:, 6] % 3) - 2.0
    return x, (rng.random(n) < 1.0 / (1.0 + np.exp(-effect))).astype(float)


def trained(kind: Kind, training: tuple[NDArray[np.float64], NDArray[np.float64]]) -> lgb.Booster:
    """A booster of the kind; one thread, fixed seeds."""
    x, y = training
    params = {
        "objective": "binary", "num_leaves": 15, "min_data_in_leaf": 20, "learning_rate": 0.2, "seed": 3,
        "deterministic": True, "num_threads": 1, "verbosity": -1, "metric": "binary_logloss",
    } | kind.params  # fmt: skip
    categories = NATIVE_CATEGORIES if kind.categories else "auto"
    part = slice(0, 4_000 if kind.early_stopping else None)
    data = lgb.Dataset(x[part], y[part], categorical_feature=categories, params=params)
    valid = [lgb.Dataset(x[4_000:], y[4_000:], reference=data)] if kind.early_stopping else []
    stop = [lgb.early_stopping(3, verbose=False)] if kind.early_stopping else []
    return lgb.train(params, data, kind.n_trees, valid_sets=valid, callbacks=stop)


def trap_rows(
    trees: Trees, inputs: tuple[tuple[int, Any], ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """(N_ROWS, N_FEATURES): mostly on a threshold or member, 1 ulp beside it, or something no model expects."""
    special = [
        NAN,
        INF,
        -INF,
        0.0,
        -0.0,
        5e-324,
        -5e-324,
        1e300,
        -1e300,
        2.0**31,
        2.0**31 - 1,
        2.0**32 + 1,
        -1.0,
    ]
    special += [
        s * x for s in (1.0, -1.0) for x in (LIGHTGBM_ZERO, np.nextafter(LIGHTGBM_ZERO, 0.0), 1e-35, 1e-36)
    ]
    special += [-0.5, 0.5, 499.999, 7.25, 12345.0, -3.0]
    pools = [[*special] for _ in range(N_FEATURES)]
    for column, threshold, mode in zip(trees.column, trees.threshold, trees.mode, strict=True):
        if mode == NodeMode.LEQ:
            pools[inputs[column][0]] += [threshold] * 3
    for feature in NATIVE_CATEGORIES:
        pools[feature] += [float(i) for i in range(501)]
    rows = np.empty((N_ROWS, N_FEATURES))
    for feature, pool in enumerate(pools):
        points = rng.choice(np.array(pool), N_ROWS)
        nudge = rng.integers(0, 4, N_ROWS)
        with np.errstate(over="ignore", under="ignore"):
            points = np.where(nudge == 1, np.nextafter(points, INF), points)
            points = np.where(nudge == 2, np.nextafter(points, -INF), points)
        smooth = rng.random(N_ROWS) < 0.2
        rows[:, feature] = np.where(smooth, rng.normal(size=N_ROWS) * 3.0, points)
    return rows


@pytest.mark.parametrize("name", KINDS)
def test_100_000_trap_rows_score_as_in_lightgbm(name: str, training: Any, tmp_path: Any) -> None:
    """onnxruntime on the file: 0 of 100,000 sums differ in any bit; the native scorer: by the order of the sum."""
    kind = KINDS[name]
    booster = trained(kind, training)
    found = trees_of_booster(booster, raw=kind.raw)
    head = head_of_booster(booster, COLUMNS, raw=kind.raw)
    assert found.trees.n_trees == (booster.best_iteration if kind.early_stopping else kind.n_trees)
    assert not kind.early_stopping or booster.best_iteration < kind.n_trees
    assert head.scale == kind.params.get("sigmoid", 1.0)
    assert head.divisor == (kind.n_trees if kind.params.get("boosting") == "rf" else 1.0)
    assert (NodeMode.MEMBER in found.trees.mode) == kind.categories
    path = tmp_path / "m.onnx"
    write_artifact(Blueprint(SPEC, CtrBlueprint(head), None, "USD"), path)
    rows = trap_rows(found.trees, found.inputs, np.random.default_rng(5))
    columns = {f"f{i}": np.ascontiguousarray(rows[:, i]) for i in range(N_FEATURES)}

    # LightGBM averages a forest only after raw_score.
    margins = booster.predict(rows, raw_score=True, num_threads=1) / head.divisor * head.scale
    by_file = run_onnxruntime(path.read_bytes(), columns, ["ctr_margin", "pctr"])
    assert np.count_nonzero(by_file["ctr_margin"] != margins) == 0
    by_scorer = {output: array("d", bytes(8 * N_ROWS)) for output in ("ctr_margin", "pctr")}
    Scorer.load(path).score_many(columns, by_scorer)
    np.testing.assert_allclose(by_scorer["ctr_margin"], margins, rtol=0.0, atol=1e-12)
    if not kind.raw:
        probabilities = booster.predict(rows, num_threads=1)
        for other in (by_file["pctr"], by_scorer["pctr"]):
            np.testing.assert_allclose(other, probabilities, rtol=1e-12)


def test_the_lowest_onnxruntime_walks_the_same_trees(training: Any) -> None:
    """The bit-equality holds on the oldest runtime that may serve the file."""
    cases, margins = [], []
    for name in ("binary", "native categories", "zero_as_missing", "dart", "depth first", "a bin per value"):
        booster = trained(KINDS[name], training)
        found, head = trees_of_booster(booster), head_of_booster(booster, COLUMNS)
        rows = trap_rows(found.trees, found.inputs, np.random.default_rng(6))[:5_000]
        columns = {f"f{i}": rows[:, i] for i in range(N_FEATURES)}
        blueprint = Blueprint(SPEC, CtrBlueprint(head), None, "USD")
        cases.append((model_bytes(blueprint, self_check_of(blueprint, {})), columns, ["ctr_margin"]))
        margins.append(booster.predict(rows, raw_score=True, num_threads=1))
    _, outputs = run_lowest_onnxruntime(cases)
    for found_outputs, wanted in zip(outputs, margins, strict=True):
        assert np.array_equal(found_outputs["ctr_margin"], wanted)


def test_the_trap_rows_reach_most_leaves(training: Any) -> None:
    """Otherwise equality of sums would say little."""
    booster = trained(KINDS["native categories"], training)
    found = trees_of_booster(booster)
    leaves = booster.predict(trap_rows(found.trees, found.inputs, np.random.default_rng(5)), pred_leaf=True)
    reached = sum(len(np.unique(leaves[:, tree])) for tree in range(leaves.shape[1]))
    assert reached > 0.95 * len(found.trees.leaf)


def test_a_model_that_learnt_nothing_is_a_leaf(tmp_path: Any) -> None:
    """Constant labels: every tree is one leaf, and reads no column."""
    x = np.random.default_rng(0).normal(size=(200, N_FEATURES))
    data = lgb.Dataset(x, np.full(200, 0.25), params={"verbosity": -1})
    booster = lgb.train({"objective": "cross_entropy", "verbosity": -1, "num_threads": 1}, data, 3)
    head = head_of_booster(booster, COLUMNS)
    write_artifact(Blueprint(SPEC, CtrBlueprint(head), None, "USD"), tmp_path / "m.onnx")
    out = array("d", bytes(8))
    Scorer.load(tmp_path / "m.onnx").score_many({name: [0.0] for name in SPEC.names}, {"pctr": out})
    assert out[0] == pytest.approx(0.25, rel=1e-12)


def test_the_same_booster_gives_the_same_head(training: Any) -> None:
    """From the object and from its text."""
    booster = trained(KINDS["native categories"], training)
    one, other = trees_of_text(booster.model_to_string()), trees_of_booster(booster)
    assert (one.inputs, one.divisor, one.scale, one.objective) == (
        other.inputs,
        other.divisor,
        other.scale,
        other.objective,
    )
    for array_of in fields(Trees):
        assert same_bits(getattr(one.trees, array_of.name), getattr(other.trees, array_of.name))


# ---- refusals ------------------------------------------------------------------------------------------------


def _booster(training: Any, **params: Any) -> lgb.Booster:
    x, y = training
    y = y + (x[:, 7] > 0.5) if params.get("num_class") else y
    params = {"verbosity": -1, "num_threads": 1, "num_leaves": 4, **params}
    return lgb.train(params, lgb.Dataset(np.nan_to_num(x), y, params=params), 2)


@pytest.mark.parametrize(
    ("params", "raw", "rule"),
    [
        ({"objective": "binary", "linear_tree": True}, False, "leaves are constants"),
        ({"objective": "binary", "linear_tree": True}, True, "leaves are constants"),
        ({"objective": "multiclass", "num_class": 3}, True, "one class and one tree"),
        ({"objective": "multiclassova", "num_class": 3}, False, "one class and one tree"),
        ({"objective": "poisson"}, False, "predicts log-odds"),
        ({"objective": "regression"}, False, "predicts log-odds"),
        ({"objective": "cross_entropy_lambda"}, False, "predicts log-odds"),
        ({"objective": _squared_error}, False, "predicts log-odds"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_a_model_without_an_exact_form_is_refused(
    params: dict[str, Any], raw: bool, rule: str, training: Any
) -> None:
    """`ExportError`, exit code 4, says what to do."""
    booster = _booster(training, **params)
    with pytest.raises(ExportError, match=rule) as refusal:
        head_of_booster(booster, COLUMNS, raw=raw)
    assert refusal.value.exit_code == 4
    assert refusal.value.remedy


@pytest.mark.parametrize("leaf", ["nan", "inf", "-inf"])
def test_a_leaf_that_is_not_finite_is_refused(leaf: str, training: Any) -> None:
    """It would make a bid of NaN."""
    text = _booster(training, objective="binary").model_to_string()
    line = next(line for line in text.split("\n") if line.startswith("leaf_value="))
    values = line.removeprefix("leaf_value=").split(" ")
    with pytest.raises(ExportError, match="leaves are finite"):
        trees_of_text(text.replace(line, "leaf_value=" + " ".join([leaf, *values[1:]])))


def test_other_texts_are_refused(training: Any) -> None:
    """An old version, no trees, no model."""
    text = _booster(training, objective="binary").model_to_string()
    with pytest.raises(ExportError, match="version v3 or v4"):
        trees_of_text(text.replace("version=v4", "version=v2"))
    head, _, rest = text.partition("\nTree=0")
    with pytest.raises(ExportError, match="has trees"):
        trees_of_text(head + "\nend of trees\n" + rest.partition("end of trees")[2])
    for garbage in ("", "tree\nversion=v4\n", "\0" * 100):
        with pytest.raises(ExportError):
            trees_of_text(garbage)


def test_columns_are_those_of_the_booster(training: Any) -> None:
    """One per feature, and none rewritten by the caller."""
    booster = _booster(training, objective="binary")
    for columns in (COLUMNS[:-1], (*COLUMNS, COLUMNS[0]), ()):
        with pytest.raises(ExportError, match="one column per feature"):
            head_of_booster(booster, columns)


class _Liar:
    """A booster whose predictions are not those of its text."""

    def __init__(self, booster: lgb.Booster) -> None:
        self._booster = booster
        self.model_to_string = booster.model_to_string
        self.num_feature = booster.num_feature

    def predict(self, rows: NDArray[np.float64], **options: Any) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = self._booster.predict(rows, **options)
        sums[-1] = np.nextafter(sums[-1], INF)
        return sums


def test_a_difference_of_one_bit_is_found(training: Any) -> None:
    """The exporter trusts no text: it asks the booster."""
    with pytest.raises(CertificateError, match="equal LightGBM's"):
        head_of_booster(_Liar(_booster(training, objective="binary")), COLUMNS)
