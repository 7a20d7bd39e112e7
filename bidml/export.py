"""A blueprint → one certified `.onnx` file.

`graph.py` says what is in the file; this module spells it as protocol buffers, has it certified, and makes it
appear by rename only, with its manifest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import AttributeProto, TensorProto, helper

from bidml.atomic import write_atomically
from bidml.blueprint import Blueprint
from bidml.bounds import check_blueprint
from bidml.certify import DEFAULT_EVALUATORS, Evaluator, certify
from bidml.contract import CONTRACT_VERSION, IR_VERSION, MAX_FILE_BYTES
from bidml.errors import ExportError
from bidml.graph import GRAPH_NAME, graph_of
from bidml.graph_parts import DOUBLE, STRING, UINT8, Attribute, Graph, Node, Tensor, Value
from bidml.metadata import SelfCheck, metadata_of
from bidml.score.reader import MANIFEST_SUFFIX, OPSETS, PRODUCER, parse_artifact
from bidml.self_check import self_check_of

_ELEMENT_TYPES: Final = {DOUBLE: TensorProto.DOUBLE, STRING: TensorProto.STRING, UINT8: TensorProto.UINT8}


def model_bytes(blueprint: Blueprint, self_check: SelfCheck) -> bytes:
    """The file of a model and its self-check; the same bytes for the same arguments. Not certified.

    Raises `ExportError` for a blueprint outside the bounds, or a file above `MAX_FILE_BYTES`.
    """
    check_blueprint(blueprint, error=ExportError)
    model = _model(graph_of(blueprint), metadata_of(blueprint, self_check))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) > MAX_FILE_BYTES:
        raise ExportError(
            f"an artifact has at most {MAX_FILE_BYTES} bytes", value=len(data), remedy="train a smaller model"
        )
    return data


def write_artifact(
    blueprint: Blueprint,
    path: str | Path,
    *,
    sample_rows: Mapping[str, Any] | None = None,
    evaluators: Sequence[Evaluator] = DEFAULT_EVALUATORS,
) -> str:
    """Certify `blueprint` and write it to `path`, with a manifest at `<path>.json`; returns the SHA-256.

    `sample_rows`: raw columns by input name (features, and price inputs if wanted), some of which become
    self-check rows next to the rows made from the model's own thresholds. Files appear by rename, the
    manifest last, or not at all. Raises `ExportError` for a model that has no exact form, `CertificateError`
    when two evaluations disagree.
    """
    check_blueprint(blueprint, error=ExportError)
    self_check = self_check_of(blueprint, sample_rows or {})
    data = model_bytes(blueprint, self_check)
    certify(data, evaluators=evaluators)
    return write_model(data, path)


def write_model(data: bytes, path: str | Path) -> str:
    """Writes the bytes of a certified model to `path`, then its manifest, each by rename; returns the SHA-256."""
    path = Path(path)
    digest = hashlib.sha256(data).hexdigest()
    manifest = json.dumps(
        {"bytes": len(data), "contract": CONTRACT_VERSION, "sha256": digest}, sort_keys=True, indent=1
    )
    manifest_path = path.with_name(path.name + MANIFEST_SUFFIX)
    manifest_path.unlink(missing_ok=True)  # an old manifest beside a new file would be refused after a crash
    write_atomically(path, data)
    write_atomically(manifest_path, manifest.encode() + b"\n")
    return digest


def rewritten_bytes(data: bytes) -> bytes:
    """What the exporter writes for what the reader reads in `data`: `data` again, for a file it wrote."""
    artifact = parse_artifact(data)
    return model_bytes(artifact.blueprint, artifact.self_check)


def _model(graph: Graph, metadata: Mapping[str, str]) -> onnx.ModelProto:
    model = helper.make_model(
        helper.make_graph(
            [_node(node) for node in graph.nodes],
            GRAPH_NAME,
            [_value(value) for value in graph.inputs],
            [_value(value) for value in graph.outputs],
            initializer=[_tensor(name, tensor) for name, tensor in graph.initializers.items()],
        ),
        producer_name=PRODUCER,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS],
    )
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model


def _value(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, _ELEMENT_TYPES[value.dtype], ["N", 1])


def _node(node: Node) -> onnx.NodeProto:
    proto = helper.make_node(
        node.op, list(node.inputs), [node.name], name=node.name, domain=node.domain or None
    )
    proto.attribute.extend(_attribute(name, value) for name, value in node.attributes.items())
    return proto


def _attribute(name: str, value: Attribute) -> onnx.AttributeProto:
    if isinstance(value, Tensor):
        return AttributeProto(name=name, type=AttributeProto.TENSOR, t=_tensor(name, value))
    if isinstance(value, array):
        return AttributeProto(name=name, type=AttributeProto.INTS, ints=value)
    return AttributeProto(name=name, type=AttributeProto.INT, i=value)


def _tensor(name: str, tensor: Tensor) -> onnx.TensorProto:
    proto = TensorProto(name=name, data_type=_ELEMENT_TYPES[tensor.dtype], dims=tensor.dims)
    if isinstance(tensor.data, tuple):
        proto.string_data.extend(text.encode() for text in tensor.data)
    else:
        proto.raw_data = _little_endian(tensor.data)
    return proto


def _little_endian(values: array[float] | array[int]) -> bytes:
    if sys.byteorder == "little":
        return values.tobytes()
    swapped = values[:]
    swapped.byteswap()
    return swapped.tobytes()
