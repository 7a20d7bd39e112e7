"""Laws of hostile files: whatever the bytes, an artifact is exactly what the exporter writes, or `ArtifactError`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import tracemalloc
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from artifacts import CTR_KNOTS, complete_blueprint, isotonic_blueprint
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, CtrBlueprint
from bidml.contract import (
    CONTRACT_VERSION,
    METADATA_CONTRACT,
    METADATA_KEYS,
    METADATA_METRICS,
    METADATA_PRICE,
    METADATA_PROVENANCE,
    METADATA_SELF_CHECK,
    METADATA_SPEC,
)
from bidml.errors import ArtifactError
from bidml.export import model_bytes, rewritten_bytes, write_artifact
from bidml.metadata import SelfCheck
from bidml.score import Scorer
from bidml.score.reader import Artifact, parse_artifact, read_artifact
from bidml.self_check import self_check_of


def small_file(blueprint: Blueprint) -> bytes:
    """With four self-check rows."""
    check = self_check_of(blueprint, {})
    columns = {name: column[:4] for name, column in check.columns.items()}
    expected = {name: column[:4] for name, column in check.expected.items()}
    return model_bytes(blueprint, SelfCheck(columns, expected))


SMALL = small_file(complete_blueprint())
"""Every part of the format in some 20 KB, most of it the price."""
BENT = small_file(dataclasses.replace(isotonic_blueprint(), win=None))
"""With knots in both calibrations."""
SMALLER = small_file(dataclasses.replace(complete_blueprint(), win=None))
"""Trees, lookups, calibration and metadata without the price."""


def refused_or_canonical(data: bytes) -> bool:
    """True when refused; else the file must be, byte for byte, what the exporter writes for what was read in it."""
    try:
        artifact = parse_artifact(data)
    except ArtifactError:
        return True
    assert rewritten_bytes(data) == data
    try:
        Scorer(artifact).check_itself()
    except ArtifactError:
        return True
    return False


def test_the_small_file_is_an_artifact() -> None:
    """Otherwise everything below would be refused for nothing."""
    assert not refused_or_canonical(SMALL)
    assert not refused_or_canonical(SMALLER)
    assert len(SMALLER) < len(SMALL) < 30_000


def test_a_truncated_file_is_refused() -> None:
    """At 600 lengths, and at each of the first and last 200."""
    lengths = {*range(200), *range(len(SMALL) - 200, len(SMALL)), *range(0, len(SMALL), len(SMALL) // 600)}
    for length in lengths:
        with pytest.raises(ArtifactError):
            parse_artifact(SMALL[:length])


def test_bytes_after_the_end_are_refused() -> None:
    """Nothing hides behind the model."""
    for tail in (b"\0", b"\n", SMALL[:1], SMALL, b"\x72\x00"):
        with pytest.raises(ArtifactError):
            parse_artifact(SMALL + tail)


@pytest.mark.parametrize("whole", [SMALL, SMALLER, BENT], ids=["with price", "without price", "with knots"])
def test_a_changed_byte_is_refused_or_another_whole_artifact(whole: bytes) -> None:
    """300 changes: damage is refused; what still loads is another number or name, spelt as the exporter spells it."""
    rng = random.Random(8)
    refused = n = 0
    while n < 300:
        data = bytearray(whole)
        at = rng.randrange(len(data))
        data[at] = rng.choice([data[at] ^ (1 << rng.randrange(8)), rng.randrange(256), 0, 0xFF])
        if data != whole:
            refused += refused_or_canonical(bytes(data))
            n += 1
    assert refused > 240


def test_moved_removed_and_doubled_stretches_are_refused() -> None:
    """Lengths that lie, fields twice, fields out of order."""
    rng = random.Random(9)
    for _ in range(300):
        a, b = sorted(rng.sample(range(len(SMALL)), 2))
        b = min(b, a + rng.choice([1, 2, 8, 200]))
        for data in (SMALL[:a] + SMALL[b:], SMALL[:b] + SMALL[a:], SMALL[:a] + SMALL[a:b][::-1] + SMALL[b:]):
            if data != SMALL:
                refused_or_canonical(data)
        with pytest.raises(ArtifactError):
            parse_artifact(SMALL[a:b])


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_refused(data: bytes) -> None:
    """`ArtifactError` and nothing else."""
    with pytest.raises(ArtifactError):
        parse_artifact(data)


def test_a_length_that_promises_gigabytes_allocates_nothing() -> None:
    """It is compared with the bytes that are there first."""
    tracemalloc.start()
    for tag in (0x3A, 0x72, 0x12, 0x42):
        for length in (b"\xff\xff\xff\xff\x07", b"\xff" * 9 + b"\x01", b"\x80" * 9 + b"\x01"):
            with pytest.raises(ArtifactError):
                parse_artifact(bytes([tag]) + length)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_file_above_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most one byte more than the limit is read."""
    (tmp_path / "m.onnx").write_bytes(SMALL)
    monkeypatch.setattr("bidml.score.reader.MAX_FILE_BYTES", len(SMALL) - 1)
    with pytest.raises(ArtifactError, match="at most"):
        read_artifact(tmp_path / "m.onnx")
    with pytest.raises(ArtifactError, match="at most"):
        parse_artifact(SMALL)


