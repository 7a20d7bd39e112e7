"""Each rule of the reader, broken alone: the refusal names it. What `make robust` tries by the hundred, in few."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from typing import Any

import onnx
import pytest
from test_hostile_files import SMALL, _attribute, _ints, _node, edited

from bidml.errors import ArtifactError
from bidml.score import wire
from bidml.score.publication import Release
from bidml.score.reader import parse_artifact


def _tensor_of_two(tensor: onnx.TensorProto) -> None:
    del tensor.dims[:]
    tensor.dims.append(2)
    tensor.raw_data = array("d", [0.5, 0.5]).tobytes()


def _gamma(model: onnx.ModelProto) -> None:
    _tensor_of_two(next(t for t in model.graph.initializer if t.name.startswith("win.gamma")))


def _renamed_columns(model: onnx.ModelProto) -> None:
    node = _node(model, "ctr.columns")
    node.name = node.output[0] = "x"


def _default(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    _tensor_of_two(_attribute(node, "default_tensor").t)


def _no_list(model: onnx.ModelProto) -> None:
    attribute = _attribute(_node(model, "ctr.trees"), "nodes_featureids")
    attribute.ClearField("ints")
    attribute.type = onnx.AttributeProto.INT
    attribute.i = 1


def _rows_less(model: onnx.ModelProto) -> None:
    row = next(row for row in model.metadata_props if row.key == "bidml.self_check")
    document = json.loads(row.value)
    document["expected"] = {name: cells[1:] for name, cells in document["expected"].items()}
    row.value = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _two_kinds_of_data(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
    _attribute(node, "keys_tensor").t.raw_data = b"x"


RULES: dict[str, tuple[Callable[[onnx.ModelProto], Any], str]] = {
    "columns": (_renamed_columns, "ctr.trees read ctr.columns"),
    "a dimension": (lambda m: m.graph.input[0].type.tensor_type.shape.dim[0].Clear(), "has one value"),
    "a number": (_gamma, "is one double"),
    "a term": (lambda m: _node(m, "ctr.term.0").input.append("pctr"), "adds two values"),
    "a default": (_default, "has one default"),
    "a list": (_no_list, "is a list of integers"),
    "rows": (_rows_less, "of one length|of equal length"),
    "a second number": (lambda m: _ints(m, "nodes_featureids").__setitem__(1, -1), "small non-negative"),
    "kinds of data": (_two_kinds_of_data, "holds its data once"),
}


@pytest.mark.parametrize("name", RULES)
def test_a_refusal_names_the_rule(name: str) -> None:
    """Not another one that happens to refuse the same file."""
    change, rule = RULES[name]
    with pytest.raises(ArtifactError, match=rule):
        parse_artifact(edited(change))


def test_a_number_in_a_longer_form_is_refused() -> None:
    """80 01 is 128; 81 00 is 1, which has a form of one byte."""
    data = edited(lambda m: _ints(m, "nodes_featureids").__setitem__(0, 128))
    tag = next(bytes([byte]) for byte in range(256) if bytes([byte, 0x80, 0x01]) in data)
    with pytest.raises(ArtifactError, match="shortest form"):
        parse_artifact(data.replace(tag + b"\x80\x01", tag + b"\x81\x00"))


@pytest.mark.parametrize("limit", [1, 4])
def test_more_numbers_than_any_model_has_are_refused(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before they are converted, and after."""
    monkeypatch.setattr(wire, "_MOST_INTS", limit)
    with pytest.raises(ArtifactError, match=f"at most {limit} numbers"):
        parse_artifact(SMALL)


@pytest.mark.parametrize(
    ("name", "rule"), [("_MOST_MESSAGES", "at most 1 of"), ("_MOST_STRINGS", "at most 1 texts")]
)
def test_more_parts_than_any_model_has_are_refused(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they are parsed."""
    monkeypatch.setattr(wire, name, 1)
    with pytest.raises(ArtifactError, match=rule):
        parse_artifact(SMALL)


@pytest.mark.parametrize("published", ["yesterday", "2026-11-07T00:00:00", 7])
def test_a_release_has_a_time_with_a_zone(published: Any) -> None:
    """Else no model could be told to be too old."""
    with pytest.raises(ArtifactError, match="published"):
        Release(1, "0" * 64, 10, None, published)
