"""Laws of the file: one blueprint, one file; it means what the blueprint means; it appears whole or not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from artifacts import (
    COLUMNS,
    COUNTRIES,
    CREATIVES,
    INF,
    NAN,
    SPEC,
    TREES,
    blueprints,
    complete_blueprint,
    trees_of,
    uncertain_blueprint,
)
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from onnx.reference import ReferenceEvaluator

from bidml.blueprint import Blueprint, Calibration, Column, CtrBlueprint, Head, Lookup, Rewrite, WinBlueprint
from bidml.certify import DEFAULT_EVALUATORS, ORACLE, Evaluator, certify
from bidml.contract import MAX_ABS_LEAF, MAX_COLUMNS, MAX_DEPTH, PRICE_INPUTS
from bidml.errors import CertificateError, DataError, ExportError
from bidml.export import model_bytes, rewritten_bytes, write_artifact
from bidml.graph import graph_of
from bidml.metadata import MARGINS, MAX_SELF_CHECK_ROWS, SelfCheck
from bidml.oracle import evaluate
from bidml.score.reader import parse_artifact, read_artifact
from bidml.self_check import self_check_of
from bidml.tree_builder import TreeBuilder


def file_of(blueprint: Blueprint) -> bytes:
    return model_bytes(blueprint, self_check_of(blueprint, {}))


@given(blueprints())
@hypothesis_settings(max_examples=30)
def test_what_is_read_is_what_was_written(blueprint: Blueprint) -> None:
    """read ∘ write is the identity on graphs, and write ∘ read on bytes."""
    data = file_of(blueprint)
    found = parse_artifact(data).blueprint
    assert graph_of(found) == graph_of(blueprint)
    assert (found.spec, found.currency, found.metrics) == (
        blueprint.spec,
        blueprint.currency,
        blueprint.metrics,
    )
    assert rewritten_bytes(data) == data


@given(blueprints())
@hypothesis_settings(max_examples=30)
def test_every_evaluator_agrees_on_any_blueprint(blueprint: Blueprint) -> None:
    """Oracle, onnxruntime and native scorer: equal trees, 1e-12 after."""
    certify(file_of(blueprint), evaluators=DEFAULT_EVALUATORS)


def test_the_complete_blueprint_is_certified() -> None:
    """Every part of the format in one file."""
    certificate = certify(file_of(complete_blueprint()), evaluators=DEFAULT_EVALUATORS)
    assert set(certificate.differences) == {"the oracle", "onnxruntime", "bidml.score"}
    check = self_check_of(complete_blueprint(), {})
    assert 0.3 < np.mean(np.array(check.expected["bid_cpm"]) > 0.0) < 1.0


def test_the_same_blueprint_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    """No hash seed, time or identity leaks into the file."""
    program = (
        "from artifacts import complete_blueprint\nfrom bidml.export import write_artifact\n"
        f"print(write_artifact(complete_blueprint(), {str(tmp_path / 'm.onnx')!r}))"
    )
    tests = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == hashlib.sha256(file_of(complete_blueprint())).hexdigest()


def test_the_file_is_pinned_for_old_runtimes() -> None:
    """Newer versions do not load in current Node releases; custom domains load nowhere."""
    model = onnx.load_from_string(file_of(complete_blueprint()))
    assert model.ir_version == 10
    assert {(opset.domain, opset.version) for opset in model.opset_import} == {("", 21), ("ai.onnx.ml", 5)}
    assert {node.domain for node in model.graph.node} == {"", "ai.onnx.ml"}


def test_inputs_and_outputs_are_those_of_the_contract() -> None:
    """Features in spec order, then the price inputs; all of shape (N, 1)."""
    session = onnxruntime.InferenceSession(file_of(complete_blueprint()), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == [*SPEC.names, *PRICE_INPUTS]
    assert {i.type for i in session.get_inputs()} == {"tensor(double)", "tensor(string)"}
    assert [o.name for o in session.get_outputs()] == [
        "pctr",
        "win_location",
        "win_shape",
        "bid_cpm",
        "win_rate",
    ]
    assert {tuple(value.shape) for value in (*session.get_inputs(), *session.get_outputs())} == {("N", 1)}


def test_a_small_probability_keeps_its_digits() -> None:
    """pctr from 1e-8 to 1e-300 is exact to 1e-15; onnxruntime's own Sigmoid returns 0 below 1e-17."""
    log_odds = [-18.4, -36.8, -200.0, -690.0, 40.0]
    keys = ("a", "b", "c", "d", "e")
    head = Head((), None, terms=(Lookup("country", keys, array("d", log_odds), 0.0),))
    data = file_of(Blueprint(SPEC, CtrBlueprint(head), None, "USD"))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feeds: dict[str, Any] = {
        feature.name: np.full((5, 1), "" if feature.kind == "category" else np.nan, dtype=object)
        if feature.kind == "category"
        else np.zeros((5, 1))
        for feature in SPEC.features
    }
    feeds["country"] = np.array(keys, dtype=object).reshape(-1, 1)
    (pctr,) = session.run(["pctr"], feeds)
    exact = [float(np.exp(np.longdouble(s)) / (1 + np.exp(np.longdouble(s)))) for s in log_odds]
    np.testing.assert_allclose(pctr.ravel(), exact, rtol=1e-15)


