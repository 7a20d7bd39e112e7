"""One file on other runtimes: the installed onnxruntime, and the lowest supported one in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from bidml.metadata import MARGINS

Columns = Mapping[str, Any]
Outputs = dict[str, NDArray[np.float64]]


def with_margins(data: bytes) -> bytes:
    """A copy of the file that has the heads' margins as outputs too, named as in the self-check."""
    model = onnx.load_from_string(data)
    for node in model.graph.node:
        if node.name.endswith(".margin"):
            name = node.name.replace(".", "_")
            model.graph.node.append(onnx.helper.make_node("Identity", [node.name], [name], name=name))
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["N", 1])
            )
    found: bytes = model.SerializeToString()
    return found


def feeds_of(columns: Columns) -> dict[str, NDArray[Any]]:
    """Raw columns as onnxruntime takes them: (n_rows, 1), text as objects, numbers as doubles."""
    return {
        name: np.asarray(column, dtype=object if _is_text(column) else np.float64).reshape(-1, 1)
        for name, column in columns.items()
    }


def _is_text(column: Sequence[Any]) -> bool:
    return len(column) > 0 and isinstance(column[0], str)


def run_onnxruntime(data: bytes, columns: Columns, names: Sequence[str], *, level: Any = None) -> Outputs:
    """Outputs (n_rows,) by name; margins may be among them. One thread: trees are added in order."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if level is not None:
        options.graph_optimization_level = level
    model = with_margins(data) if set(names) & set(MARGINS) else data
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    values = session.run(list(names), feeds_of(columns))
    return {name: value.ravel() for name, value in zip(names, values, strict=True)}


def lowest_python() -> str:
    """The interpreter with the lowest supported onnxruntime; `make test` builds its environment."""
    python = os.environ.get("BIDML_ORT_MIN_PYTHON", "")
    if python and Path(python).exists():
        return python
    if os.environ.get("CI") == "true":
        pytest.fail(f"BIDML_ORT_MIN_PYTHON names no interpreter in CI: {python!r}")
    pytest.skip("BIDML_ORT_MIN_PYTHON is not set: run make test")


_PROGRAM = """
import json, sys, numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
for i in range(int(sys.argv[2])):
    names, feeds = [], {}
    for name, column in np.load(f"{sys.argv[1]}/{i}.in.npz").items():
        if name == "output names":
            names = column.tolist()
        else:
            text = column.dtype.kind == "U"
            feeds[name] = np.array(json.loads(str(column)), object).reshape(-1, 1) if text else column
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/{i}.onnx", options, providers=["CPUExecutionProvider"])
    np.savez(f"{sys.argv[1]}/{i}.out.npz", **dict(zip(names, session.run(names, feeds))))
print(onnxruntime.__version__)
"""


def run_lowest_onnxruntime(
    cases: Sequence[tuple[bytes, Columns, Sequence[str]]],
) -> tuple[str, list[Outputs]]:
    """The version, and for each (file, columns, output names) what `run_onnxruntime` gives; in one other process."""
    python = lowest_python()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        for i, (data, columns, names) in enumerate(cases):
            feeds = {  # NumPy's own texts lose a NUL at their end
                name: np.array(json.dumps(cells.ravel().tolist())) if cells.dtype == object else cells
                for name, cells in feeds_of(columns).items()
            }
            (folder / f"{i}.onnx").write_bytes(with_margins(data))
            np.savez(folder / f"{i}.in.npz", **feeds, **{"output names": np.array(names)})
        version = _output_of([python, "-I", "-c", _PROGRAM, text, str(len(cases))], dict(os.environ))
        found = [np.load(folder / f"{i}.out.npz") for i in range(len(cases))]
        return version, [{name: case[name].ravel() for name in case.files} for case in found]


def run_python(program: str, *arguments: str, **environment: str) -> str:
    """What a fresh interpreter prints; its standard error is in the failure."""
    return _output_of([sys.executable, "-c", program, *arguments], {**os.environ, **environment})


def _output_of(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
