"""Protocol buffers, the strict subset that an artifact uses: bytes → `ParsedModel`.

Every field must be known and in order, singular fields occur once, numbers are in their shortest form,
lengths are exact to the byte, text is UTF-8. Data may only be where the exporter puts it: no external data,
no second encoding of a tensor. So a message has one spelling. Field numbers are those of onnx.proto (onnx
1.16 and later). Nothing is allocated on the word of a length field: it is first compared with the bytes there.
"""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bidml.contract import MAX_KEYS, MAX_NODES
from bidml.errors import ArtifactError
from bidml.graph_parts import DOUBLE, STRING, UINT8, Attribute, Graph, Node, Tensor, Value
from bidml.score import _native

_VARINT: Final = "varint"
_BYTES: Final = "bytes"
_TEXT: Final = "text"
_MESSAGES: Final = "messages"
_INTS: Final = "ints"
_STRINGS: Final = "strings"

# number → (name, kind)
_Schema = Mapping[int, tuple[str, str]]
_MODEL: Final[_Schema] = {
    1: ("ir_version", _VARINT),
    2: ("producer_name", _TEXT),
    7: ("graph", _BYTES),
    8: ("opset_import", _MESSAGES),
    14: ("metadata_props", _MESSAGES),
}
_OPSET: Final[_Schema] = {1: ("domain", _TEXT), 2: ("version", _VARINT)}
_PROPERTY: Final[_Schema] = {1: ("key", _TEXT), 2: ("value", _TEXT)}
_GRAPH: Final[_Schema] = {
    1: ("node", _MESSAGES),
    2: ("name", _TEXT),
    5: ("initializer", _MESSAGES),
    11: ("input", _MESSAGES),
    12: ("output", _MESSAGES),
}
_NODE: Final[_Schema] = {
    1: ("input", _STRINGS),
    2: ("output", _STRINGS),
    3: ("name", _TEXT),
    4: ("op_type", _TEXT),
    5: ("attribute", _MESSAGES),
    7: ("domain", _TEXT),
}
_ATTRIBUTE: Final[_Schema] = {
    1: ("name", _TEXT),
    3: ("i", _VARINT),
    5: ("t", _BYTES),
    8: ("ints", _INTS),
    20: ("type", _VARINT),
}
_TENSOR: Final[_Schema] = {
    1: ("dims", _INTS),
    2: ("data_type", _VARINT),
    6: ("string_data", _STRINGS),
    8: ("name", _TEXT),
    9: ("raw_data", _BYTES),
}
_VALUE: Final[_Schema] = {1: ("name", _TEXT), 2: ("type", _BYTES)}
_TYPE: Final[_Schema] = {1: ("tensor_type", _BYTES)}
_TENSOR_TYPE: Final[_Schema] = {1: ("elem_type", _VARINT), 2: ("shape", _BYTES)}
_SHAPE: Final[_Schema] = {1: ("dim", _MESSAGES)}
_DIMENSION: Final[_Schema] = {1: ("dim_value", _VARINT), 2: ("dim_param", _TEXT)}

_DTYPES: Final = {11: DOUBLE, 8: STRING, 2: UINT8}
_TYPE_INT, _TYPE_TENSOR, _TYPE_INTS = 2, 4, 7

_MOST_STRINGS: Final = MAX_KEYS
_MOST_INTS: Final = 2 * MAX_NODES
_MOST_MESSAGES: Final = 100_000  # nodes, attributes, tensors of one parent


@dataclass(frozen=True, slots=True)
class ParsedModel:
    """A file's content, in form only."""

    ir_version: int
    producer_name: str
    opsets: tuple[tuple[str, int], ...]
    graph_name: str
    graph: Graph
    metadata: tuple[tuple[str, str], ...]


def parse_model(data: bytes) -> ParsedModel:
    """The model in `data`; raises `ArtifactError` for anything outside the subset."""
    model = _Message(data, 0, len(data), "model", _MODEL)
    graph = model.child("graph", _GRAPH)
    initializers: dict[str, Tensor] = {}
    for name, tensor in map(_tensor, graph.children("initializer", _TENSOR)):
        _demand(name not in initializers, "an initializer's name is unique", name)
        initializers[name] = tensor
    return ParsedModel(
        ir_version=model.integer("ir_version"),
        producer_name=model.text("producer_name"),
        opsets=tuple(
            (opset.text("domain"), opset.integer("version"))
            for opset in model.children("opset_import", _OPSET)
        ),
        graph_name=graph.text("name"),
        graph=Graph(
            inputs=tuple(map(_value, graph.children("input", _VALUE))),
            outputs=tuple(map(_value, graph.children("output", _VALUE))),
            initializers=initializers,
            nodes=tuple(map(_node, graph.children("node", _NODE))),
        ),
        metadata=tuple((p.text("key"), p.text("value")) for p in model.children("metadata_props", _PROPERTY)),
    )