def test_the_reference_evaluator_of_onnx_agrees() -> None:
    """The standard's own semantics, on everything but sets with category 0, which it takes for not there."""
    whole = complete_blueprint()
    assert whole.ctr is not None
    without_0 = array("d", [1.0 if member == 0.0 else member for member in TREES.membership])
    assert without_0 != TREES.membership
    head = dataclasses.replace(whole.ctr.head, trees=dataclasses.replace(TREES, membership=without_0))
    blueprint = dataclasses.replace(whole, ctr=CtrBlueprint(head, whole.ctr.calibration))
    check = self_check_of(blueprint, {})
    evaluator = ReferenceEvaluator(onnx.load_from_string(model_bytes(blueprint, check)))
    feeds = {
        name: np.array(column, dtype=np.str_ if isinstance(column, tuple) else np.float64).reshape(-1, 1)
        for name, column in check.columns.items()
    }
    with np.errstate(all="ignore"):
        outputs = dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))
    for name, values in outputs.items():
        np.testing.assert_allclose(
            values.ravel(), check.expected[name], rtol=1e-12, atol=1e-290, err_msg=name
        )


def test_a_file_without_win_curve_has_no_price() -> None:
    """Only the outputs of the part that is there, and no price inputs."""
    ctr_only = dataclasses.replace(complete_blueprint(), win=None)
    win_only = dataclasses.replace(complete_blueprint(), ctr=None)
    for blueprint, outputs in ((ctr_only, ["pctr"]), (win_only, ["win_location", "win_shape"])):
        graph = graph_of(blueprint)
        assert [value.name for value in graph.outputs] == outputs
        assert [value.name for value in graph.inputs] == list(SPEC.names)
        certify(file_of(blueprint), evaluators=DEFAULT_EVALUATORS)


def test_neutral_steps_are_left_out() -> None:
    """No Div by 1, no Mul by 1, no Add of 0, no identity calibration."""
    head = Head((Column("hour"),), trees_of((0, 1.0, False, 0.5, 1.0)))
    nodes = {node.name for node in graph_of(Blueprint(SPEC, CtrBlueprint(head), None, "USD")).nodes}
    assert not nodes & {"ctr.mean", "ctr.scaled", "ctr.shifted", "calibration.log_odds"}


@pytest.mark.parametrize("step", [3e-8, 1e-12, -1e-9])
@pytest.mark.parametrize(
    "name", ["gamma", "slope_scale", "positive", "negative", "scale", "divisor", "intercept"]
)
def test_a_parameter_that_single_precision_takes_for_neutral_is_kept(name: str, step: float) -> None:
    """onnxruntime's NoopElimination would drop it: 3e-8 of the bid, and no certificate."""
    whole = complete_blueprint()
    assert whole.ctr is not None
    assert whole.win is not None
    ctr, win, head = whole.ctr, whole.win, whole.ctr.head
    near_1, near_0 = 1.0 + step, step * 1e-40
    if name in ("gamma", "slope_scale"):
        win = dataclasses.replace(win, **{name: near_1})
    elif name in ("positive", "negative"):
        ctr = CtrBlueprint(head, dataclasses.replace(Calibration(near_1, near_1), **{name: 1.0 + 2 * step}))
    elif name == "intercept":  # alone in its head: what is dropped is all there is
        ctr = CtrBlueprint(Head(COLUMNS[:1], trees_of(0.0), intercept=near_0))
    else:
        ctr = CtrBlueprint(dataclasses.replace(head, **{name: abs(step) + 1.0}), ctr.calibration)
    blueprint = dataclasses.replace(whole, ctr=ctr, win=win)
    data = file_of(blueprint)
    certify(data, evaluators=DEFAULT_EVALUATORS)
    assert graph_of(parse_artifact(data).blueprint) == graph_of(blueprint)


