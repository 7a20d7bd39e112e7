"""Model files with another structure and a digest that is right for it: each is refused, by the rule that it breaks.

The changes are made with onnx's own classes to the small file, so that everything else is as it should be. `rule` is a
part of the refusal's rule, so that a file is not refused for another reason than the one under test.
"""

# ruff: noqa: E501 (a case is a line)
from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, TensorProto, helper

from bidml.errors import ArtifactError
from bidml.export import write_model
from bidml.score import reader as reader_module
from bidml.score import wire as wire_module
from bidml.score.reader import parse_artifact, read_artifact
from robust.hostile_files import out_of_bounds
from robust.models import small_file
from robust.outcome import Effort, Outcome

Change = Callable[[ModelProto], Any]


@dataclass(frozen=True)
class Case:
    """A change of the small file (or of its bytes), and the rule that refuses it."""

    name: str
    change: Change | Callable[[bytes], bytes]
    rule: str
    of_bytes: bool = False


# ---- ways to change a model ----------------------------------------------------------------------------------


def node_of(model: ModelProto, name: str) -> Any:
    return next(node for node in model.graph.node if node.name == name)


def attribute_of(node: Any, name: str) -> Any:
    return next(attribute for attribute in node.attribute if attribute.name == name)


def tree_ints(name: str, index: int, value: int) -> Change:
    def change(model: ModelProto) -> None:
        attribute_of(node_of(model, "ctr.trees"), name).ints[index] = value

    return change


def tree_doubles(name: str, index: int, value: float) -> Change:
    def change(model: ModelProto) -> None:
        tensor = attribute_of(node_of(model, "ctr.trees"), name).t
        values = np.frombuffer(tensor.raw_data).copy()
        values[index] = value
        tensor.raw_data = values.tobytes()

    return change


def number(name: str, value: float) -> Change:
    def change(model: ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name in (name, f"{name}.value"))
        tensor.raw_data = struct.pack("<d", value)

    return change


def metadata(key: str, change: Callable[[Any], Any]) -> Change:
    def changed(model: ModelProto) -> None:
        row = next(row for row in model.metadata_props if row.key == f"bidml.{key}")
        document = json.loads(row.value)
        found = change(document)
        document = document if found is None else found
        row.value = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    return changed


def metadata_text(key: str, text: str) -> Change:
    def changed(model: ModelProto) -> None:
        next(row for row in model.metadata_props if row.key == f"bidml.{key}").value = text

    return changed


def lookup_tensor(which: str, change: Callable[[TensorProto], Any]) -> Change:
    def changed(model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "LabelEncoder")
        change(attribute_of(node, which).t)

    return changed


def cross_codes(values: list[float]) -> Change:
    """The codes of the five known pairs of the cross among the CTR terms."""

    def change(model: ModelProto) -> None:
        attribute_of(_of_cross(model), "keys_tensor").t.raw_data = struct.pack("<5d", *values)

    return change


def _of_cross(model: ModelProto) -> Any:
    return next(node for node in model.graph.node if node.input[:1] == ["cross.0"])


def _chain(depth: int) -> Change:
    """The CTR trees become one chain of `depth` nodes."""

    def change(model: ModelProto) -> None:
        trees = node_of(model, "ctr.trees")
        ints = {
            "tree_roots": [0],
            "nodes_featureids": [0] * depth,
            "nodes_truenodeids": [*range(1, depth), depth],
            "nodes_falsenodeids": range(depth),
            "nodes_trueleafs": [0] * (depth - 1) + [1],
            "nodes_falseleafs": [1] * depth,
            "nodes_missing_value_tracks_true": [0] * depth,
        }
        for name, values in ints.items():
            attribute = attribute_of(trees, name)
            del attribute.ints[:]
            attribute.ints.extend(values)
        for name, raw, dims in (
            ("nodes_modes", bytes(depth), depth),
            ("nodes_splits", bytes(8 * depth), depth),
            ("leaf_weights", bytes(8 * (depth + 1)), depth + 1),
        ):
            tensor = attribute_of(trees, name).t
            tensor.raw_data = raw
            tensor.dims[0] = dims
        kept = [a for a in trees.attribute if a.name != "membership_values"]
        del trees.attribute[:]
        trees.attribute.extend(kept)

    return change


