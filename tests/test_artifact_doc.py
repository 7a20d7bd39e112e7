"""docs/artifact.md is the contract: its tables are the code's."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import conversions_blueprint, crossed_blueprint, isotonic_blueprint, log_normal_blueprint

from bidml import contract
from bidml.blueprint import Blueprint, Calibration
from bidml.bounds import check_blueprint
from bidml.errors import ExportError
from bidml.graph import graph_of
from bidml.metadata import MAX_SELF_CHECK_ROWS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "artifact.md").read_text()


def rows(pattern: str) -> list[tuple[str, ...]]:
    return [match.groups() for match in re.finditer(pattern, DOCUMENT, re.MULTILINE)]


def test_inputs_and_outputs_are_the_contract_s() -> None:
    """Names and order."""
    named = rows(r"^\| `(\w+)` \| (input|output) \|")
    inputs = contract.PRICE_INPUTS + contract.GOAL_INPUTS + contract.RISK_INPUTS
    assert tuple(name for name, kind in named if kind == "input") == inputs
    outputs = (
        contract.CTR_OUTPUTS
        + contract.SD_OUTPUTS
        + contract.CVR_OUTPUTS
        + contract.WIN_OUTPUTS
        + contract.PRICE_OUTPUTS
    )
    assert tuple(name for name, kind in named if kind == "output") == outputs


def test_metadata_keys_are_the_contract_s() -> None:
    """Names and order; the versions in the text."""
    assert tuple(name for (name,) in rows(r"^\| `(bidml\.\w+)` \|")) == contract.METADATA_KEYS
    assert f"the version of this contract: {contract.CONTRACT_VERSION}" in DOCUMENT
    assert f"at most {MAX_SELF_CHECK_ROWS} rows" in DOCUMENT
    versions = f"`ir_version` {contract.IR_VERSION}, opset {contract.OPSET}, `ai.onnx.ml` {contract.ML_OPSET}"
    assert versions in DOCUMENT


def test_limits_are_the_contract_s() -> None:
    """Every MAX_ of files and models, with its value."""
    limits = {name: float(value) for name, value in rows(r"^\| `(MAX_\w+)` \| (\d+) \|")}
    expected = {
        name: float(value)
        for name, value in vars(contract).items()
        if name.startswith("MAX_") and name not in ("MAX_ABS_WIN_LOGIT", "MAX_LOG_SLOPE")
    }
    assert {name: value for name, value in expected.items() if name in limits} == limits
    assert {"MAX_FILE_BYTES", "MAX_TREES", "MAX_NODES", "MAX_KEYS", "MAX_DEPTH", "MAX_ABS_LEAF"} <= set(
        limits
    )


def test_operators_are_those_of_a_complete_file() -> None:
    """Every part of the format, and no operator more."""
    whole = conversions_blueprint()
    assert whole.ctr is not None
    platt = replace(whole, ctr=replace(whole.ctr, calibration=Calibration(2.0, 2.0, 1.0)))
    parts = (whole, platt, log_normal_blueprint(), isotonic_blueprint(), crossed_blueprint())
    nodes = [node for blueprint in parts for node in graph_of(blueprint).nodes]
    for domain, name in (("", "ai.onnx"), ("ai.onnx.ml", "ai.onnx.ml")):
        ((listed,),) = rows(rf"^\| `{re.escape(name)}` \| (.*) \|$")
        operators = sorted({node.op for node in nodes if node.domain == domain})
        assert listed.replace("`", "").split() == operators


def _with_parameter(name: str, value: float) -> Blueprint:
    whole = conversions_blueprint()
    assert whole.ctr is not None
    assert whole.cvr is not None
    assert whole.win is not None
    part, _, field = name.rpartition(".")
    if part == "calibration":
        return replace(
            whole, ctr=replace(whole.ctr, calibration=replace(whole.ctr.calibration, **{field: value}))
        )
    if part == "cvr_calibration":
        return replace(
            whole, cvr=replace(whole.cvr, calibration=replace(whole.cvr.calibration, **{field: value}))
        )
    if part == "win":
        return replace(whole, win=replace(whole.win, **{field: value}))
    return replace(whole, ctr=replace(whole.ctr, head=replace(whole.ctr.head, **{field: value})))


@pytest.mark.parametrize(
    ("name", "low", "high"), rows(r"^\| `([a-z_.]+)`(?: of a head)? \| (\S+) \| (\S+) \|$")
)
def test_parameters_have_the_bounds_of_the_document(name: str, low: str, high: str) -> None:
    """The edges are inside; the next double is not."""
    for edge, beyond in ((float(low), -math.inf), (float(high), math.inf)):
        check_blueprint(_with_parameter(name, edge), error=ExportError)
        for outside in (math.nextafter(edge, beyond), math.nan):
            with pytest.raises(ExportError, match=name):
                check_blueprint(_with_parameter(name, outside), error=ExportError)


def test_reasons_are_the_contract_s() -> None:
    """Value, name and OpenRTB code of each; the order of the table is tested on requests (test_decision.py)."""
    listed = {int(value): (name, int(nbr)) for value, name, nbr in rows(r"^\| (\d+) \| `(\w+)` \| (\d) \|")}
    assert listed == {reason.value: (reason.name.lower(), reason.nbr) for reason in contract.NoBidReason}


def test_the_onnxruntime_example_runs(
    simulated_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands in the document, on a trained artifact."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "champion.onnx").write_bytes(simulated_run.artifact.read_bytes())
    (example,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(example, "docs/artifact.md", "exec"), namespace)
    assert 0.0 < namespace["pctr"].item() < 1.0
