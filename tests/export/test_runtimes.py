"""The same file on other runtimes: lowest and newest onnxruntime, every optimisation level, batches, subsets."""

from __future__ import annotations

import dataclasses
import math
import random
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
from artifacts import (
    COLUMNS,
    SPEC,
    blueprints,
    complete_blueprint,
    crossed_blueprint,
    isotonic_blueprint,
    log_normal_blueprint,
    trees_of,
)
from hypothesis import Phase, given, settings
from runtimes import Outputs, feeds_of, run_lowest_onnxruntime, run_onnxruntime

from bidml.blueprint import Blueprint, Calibration, CtrBlueprint, Head
from bidml.contract import PRICE_INPUTS, FeatureKind
from bidml.export import model_bytes
from bidml.metadata import MARGINS, TOLERANCE, SelfCheck, difference, expected_names, input_kinds
from bidml.self_check import self_check_of

LOWEST = "1.23.0"


def random_columns(blueprint: Blueprint, n_rows: int, seed: int) -> dict[str, Any]:
    """Raw columns for `n_rows`, a quarter of the cells missing, prices mostly worth a bid."""
    rng = np.random.default_rng(seed)
    texts = np.array(["", "DEU", "USA", "Ελλάδα", "320x50", "no such category"], dtype=object)
    columns: dict[str, Any] = {}
    for feature in blueprint.spec.features:
        if feature.kind is FeatureKind.CATEGORY:
            columns[feature.name] = rng.choice(texts, n_rows)
        else:
            cells = rng.choice([0.0, 7.0, 11.5, 3.0, 23.0, -3.0, 0.5, 1e-36], n_rows) + rng.normal(
                size=n_rows
            ).round(1)
            columns[feature.name] = np.where(rng.random(n_rows) < 0.25, np.nan, cells)
    money = {
        "value_per_click": rng.lognormal(1.0, 2.0, n_rows),
        "floor_cpm": rng.choice([0.0, 0.05, 0.5, 2.0, np.nan, -1.0], n_rows),
        "cap_cpm": rng.choice([0.4, 8.0, 100.0, np.inf], n_rows),
        "pacing_multiplier": rng.choice([1.0, 0.7, 1e-6, 0.0], n_rows),
        "auction_type": rng.choice([1.0, 1.0, 2.0, 3.0], n_rows),
    }
    return columns | {name: money[name] for name in PRICE_INPUTS}


def file_and_check(blueprint: Blueprint) -> tuple[bytes, SelfCheck]:
    inputs = input_kinds(blueprint)
    sample = {
        name: column for name, column in random_columns(blueprint, 96, seed=1).items() if name in inputs
    }
    check = self_check_of(blueprint, sample)
    return model_bytes(blueprint, check), check


def assert_same(found: Outputs, wanted: Any, *, exact: tuple[str, ...] = MARGINS) -> None:
    """Within the certificate's tolerance; `exact` to the last bit."""
    for name, values in found.items():
        for row, (want, have) in enumerate(zip(wanted[name], values, strict=True)):
            limit = 0.0 if name in exact else TOLERANCE
            assert difference(name, float(want), float(have)) <= limit, (name, row, want, have)


def near_neutral() -> Blueprint:
    """Parameters that single precision takes for 1."""
    whole = complete_blueprint()
    assert whole.win is not None
    win = dataclasses.replace(whole.win, gamma=1.0 + 1e-9, slope_scale=1.0 - 1e-9)
    return dataclasses.replace(whole, win=win)