def _set(target: str, value: Any) -> Change:
    """Sets a field, for example "graph.name"."""

    def change(model: ModelProto) -> None:
        *path, last = target.split(".")
        at: Any = model
        for part in path:
            at = at[int(part)] if part.isdigit() else getattr(at, part)
        setattr(at, last, value)

    return change


def _external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _nested_graph(model: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    node_of(model, "ctr.trees").attribute.append(
        AttributeProto(name="body", type=AttributeProto.GRAPH, g=body)
    )


def _custom_node(model: ModelProto) -> None:
    model.graph.node.append(helper.make_node("Evil", ["pctr"], ["evil"], name="evil", domain="com.example"))


def _other_trees(model: ModelProto, name: str) -> None:
    trees = node_of(model, "ctr.trees")
    kept = [a for a in trees.attribute if a.name != name]
    del trees.attribute[:]
    trees.attribute.extend(kept)


def _swap_nodes(model: ModelProto) -> None:
    nodes = list(model.graph.node)
    nodes[3], nodes[4] = nodes[4], nodes[3]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _duplicate_node(model: ModelProto) -> None:
    model.graph.node.append(model.graph.node[-1])


def _sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add()


def _append_initializer(model: ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("spare", TensorProto.DOUBLE, [1], [1.0]))


def _float32_leaves(model: ModelProto) -> None:
    tensor = attribute_of(node_of(model, "ctr.trees"), "leaf_weights").t
    tensor.raw_data = np.frombuffer(tensor.raw_data).astype(np.float32).tobytes()
    tensor.data_type = TensorProto.FLOAT


def _double_data(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    value = np.frombuffer(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.double_data.extend(value)


def _dims(values: list[int]) -> Change:
    def change(model: ModelProto) -> None:
        tensor = attribute_of(node_of(model, "ctr.trees"), "leaf_weights").t
        del tensor.dims[:]
        tensor.dims.extend(values)

    return change


def _repeat_attribute(model: ModelProto) -> None:
    trees = node_of(model, "ctr.trees")
    trees.attribute.append(trees.attribute[0])


def _input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("spare", TensorProto.DOUBLE, ["N", 1]))


def _output(model: ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("ctr.margin", TensorProto.DOUBLE, ["N", 1]))


def _shape(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 62


def _opset(domain: str, version: int) -> Change:
    def change(model: ModelProto) -> None:
        model.opset_import.add(domain=domain, version=version)

    return change


def _without_metadata(model: ModelProto) -> None:
    del model.metadata_props[-1]


def _repeat_metadata(model: ModelProto) -> None:
    model.metadata_props.append(model.metadata_props[0])


def _nest(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


def _functions(model: ModelProto) -> None:
    model.functions.add(name="f", domain="com.example")


def _training(model: ModelProto) -> None:
    model.training_info.add()


INF, NAN = float("inf"), float("nan")

CASES: tuple[Case, ...] = (
    # cycles, shared children, what is not there
    Case("a node is its own child", tree_ints("nodes_truenodeids", 0, 0), "comes after its parent"),
    Case("a child before its parent", tree_ints("nodes_falsenodeids", 2, 1), "every leaf of ctr is used and exists"),
    Case("a child of two", tree_ints("nodes_truenodeids", 0, 2), "belongs to one tree"),
    Case("a child that is a root", tree_ints("nodes_falsenodeids", 0, 3), "belongs to one tree"),
    Case("a child that is not there", tree_ints("nodes_truenodeids", 0, 99), "comes after its parent"),
    Case("a child 2^31", tree_ints("nodes_truenodeids", 0, 2**31), "comes after its parent"),
    Case("a child 2^63 - 1", tree_ints("nodes_truenodeids", 0, 2**63 - 1), "small non-negative numbers"),
    Case("a child -1", tree_ints("nodes_truenodeids", 0, -1), "small non-negative numbers"),
    Case("a root that is not there", tree_ints("tree_roots", 1, 99), "a root of ctr"),
    Case("a root twice", tree_ints("tree_roots", 1, 0), "belongs to one tree"),
    Case("a root -1", tree_ints("tree_roots", 0, -1), "small non-negative numbers"),
    Case("a root 2^31", tree_ints("tree_roots", 0, 2**31), "a root of ctr"),
    Case("no roots", lambda m: attribute_of(node_of(m, "ctr.trees"), "tree_roots").ClearField("ints"), "1 to 20000 trees"),
    Case("a column that is not there", tree_ints("nodes_featureids", 0, 5), "reads one of its 5 columns"),
    Case("a column 2^31", tree_ints("nodes_featureids", 0, 2**31), "reads one of its 5 columns"),
    Case("a column 2^63 - 1", tree_ints("nodes_featureids", 0, 2**63 - 1), "small non-negative numbers"),
    Case("a leaf that is not there", tree_ints("nodes_falsenodeids", 1, 99), "every leaf of ctr is used and exists"),
    Case("a leaf of two nodes", tree_ints("nodes_falsenodeids", 1, 0), "every leaf of ctr is used and exists"),
    Case("a flag of 2", tree_ints("nodes_trueleafs", 0, 2), "true_is_leaf is 0 or 1"),
    Case("a missing flag of 2^31", tree_ints("nodes_missing_value_tracks_true", 0, 2**31), "missing_true is 0 or 1"),
    Case("a chain of 513", _chain(513), "at most 512 nodes deep"),
    Case("a chain of 1,000,000", _chain(1_000_000), "at most 512 nodes deep"),
    # numbers
    Case("a NaN threshold", tree_doubles("nodes_splits", 0, NAN), "thresholds of ctr are numbers above -inf"),
    Case("a threshold of -inf", tree_doubles("nodes_splits", 0, -INF), "thresholds of ctr are numbers above -inf"),
    Case("a NaN leaf", tree_doubles("leaf_weights", 0, NAN), "a leaf of ctr is finite"),
    Case("an infinite leaf", tree_doubles("leaf_weights", 0, INF), "a leaf of ctr is finite"),
    Case("a leaf of 1e300", tree_doubles("leaf_weights", 0, 1e300), "a leaf of ctr is finite"),
    Case("a member of -1", tree_doubles("membership_values", 0, -1.0), "members of ctr's sets are integers"),
    Case("a member of 0.5", tree_doubles("membership_values", 0, 0.5), "members of ctr's sets are integers"),
    Case("an infinite member", tree_doubles("membership_values", 0, INF), "members of ctr's sets are integers"),
    Case("a set more", tree_doubles("membership_values", 1, NAN), "has one set closed by NaN"),
    Case("an empty set", tree_doubles("membership_values", 0, NAN), "has one set closed by NaN"),
    Case("a set that does not end", tree_doubles("membership_values", -1, 1.0), "has one set closed by NaN"),
    Case("a NaN intercept", number("ctr.intercept", NAN), "ctr.intercept is a number"),
    Case("an infinite scale", number("ctr.scale", INF), "ctr.scale is a number"),
    Case("a divisor of 0", number("ctr.divisor", 0.0), "ctr.divisor is a number"),
    Case("a negative weight", number("calibration.positive", -1.0), "calibration.positive is a number"),
    Case("a NaN shift", number("calibration.shift", NAN), "calibration.shift is a number"),
    Case("a slope scale of 0", number("win.slope_scale", 0.0), "win.slope_scale is a number"),
    Case("a gamma of 1e9", number("win.gamma", 1e9), "win.gamma is a number"),
    Case("a NaN reference bid", number("win.reference_log_bid_cpm", NAN), "win.reference_log_bid_cpm is a number"),
    Case("an infinite logit shift", number("win.logit_shift", INF), "win.logit_shift is a number"),
    Case("another gamma in the graph than in the text", number("win.gamma", 1.25), "canonical form"),
    # lookups
    Case("a lookup of other length", lookup_tensor("values_tensor", lambda t: t.dims.__setitem__(0, 1)), "elements"),
    Case("an infinite value", lookup_tensor("values_tensor", lambda t: setattr(t, "raw_data", struct.pack("<4d", INF, 0, 0, 0))), "finite or NaN"),
    Case("an infinite default", lookup_tensor("default_tensor", lambda t: setattr(t, "raw_data", struct.pack("<d", INF))), "finite or NaN"),
    Case("two defaults", lookup_tensor("default_tensor", lambda t: (setattr(t, "raw_data", bytes(16)), t.dims.__setitem__(0, 2))), "has one default"),
    Case("keys unsorted", lookup_tensor("keys_tensor", lambda t: t.string_data.__setitem__(0, b"zzz")), "distinct and sorted"),
    Case("a key twice", lookup_tensor("keys_tensor", lambda t: t.string_data.__setitem__(0, t.string_data[1])), "distinct and sorted"),
    Case("a key of 1,025 bytes", lookup_tensor("keys_tensor", lambda t: t.string_data.__setitem__(3, "Ω".encode() * 513)), "at most 1024 bytes"),
    Case("a key that is not UTF-8", lookup_tensor("keys_tensor", lambda t: t.string_data.__setitem__(3, b"\xff")), "UTF-8"),
    Case("a key that is a surrogate", lookup_tensor("keys_tensor", lambda t: t.string_data.__setitem__(3, b"\xed\xa0\x80")), "UTF-8"),
    Case("keys of numbers", lookup_tensor("keys_tensor", lambda t: setattr(t, "data_type", TensorProto.DOUBLE)), "holds its data once"),
    # crosses
    Case("codes of pairs that fall", cross_codes([1, 0, 5, 9, 11]), "the codes of the lookup of country*creative in ctr rise"),
    Case("a code twice", cross_codes([0, 0, 5, 9, 11]), "the codes of the lookup of country*creative in ctr rise"),
    Case("a code of no pair", cross_codes([0, 1, 5, 9, 12]), "are integers from 0 to 11"),
    Case("a code of -1", cross_codes([-1, 1, 5, 9, 11]), "are integers from 0 to 11"),
    Case("a code of 0.5", cross_codes([0.5, 1, 5, 9, 11]), "are integers from 0 to 11"),
    Case("a NaN code", cross_codes([NAN, 1, 5, 9, 11]), "are integers from 0 to 11"),
    Case("a code of 2^63", cross_codes([0, 1, 5, 9, 2.0**63]), "are integers from 0 to 11"),
    Case("pairs keyed by texts", lambda m: attribute_of(_of_cross(m), "keys_tensor").CopyFrom(attribute_of(node_of(m, "vocabulary.0"), "keys_tensor")), "keys_tensor of lookup"),
    Case("a vocabulary numbered from 1", lambda m: setattr(attribute_of(node_of(m, "vocabulary.0"), "values_tensor").t, "raw_data", struct.pack("<3d", 1, 2, 3)), "attribute values_tensor of vocabulary.0"),
    Case("a vocabulary unsorted", lambda m: attribute_of(node_of(m, "vocabulary.0"), "keys_tensor").t.string_data.reverse(), "distinct and sorted"),
    Case("a vocabulary of a number", lambda m: node_of(m, "vocabulary.0").input.__setitem__(0, "hour"), "of a category of the spec"),
    Case("a vocabulary of itself", lambda m: node_of(m, "vocabulary.0").input.__setitem__(0, "vocabulary.0"), "of a category of the spec"),
    Case("a vocabulary of two texts", lambda m: node_of(m, "vocabulary.0").input.append("country"), "is a node of 1 inputs"),
    Case("a cross of a category with itself", lambda m: node_of(m, "vocabulary.0").input.__setitem__(0, "creative"), "is of two categories"),
    Case("a cross of a cross", lambda m: node_of(m, "cross.0.first").input.__setitem__(0, "cross.0"), "is a node of 1 inputs"),
    Case("a cross of one", lambda m: node_of(m, "cross.0").input.pop(), "is a node of 2 inputs"),
    Case("a cross of itself", lambda m: node_of(m, "cross.0").input.__setitem__(0, "cross.0"), "is a node of 1 inputs"),
    Case("a cross that is not there", lambda m: _of_cross(m).input.__setitem__(0, "cross.99"), "cross.99 is a node"),
    Case("sides of a cross multiplied", lambda m: setattr(node_of(m, "cross.0"), "op_type", "Mul"), "node cross.0 is"),
    Case("a pair's code with another factor", lambda m: node_of(m, "cross.0.first").input.__setitem__(1, "ctr.divisor"), "node cross.0.first is"),
    # counts
    Case("0 elements declared", _dims([0]), "elements"),
    Case("2^31 elements declared", _dims([2**31]), "elements"),
    Case("2^63 - 1 elements declared", _dims([2**63 - 1]), "small non-negative numbers"),
    Case("-1 elements declared", _dims([-1]), "small non-negative numbers"),
    Case("2^40 times 2^40 elements declared", _dims([2**34, 2**34]), "as many elements as its dims"),
    Case("three dimensions", _dims([1, 1, 5]), "at most 2 dims"),
    Case("a shape of 2^62 rows", _shape, "shape"),
    # versions
    Case("another IR", _set("ir_version", 11), "ir_version is 10"),
    Case("an IR of 2^62", _set("ir_version", 2**62), "ir_version is 10"),
    Case("another producer", _set("producer_name", "pytorch"), "producer_name is bidml"),
    Case("another graph name", _set("graph.name", "main_graph"), "graph name is"),
    Case("another opset", _set("opset_import.0.version", 22), "operator set imports"),
    Case("a custom opset", _opset("com.example", 1), "operator set imports"),
    Case("contract version 2", metadata("contract", lambda d: d.update(version=2)), "contract version 1"),
    Case("contract version 1.0", metadata("contract", lambda d: d.update(version=1.0)), "contract version 1"),
    Case("contract version true", metadata("contract", lambda d: d.update(version=True)), "canonical form"),
    # parts that have no place
    Case("external data", _external, "only known fields"),
    Case("a nested graph", _nested_graph, "only known fields"),
    Case("a custom operator", _custom_node, "nodes are those of the blueprint"),
    Case("functions", _functions, "only known fields"),
    Case("training info", _training, "only known fields"),
    Case("a sparse initializer", _sparse, "only known fields"),
    Case("a spare initializer", _append_initializer, "only known fields"),
    Case("a spare input", _input, "inputs are those of the blueprint"),
    Case("a spare output", _output, "outputs are those of the blueprint"),
    Case("a node twice", _duplicate_node, "a node's name is unique"),
    Case("nodes in another order", _swap_nodes, "nodes are those of the blueprint"),
    Case("an attribute twice", _repeat_attribute, "is given once"),
    Case("no thresholds", lambda m: _other_trees(m, "nodes_splits"), "nodes_splits of ctr.trees is a tensor"),
    Case("no modes", lambda m: _other_trees(m, "nodes_modes"), "nodes_modes of ctr.trees is a tensor"),
    Case("no post transform", lambda m: _other_trees(m, "post_transform"), "has the attributes"),
    Case("another post transform", lambda m: setattr(attribute_of(node_of(m, "ctr.trees"), "post_transform"), "i", 2), "attribute post_transform"),
    Case("leaves in single precision", _float32_leaves, "double, string or uint8"),
    Case("doubles not raw", _double_data, "only known fields"),
    Case("a documentation string", _set("doc_string", "hello"), "only known fields"),
    Case("another operator", lambda m: setattr(node_of(m, "price.v"), "op_type", "Add"), "node price.v is"),
    Case("inputs swapped", lambda m: node_of(m, "price.ceiling").input.reverse(), "node price.ceiling is"),
    Case("a price from the wrong input", lambda m: node_of(m, "price.ceiling").input.__setitem__(0, "floor_cpm"), "node price.ceiling is"),
    Case("a constant of another value", lambda m: next(t for t in m.graph.initializer if "1e-300" in t.name or t.name.startswith("constant")).__setattr__("raw_data", struct.pack("<d", 0.25)), "constant"),
    # metadata
    Case("a metadata key missing", _without_metadata, "metadata keys"),
    Case("a metadata key twice", _repeat_metadata, "metadata keys"),
    Case("metadata is no JSON", metadata_text("spec", "{"), "bidml.spec is JSON"),
    Case("metadata is a list", metadata_text("spec", "[]"), "a JSON object"),
    Case("metadata with NaN", metadata_text("metrics", '{"a":NaN}'), "bidml.metrics is JSON"),
    Case("metadata with 1e999", metadata_text("metrics", '{"a":1e999}'), "metrics is JSON without NaN"),
    Case("metadata with 5,000 digits", metadata_text("metrics", '{"a":' + "9" * 5_000 + "}"), "bidml.metrics is JSON"),
    Case("metadata with a key twice", metadata_text("metrics", '{"a":1,"a":1}'), "canonical form"),
    Case("metadata with spaces", metadata_text("metrics", '{"a": 1}'), "canonical form"),
    Case("metadata with a lone surrogate", metadata_text("metrics", '{"a":"\\ud800"}'), "JSON"),
    Case("metadata 200 deep", metadata_text("metrics", _nest(100_000)), "JSON"),
    Case("a spec of nothing", metadata("spec", lambda d: d.update(features=[])), "is a feature spec"),
    Case("a spec of 257 features", metadata("spec", lambda d: d.update(features=[{"name": f"f{i}", "kind": "number", "source": "ext.f"} for i in range(257)])), "is a feature spec"),
    Case("a feature twice", metadata("spec", lambda d: d["features"].append(d["features"][0])), "is a feature spec"),
    Case("a feature of an unknown path", metadata("spec", lambda d: d["features"][0].update(source="device.geo.contry")), "is a feature spec"),
    Case("a feature nested 900 deep", metadata_text("spec", '{"features":[' + "[" * 900 + "]" * 900 + "]}"), "is a feature spec"),
    Case("another kind", metadata("spec", lambda d: d["features"][1].update(kind="number")), "hexadecimal doubles"),
    Case("another order of features", metadata("spec", lambda d: d["features"].reverse()), "inputs are those of the blueprint"),
    Case("a currency in lower case", metadata("price", lambda d: d.update(currency="eur")), "three upper-case letters"),
    Case("auction type 3", metadata("price", lambda d: d.update(default_auction_type=3)), "default auction type is 1 or 2"),
    Case("auction type true", metadata("price", lambda d: d.update(default_auction_type=True)), "canonical form"),
    Case("prices in micros", metadata("price", lambda d: d.update(unit="micros")), "prices are in CPM"),
    Case("a self-check of no rows", metadata("self_check", lambda d: [d[p].update({k: [] for k in d[p]}) for p in ("columns", "expected")] and None), "columns of equal length"),
    Case("a self-check of 257 rows", metadata("self_check", lambda d: [d[p].update({k: (v * 257)[:257] for k, v in d[p].items()}) for p in ("columns", "expected")] and None), "columns of equal length"),
    Case("a self-check without pctr", metadata("self_check", lambda d: d["expected"].pop("pctr") and None), "self-check's expected are"),
    Case("a self-check with more", metadata("self_check", lambda d: d["columns"].update(spare=d["columns"]["hour"])), "self-check's columns are"),
    Case("a self-check in decimals", metadata("self_check", lambda d: d["expected"].update(pctr=["0.5"] * 6)), "canonical form|hexadecimal"),
    Case("a self-check beyond doubles", metadata("self_check", lambda d: d["expected"].update(pctr=["0x1p99999"] * 6)), "hexadecimal doubles"),
    # bytes
    Case("an empty file", lambda d: b"", "has graph", of_bytes=True),
    Case("a byte more", lambda d: d + b"\0", "fields in order", of_bytes=True),
    Case("the file twice", lambda d: d + d, "fields in order", of_bytes=True),
    Case("a length of 2^62", lambda d: d.replace(b"\x3a", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x3f", 1), "is whole", of_bytes=True),
    Case("a number that does not end", lambda d: b"\x08" + b"\xff" * 12, "is whole", of_bytes=True),
    Case("a number in long form", lambda d: b"\x08\x8a\x00" + d[2:], "shortest form", of_bytes=True),
    Case("a pickle", lambda d: b"\x80\x04\x95" + d, "only known fields", of_bytes=True),
    Case("a zip", lambda d: b"PK\x03\x04" + d, "only known fields", of_bytes=True),
    Case("a page of zeros", lambda d: bytes(4096), "only known fields", of_bytes=True),
)  # fmt: skip


def file_of(case: Case) -> bytes:
    """The bytes of the changed file."""
    if case.of_bytes:
        return bytes(case.change(small_file()))  # type: ignore[arg-type]
    model = onnx.load_from_string(small_file())
    case.change(model)  # type: ignore[arg-type]
    return bytes(model.SerializeToString(deterministic=True))


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        for case in CASES:
            data = file_of(case)
            outcome.demand(data != small_file(), f"{case.name}: nothing has changed")
            write_model(data, path)
            outcome.trials += 1
            try:
                artifact = read_artifact(path)
            except ArtifactError as refusal:
                known = any(part in refusal.rule for part in case.rule.split("|"))
                outcome.demand(known, f"{case.name}: refused by another rule: {refusal}")
            except BaseException as error:
                outcome.broke(f"{case.name}: {error!r:.300}")
            else:
                outcome.broke(f"{case.name}: accepted; {out_of_bounds(artifact)}")
    _depths(outcome, range(0, 1_100, effort.of(short=550, ci=220, quick=45, long=1)))
    return outcome


def _depths(outcome: Outcome, depths: range) -> None:
    """Metadata nested as deeply as JSON is read, and a little less: nothing after it may break first."""
    model = onnx.load_from_string(small_file())
    for depth in depths:
        for key in ("spec", "price", "metrics", "provenance", "self_check", "contract"):
            row = next(row for row in model.metadata_props if row.key == f"bidml.{key}")
            kept = row.value
            for text in ("[" * depth + "]" * depth, _nest(depth)):
                for row.value in (
                    text,
                    f'{{"features":{text}}}',
                    f'{{"columns":{text}}}',
                    f'{{"version":{text}}}',
                ):
                    outcome.trials += 1
                    try:
                        parse_artifact(bytes(model.SerializeToString()))
                    except ArtifactError:
                        pass
                    except BaseException as error:
                        outcome.broke(f"{key}, {depth} deep: {error!r:.300}")
            row.value = kept


def _forget_the_structure() -> None:
    from bidml import bounds

    bounds._Checker._structure = lambda *arguments: None  # type: ignore[assignment,method-assign]


def _forget_unknown_fields() -> None:
    wire_module._GRAPH[15] = ("sparse_initializer", "messages")  # type: ignore[index]


def _accept_any_metadata() -> None:
    reader_module._canonical_metadata = lambda blueprint, check: ()


TWINS = {
    "python: no structure is checked": _forget_the_structure,
    "python: sparse initializers are read": _forget_unknown_fields,
    "python: metadata in any form": _accept_any_metadata,
}
