"""The parts of a graph: plain data, and the builder that appends to it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from bidml.blueprint import LIGHTGBM_ZERO, Column, CrossLookup, Lookup, Rewrite, Vocabulary

ML_DOMAIN: Final = "ai.onnx.ml"

DOUBLE: Final = "double"
STRING: Final = "string"
UINT8: Final = "uint8"


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """`data` in row-major order: array d for DOUBLE, array B for UINT8, a tuple of str for STRING."""

    dtype: str
    dims: tuple[int, ...]
    data: array[float] | array[int] | tuple[str, ...]

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Tensor)
            and (self.dtype, self.dims) == (other.dtype, other.dims)
            and same_bits(self.data, other.data)
        )


Attribute: TypeAlias = "int | array[int] | Tensor"


@dataclass(frozen=True, slots=True)
class Value:
    """A graph input or output of shape (N, 1)."""

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Node:
    """One operator; `name` is also its only output. `attributes` are in the order of their names."""

    op: str
    name: str
    inputs: tuple[str, ...]
    domain: str = ""
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Graph:
    """What a file computes: nodes in an order in which they can run."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    initializers: Mapping[str, Tensor]
    nodes: tuple[Node, ...]


def same_bits(one: object, other: object) -> bool:
    """Equality of arrays by bytes, so that NaN equals itself and 0.0 is not -0.0."""
    if one is other:
        return True
    if isinstance(one, array) and isinstance(other, array):
        return one.typecode == other.typecode and memoryview(one).tobytes() == memoryview(other).tobytes()
    return type(one) is type(other) and one == other


def _looks_neutral(value: float) -> bool:
    single = array("f", [value])[0]
    return single in (0.0, 1.0) and single != value


class GraphBuilder:
    """Appends nodes and constants; everything is referred to by name."""

    def __init__(self, *, anchor: str) -> None:
        self.nodes: list[Node] = []
        self.initializers: dict[str, Tensor] = {}
        self._anchor = anchor  # an input, for its number of rows
        self._lookups: dict[tuple[object, ...], str] = {}
        self._vocabularies: dict[Vocabulary, str] = {}
        self._crosses: dict[tuple[str, str], str] = {}
        self._names: set[str] = set()

    def add(self, op: str, name: str, *inputs: str) -> str:
        self.nodes.append(Node(op, name, inputs))
        return name

    def number(self, name: str, value: float) -> str:
        """A scalar parameter of the model.

        onnxruntime removes `x + c` and `c · x` when c is 0 or 1 *in single precision*: a γ of 1 + 1e-8 would
        be dropped. A parameter that looks neutral and is not is a value per row, which it cannot judge.
        """
        if _looks_neutral(value):
            return self.filled(name, value)
        self.initializers[name] = Tensor(DOUBLE, (), array("d", [value]))
        return name

    def constant(self, value: float) -> str:
        name = f"constant.{value!r}"
        return name if name in self.initializers else self.number(name, value)

    def row(self, name: str, values: array[float]) -> str:
        """The same `values` beside every row: shape (1, n)."""
        self.initializers[name] = Tensor(DOUBLE, (1, len(values)), values)
        return name

    def ones(self, name: str, n: int) -> str:
        """A column of ones, shape (n, 1): what a product with it adds up."""
        self.initializers[name] = Tensor(DOUBLE, (n, 1), array("d", [1.0]) * n)
        return name

    def filled(self, name: str, value: float) -> str:
        """`value` in every row: shape (N, 1)."""
        self.initializers[f"{name}.value"] = Tensor(DOUBLE, (1, 1), array("d", [value]))
        if "rows.shape" not in self._names:
            self._names.add("rows.shape")
            self.add("Shape", "rows.shape", self._anchor)
        return self.add("Expand", name, f"{name}.value", "rows.shape")

    def lookup(self, lookup: Lookup | CrossLookup) -> str:
        """Equal lookups are one node."""
        if isinstance(lookup, Lookup):
            source, keys = lookup.feature, Tensor(STRING, (len(lookup.keys),), lookup.keys)
        else:
            source, keys = self._cross(lookup), Tensor(DOUBLE, (len(lookup.codes),), lookup.codes)
        values, default = lookup.values.tobytes(), array("d", [lookup.default]).tobytes()
        told_apart = keys.data if isinstance(keys.data, tuple) else keys.data.tobytes()
        identity = (source, told_apart, values, default)
        name = self._lookups.get(identity)
        if name is None:
            name = self._lookups[identity] = f"lookup.{len(self._lookups)}"
            self._label_encoder(name, source, keys, lookup.values, lookup.default)
        return name

    def _cross(self, lookup: CrossLookup) -> str:
        """The code of each row's pair; equal pairs of vocabularies, and equal vocabularies, are one node."""
        first, second = self._numbered(lookup.first), self._numbered(lookup.second)
        name = self._crosses.get((first, second))
        if name is None:
            name = self._crosses[first, second] = f"cross.{len(self._crosses)}"
            n = self.constant(float(lookup.second.n_numbers))  # 2 at least: not neutral
            self.add("Add", name, self.add("Mul", f"{name}.first", first, n), second)
        return name

    def _numbered(self, vocabulary: Vocabulary) -> str:
        name = self._vocabularies.get(vocabulary)
        if name is None:
            name = self._vocabularies[vocabulary] = f"vocabulary.{len(self._vocabularies)}"
            n = len(vocabulary.keys)
            keys = Tensor(STRING, (n,), vocabulary.keys)
            self._label_encoder(name, vocabulary.feature, keys, array("d", range(n)), float(n))
        return name

    def _label_encoder(
        self, name: str, source: str, keys: Tensor, values: array[float], default: float
    ) -> None:
        attributes: dict[str, Attribute] = {
            "default_tensor": Tensor(DOUBLE, (1,), array("d", [default])),
            "keys_tensor": keys,
            "values_tensor": Tensor(DOUBLE, (len(values),), values),
        }
        self.nodes.append(Node("LabelEncoder", name, (source,), ML_DOMAIN, attributes))

    def column(self, column: Column) -> str:
        source = column.feature if column.lookup is None else self.lookup(column.lookup)
        if column.rewrite is Rewrite.NONE:
            return source
        name = f"{source}.{column.rewrite.value}"
        if name not in self._names:
            self._names.add(name)
            if column.rewrite is Rewrite.ZERO_IS_MISSING:
                size = self.add("Abs", f"{name}.abs", source)
                is_zero = self.add("LessOrEqual", f"{name}.is_zero", size, self.constant(LIGHTGBM_ZERO))
                self.add("Where", name, is_zero, self.constant(float("nan")), source)
            else:
                negative = self.add("Less", f"{name}.is_negative", source, self.constant(0.0))
                up = self.add("Ceil", f"{name}.up", source)
                down = self.add("Floor", f"{name}.down", source)
                self.add("Where", name, negative, up, down)
        return name