def test_equal_lookups_are_stored_once() -> None:
    """However many columns and heads read them."""
    copy = Lookup("country", (*COUNTRIES.keys,), COUNTRIES.values[:], NAN)
    head = Head((Column("country", COUNTRIES), Column("country", copy, Rewrite.TRUNCATE)), trees_of(1.0))
    graph = graph_of(Blueprint(SPEC, CtrBlueprint(head), None, "USD"))
    assert [node.op for node in graph.nodes].count("LabelEncoder") == 1


# ---- writing -------------------------------------------------------------------------------------------------


def test_an_artifact_lies_beside_its_manifest(tmp_path: Path) -> None:
    """The manifest has digest, size and contract version; the reader checks them."""
    path = tmp_path / "champion.onnx"
    digest = write_artifact(complete_blueprint(), path)
    manifest = json.loads((tmp_path / "champion.onnx.json").read_text())
    assert manifest == {"bytes": path.stat().st_size, "contract": 1, "sha256": digest}
    assert read_artifact(path).sha256 == digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["champion.onnx", "champion.onnx.json"]


def test_sample_rows_are_replayed(tmp_path: Path) -> None:
    """The caller's rows become self-check rows, at most 96 of them, beside the made ones."""
    hours = np.linspace(0.0, 23.75, 500)
    write_artifact(
        complete_blueprint(), tmp_path / "m.onnx", sample_rows={"hour": hours, "country": ["DEU"] * 500}
    )
    check = read_artifact(tmp_path / "m.onnx").self_check
    assert check.n_rows == MAX_SELF_CHECK_ROWS
    assert set(check.columns["hour"][-96:]) <= set(hours.tolist())
    assert check.columns["country"][-96:] == ("DEU",) * 96
    assert len(set(check.columns["creative"][-96:])) > 1  # what the caller does not give is made up


def test_sample_rows_are_the_models_inputs() -> None:
    """A misspelt column is an error, not a row without it."""
    with pytest.raises(DataError, match="contry"):
        self_check_of(complete_blueprint(), {"contry": ["DEU"]})
    with pytest.raises(DataError, match="one length"):
        self_check_of(complete_blueprint(), {"country": ["DEU"], "hour": [1.0, 2.0]})


def _wrong(data: bytes, check: SelfCheck) -> dict[str, array[float]]:
    found = dict(evaluate(parse_artifact(data).blueprint, check.columns))
    found["pctr"] = array("d", [p * (1.0 + 3e-12) for p in found["pctr"]])
    return found


def test_what_is_not_certified_is_not_written(tmp_path: Path) -> None:
    """The old artifact stays, whole; nothing else appears."""
    path = tmp_path / "m.onnx"
    write_artifact(complete_blueprint(), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    other = dataclasses.replace(complete_blueprint(), currency="USD")
    with pytest.raises(CertificateError, match="pctr"):
        write_artifact(other, path, evaluators=[Evaluator("wrong", _wrong, tree_order=True)])
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("dies_at", [1, 2])
def test_a_crash_leaves_an_artifact_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: int
) -> None:
    """Killed before either rename, the folder holds the old or the new artifact, no part of one."""
    path = tmp_path / "m.onnx"
    old = write_artifact(complete_blueprint(), path)
    renames = 0
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == dies_at:
            raise OSError("power failure")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="power failure"):
        write_artifact(dataclasses.replace(complete_blueprint(), currency="USD"), path)
    assert (read_artifact(path).sha256 == old) == (dies_at == 1)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