# ---- valid ONNX that is not an artifact ------------------------------------------------------------------------


def edited(change: Callable[[onnx.ModelProto], object], data: bytes = SMALL) -> bytes:
    model = onnx.load_from_string(data)
    change(model)
    found: bytes = model.SerializeToString(deterministic=True)
    return found


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto:
    return next(attribute for attribute in node.attribute if attribute.name == name)


def _ints(model: onnx.ModelProto, name: str) -> Any:
    return _attribute(_node(model, "ctr.trees"), name).ints


def _external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _doubles_elsewhere(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(tensor).ravel().tolist()
    tensor.ClearField("raw_data")
    tensor.double_data.extend(values)


def _custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[-1].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)


def _changed_leaf(model: onnx.ModelProto) -> None:
    tensor = _attribute(_node(model, "ctr.trees"), "leaf_weights").t
    values = array("d", tensor.raw_data)
    values[0] += 1.0
    tensor.raw_data = values.tobytes()


EDITS: dict[str, Callable[[onnx.ModelProto], object]] = {
    "external data": _external_data,
    "doubles in another field": _doubles_elsewhere,
    "a custom operator": _custom_operator,
    "a function": lambda m: m.functions.add(name="f", domain="com.example"),
    "a training graph": lambda m: m.training_info.add(),
    "a subgraph": lambda m: m.graph.node[-1].attribute.add(name="then", type=onnx.AttributeProto.GRAPH).g.node.add(),
    "one more node": lambda m: m.graph.node.add(op_type="Identity", name="x", input=["pctr"], output=["x"]),
    "a node less": lambda m: m.graph.node.pop(),
    "nodes in another order": lambda m: m.graph.node.insert(0, m.graph.node.pop()),
    "a node twice": lambda m: m.graph.node.append(m.graph.node[0]),
    "another operator": lambda m: setattr(_node(m, "price.ceiling"), "op_type", "Max"),
    "an input of another node": lambda m: _node(m, "bid_cpm").input.__setitem__(1, "price.v"),
    "a node renamed": lambda m: setattr(_node(m, "price.v"), "name", "price.w"),
    "another constant": lambda m: setattr(m.graph.initializer[0], "raw_data", b"\0" * 8),
    "a constant twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "a constant more": lambda m: m.graph.initializer.append(onnx.helper.make_tensor("z", 11, [], [1.0])),
    "another output": lambda m: m.graph.output.pop(),
    "an input more": lambda m: m.graph.input.append(onnx.helper.make_tensor_value_info("z", 11, ["N", 1])),
    "a fixed batch": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 1),
    "float inputs": lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 1),
    "another opset": lambda m: setattr(m.opset_import[0], "version", 22),
    "another IR": lambda m: setattr(m, "ir_version", 9),
    "another producer": lambda m: setattr(m, "producer_name", "someone"),
    "a model version": lambda m: setattr(m, "model_version", 2),
    "a documentation string": lambda m: setattr(m, "doc_string", "hello"),
    "a graph's documentation": lambda m: setattr(m.graph, "doc_string", "hello"),
    "trees that average": lambda m: setattr(_attribute(_node(m, "ctr.trees"), "aggregate_function"), "i", 0),
    "trees with a sigmoid": lambda m: setattr(_attribute(_node(m, "ctr.trees"), "post_transform"), "i", 2),
    "trees of two targets": lambda m: setattr(_attribute(_node(m, "ctr.trees"), "n_targets"), "i", 2),
    "a leaf of another target": lambda m: _ints(m, "leaf_targetids").__setitem__(0, 1),
    "a negative child": lambda m: _ints(m, "nodes_truenodeids").__setitem__(0, -1),
    "a cycle": lambda m: _ints(m, "nodes_truenodeids").__setitem__(0, 0),
    "a column that is not there": lambda m: _ints(m, "nodes_featureids").__setitem__(0, 99),
    "an attribute twice": lambda m: _node(m, "ctr.trees").attribute.append(_node(m, "ctr.trees").attribute[0]),
    "an attribute less": lambda m: _node(m, "ctr.trees").attribute.pop(),
    "an infinite leaf": lambda m: setattr(
        _attribute(_node(m, "ctr.trees"), "leaf_weights").t, "raw_data",
        array("d", [float("inf")] * len(complete_blueprint().ctr.head.trees.leaf)).tobytes(),  # type: ignore[union-attr]
    ),
    "unknown metadata": lambda m: m.metadata_props.add(key="bidml.extra", value="{}"),
    "metadata twice": lambda m: m.metadata_props.append(m.metadata_props[0]),
    "metadata in another order": lambda m: m.metadata_props.insert(0, m.metadata_props.pop()),
    "no metadata": lambda m: m.ClearField("metadata_props"),
    "no graph": lambda m: m.ClearField("graph"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_a_model_that_the_exporter_would_not_write_is_refused(name: str) -> None:
    """Valid protocol buffers, often valid ONNX; never an artifact."""
    data = edited(EDITS[name])
    assert data != SMALL
    with pytest.raises(ArtifactError):
        parse_artifact(data)


def _knots(**changes: array[float]) -> bytes:
    """The file of a model whose knots are changed where they are written, and nowhere else by hand."""

    def change(model: onnx.ModelProto) -> None:
        knots = dataclasses.replace(CTR_KNOTS, **changes)
        n = max(len(knots.x), len(knots.y))
        x, y = knots.x, knots.y
        rows = {
            "start": [-float("inf"), *x], "end": [*x, float("inf")], "x": [*x[:1], *x], "y": [*y[:1], *y],
            "slope": [1.0] * (n + 1),
        }  # fmt: skip
        for tensor in model.graph.initializer:
            row = rows.get(tensor.name.removeprefix("calibration.knots."))
            if row is not None and tensor.name.startswith("calibration.knots."):
                tensor.dims[1], tensor.raw_data = len(row), array("d", row).tobytes()

    return edited(change, BENT)


MANY = array("d", range(65))
BROKEN_KNOTS = {
    "x that fall": ({"x": array("d", [-6.0, -4.5, -5.0, -2.5, 0.5])}, "the x of calibration.knots rise"),
    "an x twice": ({"x": array("d", [-6.0, -4.5, -4.5, -2.5, 0.5])}, "the x of calibration.knots rise"),
    "a NaN x": ({"x": array("d", [-6.0, -4.5, float("nan"), -2.5, 0.5])}, "knots are numbers"),
    "an infinite y": ({"y": array("d", [-5.0, -4.0, -3.0, -1.0, float("inf")])}, "knots are numbers"),
    "a y of 1e7": ({"y": array("d", [-5.0, -4.0, -3.0, -1.0, 1e7])}, "knots are numbers"),
    "y that fall": ({"y": array("d", [-5.0, -4.0, -4.5, -1.0, 0.5])}, "has a slope"),
    "a y twice": ({"y": array("d", [-5.0, -4.0, -4.0, -1.0, 0.5])}, "has a slope"),
    "a cliff": ({"x": array("d", [-6.0, -4.5, -4.4999, -2.5, 0.5])}, "has a slope"),
    "one knot": ({"x": array("d", [1.0]), "y": array("d", [1.0])}, "knots are 2 to 64"),
    "no knots": ({"x": array("d"), "y": array("d")}, "knots are 2 to 64"),
    "65 knots": ({"x": MANY, "y": MANY}, "knots are 2 to 64"),
    "fewer y than x": ({"y": array("d", [-5.0, -4.0, -3.0, -1.0])}, "with as many x as y"),
    "other slopes": ({}, "calibration.knots.slope"),
}


@pytest.mark.parametrize("name", BROKEN_KNOTS)
def test_knots_outside_the_bounds_are_refused(name: str) -> None:
    """By the rule that they break."""
    changes, rule = BROKEN_KNOTS[name]
    with pytest.raises(ArtifactError, match=rule):
        parse_artifact(_knots(**changes))


@pytest.mark.parametrize("name", ["start", "end", "x", "y", "slope", "ones"])
def test_a_table_of_knots_has_its_type_and_size(name: str) -> None:
    """Missing, of text, or shorter than the others."""

    def of(model: onnx.ModelProto) -> onnx.TensorProto:
        return next(t for t in model.graph.initializer if t.name == f"calibration.knots.{name}")

    def shorten(model: onnx.ModelProto) -> None:
        tensor = of(model)
        side = max(range(2), key=lambda i: tensor.dims[i])
        tensor.dims[side] -= 1
        tensor.raw_data = tensor.raw_data[:-8]

    def retype(model: onnx.ModelProto) -> None:
        tensor = of(model)
        n = len(tensor.raw_data) // 8
        tensor.ClearField("raw_data")
        tensor.data_type = onnx.TensorProto.STRING
        tensor.string_data.extend([b"1"] * n)

    for change in (shorten, retype, lambda model: model.graph.initializer.remove(of(model))):
        with pytest.raises(ArtifactError):
            parse_artifact(edited(change, BENT))


def test_an_edit_of_nothing_is_an_artifact() -> None:
    """The edits above are what is refused, not the re-serialisation."""
    assert edited(lambda model: None) == SMALL


def test_a_changed_leaf_fails_the_files_own_rows(tmp_path: Path) -> None:
    """A whole artifact of another model: its rows say so when it is loaded."""
    (tmp_path / "m.onnx").write_bytes(edited(_changed_leaf))
    with pytest.raises(ArtifactError, match="reproduces its own rows"):
        Scorer.load(tmp_path / "m.onnx")
    assert Scorer.load(tmp_path / "m.onnx", self_check=False)


def with_metadata(key: str, text: str) -> bytes:
    def change(model: onnx.ModelProto) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = text

    return edited(change)


def json_of(key: str) -> Any:
    model = onnx.load_from_string(SMALL)
    return json.loads(next(entry.value for entry in model.metadata_props if entry.key == key))


WRONG_JSON = [
    "", "null", "[]", "1", "{", '{"a":NaN}', '{"a":Infinity}', '{"a":1e999}', '{"a":"\\ud800"}', '{"a":1,"a":2}',
    '{"a": 1}',
    '{"b":1,"a":2}', "{}x", "\ufeff{}", '{"a":1.50}', '{"a":' + "9" * 5000 + "}", "[" * 100_000,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("key", METADATA_KEYS)
@pytest.mark.parametrize("text", WRONG_JSON, ids=lambda text: text[:12])
def test_metadata_that_is_not_canonical_json_is_refused(key: str, text: str) -> None:
    """Spaces, order, repeated keys, endless numbers and depths, NaN, half a surrogate pair."""
    with pytest.raises(ArtifactError):
        parse_artifact(with_metadata(key, text))


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        (METADATA_CONTRACT, {"version": CONTRACT_VERSION + 1}), (METADATA_CONTRACT, {"version": True}),
        (METADATA_CONTRACT, {"version": "1"}), (METADATA_CONTRACT, {"version": None}), (METADATA_CONTRACT, {"more": 1}),
        (METADATA_PRICE, {"currency": "euro"}), (METADATA_PRICE, {"currency": None}),
        (METADATA_PRICE, {"unit": "micros"}),
        (METADATA_PRICE, {"default_auction_type": 3}), (METADATA_PRICE, {"default_auction_type": True}),
        (METADATA_PRICE, {"gamma": 2.0}), (METADATA_PRICE, {"more": 1}),
        (METADATA_PRICE, {"family": "log_normal"}), (METADATA_PRICE, {"family": "log_logistic"}),
        (METADATA_PRICE, {"family": "weibull"}), (METADATA_PRICE, {"family": None}), (METADATA_PRICE, {"family": []}),
        (METADATA_SPEC, {"features": []}), (METADATA_SPEC, {"features": {}}), (METADATA_SPEC, {"features": "abc"}),
        (METADATA_SPEC, {"features": [None]}), (METADATA_SPEC, {"features": [{"name": "x"}]}),
        (METADATA_SPEC, {"features": [{"name": [], "kind": {}, "source": 1}]}),
        (METADATA_SPEC, {"features": [{"name": "x", "kind": "number", "source": "device.geo.contry"}]}),
        (METADATA_SPEC, {"timestamp_ms_source": "nowhere"}), (METADATA_SPEC, {"timestamp_ms_source": ["ext"]}),
        (METADATA_SPEC, {"timestamp_ms_source": None}), (METADATA_SPEC, {"more": 1}),
        (METADATA_SELF_CHECK, {"columns": {}}), (METADATA_SELF_CHECK, {"columns": None}),
        (METADATA_SELF_CHECK, {"columns": {"hour": ["0x1p+0"]}}), (METADATA_SELF_CHECK, {"expected": {"pctr": []}}),
        (METADATA_SELF_CHECK, {"expected": {"pctr": ["nan"] * 4}}), (METADATA_SELF_CHECK, {"expected": {"pctr": 1}}),
        (METADATA_SELF_CHECK, {"more": 1}),
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_contradicts_the_contract_is_refused(key: str, changes: dict[str, Any]) -> None:
    """In canonical form, of another version, currency, unit, spec, or with other rows."""
    text = json.dumps(json_of(key) | changes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    with pytest.raises(ArtifactError):
        parse_artifact(with_metadata(key, text))


@pytest.mark.parametrize(
    "cell", ["0x1p99999", "1.0", "0x1.0p+0 ", "inf", "-nan", "0X1P+0", 1.0, None, ["0x1p+0"], True]
)
def test_a_self_check_cell_has_one_spelling(cell: Any) -> None:
    """`float.hex` as Python writes it; infinities are numbers of a row, other spellings are not."""
    check = json_of(METADATA_SELF_CHECK)
    check["columns"]["lat"][0] = cell
    text = json.dumps(check, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if cell == "inf":
        assert parse_artifact(with_metadata(METADATA_SELF_CHECK, text)).self_check.columns["lat"][0] == float(
            "inf"
        )
    else:
        with pytest.raises(ArtifactError):
            parse_artifact(with_metadata(METADATA_SELF_CHECK, text))


@pytest.mark.parametrize("key", [METADATA_PROVENANCE, METADATA_METRICS])
def test_free_metadata_is_free_within_json(key: str) -> None:
    """The producer's own facts; they cannot change a bid."""
    text = '{"a":[1,2.5,null,true,"é"],"b":{}}'
    artifact = parse_artifact(with_metadata(key, text))
    assert text in json.dumps([dict(artifact.blueprint.provenance), dict(artifact.blueprint.metrics)],
                              separators=(",", ":"), ensure_ascii=False)  # fmt: skip


# ---- the manifest ----------------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Path:
    write_artifact(complete_blueprint(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_file_without_manifest_is_judged_by_itself(written: Path) -> None:
    """The manifest is the sender's word; the file's own rows are there without it."""
    written.with_name("m.onnx.json").unlink()
    artifact = read_artifact(written)
    assert artifact.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert Scorer.load(written).info()["sha256"] == artifact.sha256


def test_a_file_that_its_manifest_does_not_describe_is_refused(written: Path) -> None:
    """Any changed byte, also one that the file's own rows would not notice."""
    data = written.read_bytes()
    rng = random.Random(2)
    for _ in range(100):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        written.write_bytes(changed)
        with pytest.raises(ArtifactError, match="manifest"):
            Scorer.load(written)
    written.write_bytes(data)
    assert Scorer.load(written)


@pytest.mark.parametrize(
    "manifest",
    [b"", b"[]", b"null", b"{}", b"\xff", b"{" * 3000, b"x" * 10_000, b'{"bytes":1,"contract":1}',
     b'{"bytes":1,"contract":1,"sha256":"00"}', b'{"bytes":1,"contract":2,"sha256":"00"}'],
    ids=lambda data: repr(data[:20]),
)  # fmt: skip
def test_a_damaged_manifest_is_refused(written: Path, manifest: bytes) -> None:
    """Half a transfer is no transfer."""
    written.with_name("m.onnx.json").write_bytes(manifest)
    with pytest.raises(ArtifactError):
        Scorer.load(written)


# ---- the native constructor ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "index", "value"),
    [("true_child", 0, 10**6), ("true_child", 0, -5), ("false_child", 0, 0), ("column", 0, 77), ("column", 0, -1),
     ("roots", 1, 10**9), ("roots", 0, -1), ("mode", 0, 9), ("leaf", 0, float("nan")), ("threshold", 0, float("nan"))],
)  # fmt: skip
def test_arrays_are_checked_again_behind_the_reader(field: str, index: int, value: Any) -> None:
    """A blueprint that skipped the bounds reaches no memory: the engine refuses it."""
    whole = complete_blueprint()
    assert whole.ctr is not None
    assert whole.ctr.head.trees is not None
    arrays = {
        f.name: getattr(whole.ctr.head.trees, f.name)[:] for f in dataclasses.fields(whole.ctr.head.trees)
    }
    arrays[field][index] = value
    head = dataclasses.replace(whole.ctr.head, trees=type(whole.ctr.head.trees)(**arrays))
    with pytest.raises(ArtifactError, match="native engine"):
        Scorer(Artifact(dataclasses.replace(whole, ctr=CtrBlueprint(head)), SelfCheck({}, {}), ""))
