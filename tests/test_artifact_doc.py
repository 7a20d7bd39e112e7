"""docs/artifact.md is the contract: its tables are the code's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bidml import contract
from bidml.metadata import MAX_SELF_CHECK_ROWS

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / "docs" / "artifact.md").read_text()


def rows(pattern: str) -> list[tuple[str, ...]]:
    return [match.groups() for match in re.finditer(pattern, DOCUMENT, re.MULTILINE)]


def test_inputs_and_outputs_are_the_contract_s() -> None:
    """Names and order."""
    named = rows(r"^\| `(\w+)` \| (input|output) \|")
    assert tuple(name for name, kind in named if kind == "input") == contract.PRICE_INPUTS
    outputs = contract.CTR_OUTPUTS + contract.WIN_OUTPUTS + contract.PRICE_OUTPUTS
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