# ---- refusals ------------------------------------------------------------------------------------------------


def _deep_chain(n: int) -> Any:
    tree: Any = 0.0
    for _ in range(n):
        tree = (0, 1.0, False, tree, 1.0)
    return tree


def _broken_trees(**changes: Any) -> Head:
    arrays = {field.name: getattr(TREES, field.name)[:] for field in dataclasses.fields(TREES)}
    for name, (index, value) in changes.items():
        arrays[name][index] = value
    return Head(COLUMNS, type(TREES)(**arrays))


def _leaf_numbered_as_the_node_beside_it() -> Head:
    """The second tree's root: node 2 on one side, leaf 2 on the other; leaves 2 and 4 change places."""
    trees = trees_of((0, 0.0, False, 1.0, 2.0), (0, 0.0, False, 3.0, (0, 1.0, False, 4.0, 5.0)))
    trees.true_child[1], trees.true_child[2] = 2, 4
    return Head(COLUMNS, trees)


def _one_lookup(**changes: Any) -> Head:
    return Head((Column("country", dataclasses.replace(COUNTRIES, **changes)),), trees_of(1.0))


BROKEN_HEADS = {
    "an unknown feature": (Head((Column("nobody"),), trees_of(1.0)), "a number of the spec"),
    "a category without lookup": (Head((Column("country"),), trees_of(1.0)), "a number of the spec"),
    "a number with lookup": (
        Head((Column("hour", dataclasses.replace(COUNTRIES, feature="hour")),), trees_of(1.0)),
        "category of the spec",
    ),
    "column and lookup disagree": (Head((Column("creative", COUNTRIES),), trees_of(1.0)), "agree"),
    "unsorted keys": (_one_lookup(keys=("b", "a"), values=array("d", [1.0, 2.0])), "sorted"),
    "repeated keys": (_one_lookup(keys=("a", "a"), values=array("d", [1.0, 2.0])), "distinct"),
    "no keys": (_one_lookup(keys=(), values=array("d")), "a key"),
    "a value too few": (_one_lookup(values=array("d", [1.0])), "one value per key"),
    "an infinite value": (_one_lookup(values=array("d", [1.0, 2.0, 3.0, INF])), "finite or NaN"),
    "an infinite default": (_one_lookup(default=-INF), "finite or NaN"),
    "a key the bidder never matches": (
        _one_lookup(keys=("a", "\ufffd"), values=array("d", [1.0, 2.0])),
        "the bidder can match",
    ),
    "a key nobody can send": (
        _one_lookup(keys=("x" * 1025,), values=array("d", [1.0])),
        "at most 1024 bytes",
    ),
    "a missing weight": (Head((), None, (dataclasses.replace(CREATIVES, default=NAN),)), "term"),
    "too many columns": (Head((Column("hour"),) * (MAX_COLUMNS + 1), trees_of(1.0)), "columns"),
    "trees without columns": (Head((), trees_of(1.0)), "one of its 0 columns"),
    "columns without trees": (Head(COLUMNS, None), "has no columns"),
    "no trees": (Head(COLUMNS, TreeBuilder().trees), "trees"),
    "a NaN leaf": (Head(COLUMNS, trees_of(NAN)), "leaf"),
    "a huge leaf": (Head(COLUMNS, trees_of(2 * MAX_ABS_LEAF)), "leaf"),
    "a NaN threshold": (Head(COLUMNS, trees_of((0, NAN, False, 1.0, 2.0))), "thresholds"),
    "a threshold of -inf": (Head(COLUMNS, trees_of((0, -INF, False, 1.0, 2.0))), "thresholds"),
    "an empty set": (Head(COLUMNS, trees_of((3, frozenset(), False, 1.0, 2.0))), "has a member"),
    "a fractional member": (Head(COLUMNS, trees_of((3, frozenset({0.5}), False, 1.0, 2.0))), "integers"),
    "a negative member": (Head(COLUMNS, trees_of((3, frozenset({-1.0}), False, 1.0, 2.0))), "integers"),
    "a set on a column that is not cut": (
        Head(COLUMNS, trees_of((0, frozenset({1.0}), False, 1.0, 2.0))),
        "truncated",
    ),
    "too deep": (Head(COLUMNS, trees_of(_deep_chain(MAX_DEPTH + 1))), "deep"),
    "a column out of range": (_broken_trees(column=(0, 5)), "columns"),
    "an unknown mode": (_broken_trees(mode=(0, 3)), "LEQ or MEMBER"),
    "a flag of 2": (_broken_trees(missing_true=(0, 2)), "0 or 1"),
    "a child before its parent": (_broken_trees(true_child=(0, 0)), "after its parent"),
    "a child that is not there": (_broken_trees(false_child=(0, 99)), "after its parent"),
    "a node in two trees": (_broken_trees(roots=(1, 1)), "one tree"),
    "a root that is not there": (_broken_trees(roots=(0, -1)), "root"),
    "a leaf that is not there": (_broken_trees(true_child=(1, 77)), "leaf"),
    "a leaf used twice": (_broken_trees(false_child=(1, 0)), "leaf"),
    "a constant of one leaf": (
        Head(
            COLUMNS, dataclasses.replace(trees_of(1.0), false_child=array("q", [0]), leaf=array("d", [1.0]))
        ),
        "used once",
    ),
    "a leaf with the number of the node beside it": (
        _leaf_numbered_as_the_node_beside_it(),
        "different numbers",
    ),
    "an infinite intercept": (Head((), None, intercept=INF), "intercept"),
    "a scale of NaN": (Head(COLUMNS, TREES, scale=NAN), "scale"),
    "a divisor of 0": (Head(COLUMNS, TREES, divisor=0.0), "divisor"),
}