def _value(message: _Message) -> Value:
    tensor_type = message.child("type", _TYPE).child("tensor_type", _TENSOR_TYPE)
    dims = tensor_type.child("shape", _SHAPE).children("dim", _DIMENSION)
    shape = [dim.only_value() for dim in dims]
    name = message.text("name")
    _demand(shape == ["N", 1], f"the shape of {name} is [N, 1]", shape)
    return Value(name, _dtype(tensor_type.integer("elem_type")))


def _node(message: _Message) -> Node:
    name = message.text("name")
    outputs = message.texts("output")
    _demand(outputs == (name,), "a node has one output, named as the node", (name, outputs))
    attributes: dict[str, Attribute] = {}
    for attribute in message.children("attribute", _ATTRIBUTE):
        key = attribute.text("name")
        _demand(key not in attributes, f"an attribute of {name} is given once", key)
        attributes[key] = _attribute(attribute)
    return Node(
        message.text("op_type"), name, message.texts("input"), message.found("domain") or "", attributes
    )


def _attribute(message: _Message) -> Attribute:
    kind = message.integer("type")
    name = message.text("name")
    wanted = {_TYPE_INT: "i", _TYPE_TENSOR: "t", _TYPE_INTS: "ints"}.get(kind)
    _demand(wanted is not None, f"attribute {name} is an int, ints or a tensor", f"type {kind}")
    message.demand_only({"name", "type", wanted})
    if kind == _TYPE_INT:
        return message.integer("i")
    if kind == _TYPE_INTS:
        return message.integers("ints")
    tensor_name, tensor = _tensor(message.child("t", _TENSOR))
    _demand(tensor_name == name, "a tensor attribute is named as its tensor", (name, tensor_name))
    return tensor


def _tensor(message: _Message) -> tuple[str, Tensor]:
    name = message.text("name")
    dtype = _dtype(message.integer("data_type"))
    dims = tuple(message.integers("dims"))
    _demand(len(dims) <= 2, f"{name} has at most 2 dims", len(dims))
    n = math.prod(dims)
    data: Any
    if dtype == STRING:
        message.demand_only({"name", "data_type", "dims", "string_data"})
        data = message.texts("string_data")
    else:
        message.demand_only({"name", "data_type", "dims", "raw_data"})
        raw = message.raw("raw_data")
        data = array("d" if dtype == DOUBLE else "B")
        _demand(len(raw) % data.itemsize == 0, f"{name} is a whole number of elements", f"{len(raw)} bytes")
        data.frombytes(raw)
        if sys.byteorder == "big":
            data.byteswap()
    _demand(len(data) == n, f"{name} has as many elements as its dims {dims} say", len(data))
    return name, Tensor(dtype, dims, data)


def _dtype(code: int) -> str:
    dtype = _DTYPES.get(code)
    _demand(dtype is not None, "a tensor is of double, string or uint8", f"type code {code}")
    return str(dtype)