def many_shapes() -> Blueprint:
    """Forty small trees of every shape and order: leaves beside branches, constants between, large sets."""
    rng = random.Random(3)

    def tree(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.3:
            return rng.gauss(0.0, 1.0)
        column = rng.randrange(len(COLUMNS))
        test: Any = rng.choice([0.0, -3.0, 7.0, 0.5, 11.5, math.inf, rng.gauss(0.0, 5.0)])
        if column >= 3 and rng.random() < 0.6:
            test = frozenset(map(float, rng.sample([*range(80), 2**31 - 1], rng.randrange(1, 40))))
        return (column, test, rng.random() < 0.5, tree(depth - 1), tree(depth - 1))

    head = Head(COLUMNS, trees_of(*(tree(rng.randrange(6)) for _ in range(40))))
    return dataclasses.replace(complete_blueprint(), ctr=CtrBlueprint(head, Calibration(0.5, 0.5, -2.0)))


def any_blueprints(n: int) -> list[Blueprint]:
    """`n` of the random blueprints that the laws are tested on, always the same."""
    found: list[Blueprint] = []

    @settings(max_examples=n, phases=[Phase.generate], derandomize=True, database=None)
    @given(blueprints())
    def collect(blueprint: Blueprint) -> None:
        found.append(blueprint)

    collect()
    return found


def test_the_lowest_and_the_newest_onnxruntime_agree() -> None:
    """What docs/artifact.md promises: 1.23.0 and the installed one on the same files, margins to the last bit."""
    models = [
        complete_blueprint(),
        log_normal_blueprint(),
        isotonic_blueprint(),
        crossed_blueprint(),
        near_neutral(),
        many_shapes(),
        *any_blueprints(40),
    ]
    cases, checks = [], []
    for blueprint in models:
        data, check = file_and_check(blueprint)
        cases.append((data, check.columns, expected_names(blueprint)))
        checks.append(check)
    version, lowest = run_lowest_onnxruntime(cases)
    assert version == LOWEST
    assert onnxruntime.__version__ != LOWEST
    for case, check, found in zip(cases, checks, lowest, strict=True):
        assert_same(found, check.expected)
        newest = run_onnxruntime(*case)
        assert_same(newest, check.expected)
        assert_same(newest, found)


@pytest.mark.parametrize(
    "level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"]
)
@pytest.mark.parametrize(
    "make", [complete_blueprint, log_normal_blueprint, isotonic_blueprint, crossed_blueprint]
)
def test_no_optimisation_changes_the_result(make: Callable[[], Blueprint], level: str) -> None:
    """Fusions and foldings keep the doubles."""
    blueprint = make()
    data, check = file_and_check(blueprint)
    found = run_onnxruntime(
        data,
        check.columns,
        expected_names(blueprint),
        level=getattr(onnxruntime.GraphOptimizationLevel, level),
    )
    assert_same(found, check.expected)


@pytest.mark.parametrize("make", [complete_blueprint, log_normal_blueprint])
def test_a_batch_is_its_rows(make: Callable[[], Blueprint]) -> None:
    """N is free: none, one, many; a row does not depend on its neighbours."""
    blueprint = make()
    data, _ = file_and_check(blueprint)
    columns = random_columns(blueprint, 2_000, seed=2)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])  # threads as by default
    names = [output.name for output in session.get_outputs()]
    feeds = feeds_of(columns)
    many = dict(zip(names, session.run(names, feeds), strict=True))
    assert 0.2 < np.mean(many["bid_cpm"] > 0.0) < 0.9
    assert all(np.isfinite(values).all() for values in many.values())
    none = session.run(names, {name: cells[:0] for name, cells in feeds.items()})
    assert {value.shape for value in none} == {(0, 1)}
    for row in range(0, 2_000, 97):
        one = session.run(names, {name: cells[row : row + 1] for name, cells in feeds.items()})
        assert_same(
            {name: value.ravel() for name, value in zip(names, one, strict=True)},
            {name: value[row] for name, value in many.items()},
            exact=(),
        )


def test_a_caller_may_ask_for_pctr_alone() -> None:
    """And then gives the features only: what is not needed is not computed."""
    blueprint = complete_blueprint()
    data, check = file_and_check(blueprint)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    features = feeds_of({name: check.columns[name] for name in SPEC.names})
    unused = {name: np.full((check.n_rows, 1), np.nan) for name in PRICE_INPUTS}
    (pctr,) = session.run(["pctr"], features | unused)
    assert_same({"pctr": pctr.ravel()}, check.expected)


@pytest.mark.parametrize("make", [complete_blueprint, log_normal_blueprint])
def test_extreme_margins_keep_every_output_defined(make: Callable[[], Blueprint]) -> None:
    """pctr from 1e-300 to 1, heads beyond their clamps: finite, in order, the same in both runtimes."""
    whole = make()
    assert whole.win is not None
    steps = [-700.0, -50.0, -18.0, 0.0, 18.0, 50.0, 700.0]
    tree: Any = steps[-1]
    for threshold in range(len(steps) - 2, -1, -1):
        tree = (0, float(threshold), False, steps[threshold], tree)
    head = Head(COLUMNS[:1], trees_of(tree))
    blueprint = dataclasses.replace(
        whole, ctr=CtrBlueprint(head), win=dataclasses.replace(whole.win, location=head, log_slope=head)
    )
    hours = {
        "hour": array("d", [float(i) for i in range(len(steps))]),
        "auction_type": array("d", [1.0] * len(steps)),
    }
    check = self_check_of(blueprint, hours)
    data = model_bytes(blueprint, check)
    found = run_onnxruntime(data, check.columns, expected_names(blueprint))
    assert_same(found, check.expected)
    assert all(np.isfinite(values).all() for values in found.values())
    assert np.all(found["bid_cpm"] >= 0.0)
    assert np.all(found["bid_cpm"] <= np.asarray(check.columns["cap_cpm"]))
    assert found["pctr"].min() < 1e-290
    assert found["pctr"].max() == 1.0