@pytest.mark.parametrize("name", BROKEN_HEADS)
def test_a_head_outside_the_bounds_is_refused(name: str, tmp_path: Path) -> None:
    """An `ExportError` that names the rule, and no file."""
    head, rule = BROKEN_HEADS[name]
    with pytest.raises(ExportError, match=rule):
        write_artifact(Blueprint(SPEC, CtrBlueprint(head), None, "USD"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"ctr": None, "win": None}, "CTR model or a win curve"),
        ({"currency": "euro"}, "currency"),
        ({"default_auction_type": 3}, "auction type"),
        ({"provenance": {"loss": NAN}}, "provenance is JSON"),
        ({"provenance": {1: "one"}}, "survives JSON"),
        ({"metrics": {"text": "\ud800"}}, "metrics is JSON"),
        ({"metrics": {"array": np.zeros(2)}}, "metrics is JSON"),
        ({"ctr": CtrBlueprint(Head((), None), Calibration(-1.0, 1.0, 0.0))}, "calibration.positive"),
        ({"win": WinBlueprint(Head((), None), Head((), None), NAN)}, "reference_log_bid_cpm"),
        ({"win": WinBlueprint(Head((), None), Head((), None), 0.0, slope_scale=0.0)}, "slope_scale"),
        ({"win": WinBlueprint(Head((), None), Head((), None), 0.0, gamma=1e9)}, "gamma"),
        ({"win": WinBlueprint(Head((), None), Head((), None), 0.0, logit_shift=INF)}, "logit_shift"),
    ],
)
def test_a_blueprint_outside_the_bounds_is_refused(
    changes: dict[str, Any], rule: str, tmp_path: Path
) -> None:
    """An `ExportError` that names the rule, before any formula meets the value, and no file."""
    with pytest.raises(ExportError, match=rule):
        write_artifact(dataclasses.replace(complete_blueprint(), **changes), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_largest_members_and_depths_work() -> None:
    """The bounds themselves are inside."""
    sets = trees_of((0, frozenset({0.0, 63.0, 64.0, 2.0**31 - 1}), True, 1.0, -1.0), _deep_chain(MAX_DEPTH))
    head = Head((Column("hour", rewrite=Rewrite.TRUNCATE),), sets)
    certify(file_of(Blueprint(SPEC, CtrBlueprint(head), None, "USD")), evaluators=DEFAULT_EVALUATORS)


def test_margins_are_named_for_the_self_check() -> None:
    """The runtime's names for the heads' margins."""
    expected = self_check_of(uncertain_blueprint(), {}).expected
    assert set(MARGINS) <= set(expected)
    assert ORACLE.tree_order