class _Message:
    """One message, split into its fields; values by name. `where` names it in errors."""

    __slots__ = ("_data", "_end", "_fields", "_where")

    def __init__(self, data: bytes, start: int, end: int, where: str, schema: _Schema) -> None:
        self._data = data
        self._end = end
        self._where = where
        self._fields: dict[str, Any] = {}
        position = start
        last = 0
        while position < end:
            first = position
            tag, position = self._varint(position)
            name, kind = schema.get(tag >> 3, ("", ""))
            if tag < last:
                raise self._error("has its fields in order", f"field {tag >> 3} at byte {first}")
            last = tag
            wire_type = tag & 7
            if not name or wire_type != (0 if kind in (_VARINT, _INTS) else 2):
                raise self._error(
                    "has only known fields", f"field {tag >> 3}, wire type {wire_type}, byte {first}"
                )
            position = self._read(name, kind, tag, position)

    def _read(self, name: str, kind: str, tag: int, position: int) -> int:
        if kind == _INTS:
            return self._read_ints(name, tag, position - 1)
        if kind == _STRINGS:
            return self._read_strings(name, tag, position - 1)
        if kind == _VARINT:
            value, position = self._varint(position)
            self._set_once(name, value)
            return position
        start, stop = self._length(position)
        if kind == _MESSAGES:
            spans = self._fields.setdefault(name, [])
            spans.append((start, stop))
            if len(spans) > _MOST_MESSAGES:
                raise self._error(f"has at most {_MOST_MESSAGES} of {name}", "more")
        elif kind == _TEXT:
            self._set_once(name, self._decoded(start, stop))
        else:
            self._set_once(name, (start, stop))
        return stop

    def _set_once(self, name: str, value: object) -> None:
        if name in self._fields:
            raise self._error(f"has {name} once", "twice")
        self._fields[name] = value

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if position >= self._end or shift > 63:
                raise self._error("is whole", f"a number that does not end, byte {position}")
            byte = self._data[position]
            value |= (byte & 0x7F) << shift
            position += 1
            if byte < 0x80:
                if byte == 0 and shift > 0:
                    raise self._error(
                        "has numbers in their shortest form", f"a longer one, byte {position - 1}"
                    )
                return value, position
            shift += 7

    def _length(self, position: int) -> tuple[int, int]:
        length, start = self._varint(position)
        if length > self._end - start:
            raise self._error(
                "is whole", f"a field of {length} bytes where {self._end - start} are left, byte {start}"
            )
        return start, start + length

    def _decoded(self, start: int, stop: int) -> str:
        try:
            return str(self._data[start:stop], "utf-8")
        except UnicodeDecodeError:
            raise self._error("has UTF-8 text", f"other bytes at {start}") from None

    def _read_ints(self, name: str, tag: int, position: int) -> int:
        """The run of `tag number tag number ...` from `position`, in bulk."""
        numbers, stop, problem = _native.read_numbers(self._data, position, self._end, tag, _MOST_INTS)
        if problem == "many":
            raise self._error(f"has at most {_MOST_INTS} numbers in {name}", "more")
        if problem == "form":
            raise self._error("has numbers in their shortest form", f"a longer one in {name}")
        if problem:
            raise self._error(f"has small non-negative numbers in {name}", f"another number, byte {stop}")
        values = array("q")
        values.frombytes(numbers)
        self._set_once(name, values)
        return stop

    def _read_strings(self, name: str, tag: int, position: int) -> int:
        """The run of texts from `position`, in bulk: one tag byte, a length, UTF-8."""
        texts, stop, problem = _native.read_texts(self._data, position, self._end, tag, _MOST_STRINGS)
        if problem == "many":
            raise self._error(f"has at most {_MOST_STRINGS} texts in {name}", "more")
        if problem == "text":
            raise self._error("has UTF-8 text", f"other bytes at {stop}")
        if problem:
            raise self._error("is whole", f"a length in {name} that is none, byte {stop}")
        self._set_once(name, texts)
        return stop

    def _error(self, rule: str, value: object) -> ArtifactError:
        return ArtifactError(
            f"an artifact's {self._where} {rule}",
            value=value,
            remedy="the file is damaged or not bidml's: fetch it again",
        )

    def found(self, name: str) -> Any:
        return self._fields.get(name)

    def _required(self, name: str) -> Any:
        if name not in self._fields:
            raise self._error(f"has {name}", "none")
        return self._fields[name]

    def text(self, name: str) -> str:
        value: str = self._required(name)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value: tuple[str, ...] = self._fields.get(name, ())
        return value

    def integer(self, name: str) -> int:
        value: int = self._required(name)
        return value

    def integers(self, name: str) -> array[int]:
        value: array[int] = self._fields.get(name, array("q"))
        return value

    def raw(self, name: str) -> bytes:
        start, stop = self._required(name)
        return self._data[start:stop]

    def child(self, name: str, schema: _Schema) -> _Message:
        start, stop = self._required(name)
        return _Message(self._data, start, stop, name, schema)

    def children(self, name: str, schema: _Schema) -> list[_Message]:
        spans = self._fields.get(name, [])
        return [_Message(self._data, start, stop, name, schema) for start, stop in spans]

    def only_value(self) -> Any:
        if len(self._fields) != 1:
            raise self._error("has one value", sorted(self._fields))
        return next(iter(self._fields.values()))

    def demand_only(self, names: set[Any]) -> None:
        extra = sorted(set(self._fields) - names)
        if extra:
            raise self._error("holds its data once", extra)


def _demand(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ArtifactError(rule, value=value, remedy="the file is damaged or not bidml's: fetch it again")
