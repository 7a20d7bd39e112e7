"""A file → a blueprint, or `ArtifactError`.

The blueprint is taken from the named parts of the parsed graph; then graph and metadata are made again from
it and must equal what the file holds. So a file is either exactly what the exporter writes for some
blueprint inside the bounds, or refused. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Final

from bidml.blueprint import (
    Blueprint,
    Calibration,
    Column,
    CrossLookup,
    CtrBlueprint,
    Head,
    Knots,
    LocationUnit,
    Lookup,
    Rewrite,
    Trees,
    Vocabulary,
    WinBlueprint,
    WinFamily,
)
from bidml.bounds import check_blueprint
from bidml.contract import (
    CONTRACT_VERSION,
    IR_VERSION,
    MAX_FILE_BYTES,
    METADATA_KEYS,
    ML_OPSET,
    OPSET,
    SD_OUTPUTS,
)
from bidml.errors import ArtifactError, ExportError
from bidml.graph import GRAPH_NAME, graph_of
from bidml.graph_parts import DOUBLE, ML_DOMAIN, STRING, UINT8, Graph, Node, Tensor
from bidml.graph_price import CVR_CALIBRATION, LOG_PRICE_NODE
from bidml.metadata import SelfCheck, expected_names, input_kinds, metadata_of, read_metadata
from bidml.score.wire import ParsedModel, parse_model

PRODUCER: Final = "bidml"
OPSETS: Final = (("", OPSET), (ML_DOMAIN, ML_OPSET))
MANIFEST_SUFFIX: Final = ".json"
MAX_MANIFEST_BYTES: Final = 4096
_DAMAGED: Final = "the file is damaged or altered: export or fetch it again"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a file holds: the model, its own check, and the SHA-256 of its bytes (hexadecimal).

    `data`: the bytes; empty for a model that was never in a file.
    """

    blueprint: Blueprint
    self_check: SelfCheck
    sha256: str
    data: bytes = field(default=b"", repr=False, compare=False)


def read_artifact(path: str | Path) -> Artifact:
    """The artifact at `path`. When a manifest (`<path>.json`) lies beside it, size and digest must agree.

    The file is read into private memory once. Raises `ArtifactError`; `OSError` when it cannot be opened.
    """
    path = Path(path)
    manifest = path.with_name(path.name + MANIFEST_SUFFIX)
    data = _read_at_most(path, MAX_FILE_BYTES)
    expected = manifest_of(_read_at_most(manifest, MAX_MANIFEST_BYTES)) if manifest.exists() else None
    digest = hashlib.sha256(data).hexdigest()
    if expected is not None and expected != (digest, len(data)):
        raise ArtifactError(
            f"{path.name} is the file its manifest describes: {expected[1]} bytes, sha256 {expected[0]}",
            value=f"{len(data)} bytes, sha256 {digest}",
            remedy="fetch both files again",
        )
    return parse_artifact(data, sha256=digest)


def parse_artifact(data: bytes, *, sha256: str | None = None) -> Artifact:
    """The artifact in `data`; raises `ArtifactError` and nothing else. `sha256`: of `data`, when known."""
    if len(data) > MAX_FILE_BYTES:
        raise ArtifactError(
            f"an artifact has at most {MAX_FILE_BYTES} bytes", value=len(data), remedy="train a smaller model"
        )
    model = parse_model(data)
    _check_envelope(model)
    meta = read_metadata(dict(model.metadata))
    parts = _Parts(model.graph)
    has_ctr, has_cvr = "pctr" in parts.nodes, "pcvr" in parts.nodes
    has_win = "win_shape" in parts.nodes
    blueprint = Blueprint(
        spec=meta.spec,
        ctr=parts.probability("ctr", "calibration") if has_ctr else None,
        cvr=parts.probability("cvr", CVR_CALIBRATION) if has_cvr else None,
        win=parts.win(meta.family) if has_win else None,
        currency=meta.currency,
        default_auction_type=meta.default_auction_type,
        provenance=meta.provenance,
        metrics=meta.metrics,
    )
    check_blueprint(blueprint, error=ArtifactError)
    _demand_same_graph(graph_of(blueprint), model.graph)
    _check_rows(blueprint, meta.self_check)
    if _canonical_metadata(blueprint, meta.self_check) != model.metadata:
        raise ArtifactError(
            "metadata is in canonical form", value="another order or spelling", remedy=_DAMAGED
        )
    return Artifact(blueprint, meta.self_check, sha256 or hashlib.sha256(data).hexdigest(), data)


def _canonical_metadata(blueprint: Blueprint, self_check: SelfCheck) -> tuple[tuple[str, str], ...]:
    try:
        return tuple(metadata_of(blueprint, self_check).items())
    except ExportError as error:  # lone surrogates, infinities: JSON reads what it does not write
        raise ArtifactError(error.rule, value=error.value, remedy=_DAMAGED) from None


def manifest_of(data: bytes) -> tuple[str, int]:
    """(sha256, size) of a manifest's JSON; raises `ArtifactError`."""
    try:
        document = json.loads(data)
        digest, size, contract = document["sha256"], document["bytes"], document["contract"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ArtifactError(
            "a manifest is JSON with sha256, bytes and contract", value=data[:100], remedy="fetch it again"
        ) from None
    if contract != CONTRACT_VERSION:
        raise ArtifactError(
            f"this bidml reads artifacts of contract version {CONTRACT_VERSION}",
            value=contract,
            remedy="export the model with this version, or use the version that wrote it",
        )
    return digest, size


def _read_at_most(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ArtifactError(
            f"{path.name} has at most {limit} bytes", value="more", remedy="this is not bidml's file"
        )
    return data


def _check_envelope(model: ParsedModel) -> None:
    for what, found, wanted in (
        ("ir_version", model.ir_version, IR_VERSION),
        ("producer_name", model.producer_name, PRODUCER),
        ("operator set imports", model.opsets, OPSETS),
        ("graph name", model.graph_name, GRAPH_NAME),
        ("metadata keys, in order,", tuple(key for key, _ in model.metadata), METADATA_KEYS),
    ):
        if found != wanted:
            raise ArtifactError(
                f"an artifact's {what} is {wanted}", value=found, remedy="export the model with bidml"
            )


class _Parts:
    """The blueprint's pieces, by the names that `graph_of` gives them. Only types are checked here."""

    def __init__(self, graph: Graph) -> None:
        self.nodes: dict[str, Node] = {}
        for node in graph.nodes:
            if node.name in self.nodes:
                raise ArtifactError("a node's name is unique", value=node.name, remedy=_DAMAGED)
            self.nodes[node.name] = node
        self._initializers = graph.initializers
        self._lookups: dict[str, Lookup | CrossLookup] = {}
        self._vocabularies: dict[str, Vocabulary] = {}

    def probability(self, head: str, calibration: str) -> CtrBlueprint:
        positive = self._number(f"{calibration}.positive", 1.0)
        found = Calibration(
            positive=positive,
            negative=self._number(f"{calibration}.negative", positive),
            shift=self._number(f"{calibration}.shift", 0.0),
            knots=self._knots(f"{calibration}.knots"),
        )
        has_variance = head == "ctr" and SD_OUTPUTS[0] in self.nodes
        return CtrBlueprint(self._head(head), found, self._head("variance") if has_variance else None)

    def win(self, family: WinFamily) -> WinBlueprint:
        return WinBlueprint(
            location=self._head("location"),
            log_slope=self._head("log_slope"),
            reference_log_bid_cpm=self._number("win.reference_log_bid_cpm", nan),
            slope_scale=self._number("win.slope_scale", nan),
            logit_shift=self._number("win.logit_shift", nan),
            gamma=self._number("win.gamma", nan),
            location_unit=LocationUnit.LOG_PRICE if LOG_PRICE_NODE in self.nodes else LocationUnit.LOG_ODDS,
            family=family,
        )

    def _head(self, head: str) -> Head:
        n_terms = 0
        while f"{head}.term.{n_terms}" in self.nodes:
            n_terms += 1
        terms = tuple(self._term(self.nodes[f"{head}.term.{i}"]) for i in range(n_terms))
        if f"{head}.trees" not in self.nodes:
            return Head((), None, terms, intercept=self._number(f"{head}.intercept", 0.0))
        columns = self.nodes.get(f"{head}.columns")
        if columns is None:
            raise ArtifactError(f"{head}.trees read {head}.columns", value="no such node", remedy=_DAMAGED)
        return Head(
            columns=tuple(map(self._column, columns.inputs)),
            trees=self._trees(self.nodes[f"{head}.trees"]),
            terms=terms,
            intercept=self._number(f"{head}.intercept", 0.0),
            scale=self._number(f"{head}.scale", 1.0),
            divisor=self._number(f"{head}.divisor", 1.0),
        )

    def _knots(self, name: str) -> Knots | None:
        if f"{name}.bent" not in self.nodes:
            return None
        return Knots(x=self._row(f"{name}.x")[1:], y=self._row(f"{name}.y")[1:])

    def _row(self, name: str) -> Any:
        tensor = self._initializers.get(name)
        if tensor is None or tensor.dtype != DOUBLE:
            raise ArtifactError(f"{name} is a row of doubles", value=tensor and tensor.dtype, remedy=_DAMAGED)
        return tensor.data

    def _number(self, name: str, absent: float) -> float:
        tensor = self._initializers.get(name) or self._initializers.get(f"{name}.value")
        if tensor is None:
            return absent
        if tensor.dtype != DOUBLE or len(tensor.data) != 1:
            raise ArtifactError(f"{name} is one double", value=(tensor.dtype, tensor.dims), remedy=_DAMAGED)
        return float(tensor.data[0])

    def _term(self, node: Node) -> Lookup | CrossLookup:
        if len(node.inputs) != 2:
            raise ArtifactError(f"{node.name} adds two values", value=node.inputs, remedy=_DAMAGED)
        return self._lookup(node.inputs[1])

    def _column(self, source: str) -> Column:
        for rewrite in (Rewrite.ZERO_IS_MISSING, Rewrite.TRUNCATE):
            if source.endswith(f".{rewrite.value}"):
                return self._plain_column(source.removesuffix(f".{rewrite.value}"), rewrite)
        return self._plain_column(source, Rewrite.NONE)

    def _plain_column(self, source: str, rewrite: Rewrite) -> Column:
        if not source.startswith("lookup."):
            return Column(source, None, rewrite)
        lookup = self._lookup(source)
        return Column(lookup.feature, lookup, rewrite)

    def _lookup(self, name: str) -> Lookup | CrossLookup:
        if name not in self._lookups:
            node = self._node(name, n_inputs=1)
            default = self._tensor(node, "default_tensor", DOUBLE)
            if len(default) != 1:
                raise ArtifactError(f"{name} has one default", value=len(default), remedy=_DAMAGED)
            values = self._tensor(node, "values_tensor", DOUBLE)
            (source,) = node.inputs
            if source.startswith("cross."):
                first, second = self._crossed(source)
                codes = self._tensor(node, "keys_tensor", DOUBLE)
                self._lookups[name] = CrossLookup(first, second, codes, values, default[0])
            else:
                keys = self._tensor(node, "keys_tensor", STRING)
                self._lookups[name] = Lookup(source, keys, values, default[0])
        return self._lookups[name]

    def _crossed(self, name: str) -> tuple[Vocabulary, Vocabulary]:
        scaled, second = self._node(name, n_inputs=2).inputs
        first, _ = self._node(scaled, n_inputs=2).inputs
        return self._vocabulary(first), self._vocabulary(second)

    def _vocabulary(self, name: str) -> Vocabulary:
        if name not in self._vocabularies:
            node = self._node(name, n_inputs=1)
            keys = self._tensor(node, "keys_tensor", STRING)
            self._vocabularies[name] = Vocabulary(node.inputs[0], keys)
        return self._vocabularies[name]

    def _node(self, name: str, *, n_inputs: int) -> Node:
        node = self.nodes.get(name)
        if node is None or len(node.inputs) != n_inputs:
            raise ArtifactError(
                f"{name} is a node of {n_inputs} inputs", value=node and node.inputs, remedy=_DAMAGED
            )
        return node

    def _trees(self, node: Node) -> Trees:
        has_sets = "membership_values" in node.attributes
        return Trees(
            roots=self._integers(node, "tree_roots"),
            column=self._integers(node, "nodes_featureids"),
            mode=self._tensor(node, "nodes_modes", UINT8),
            threshold=self._tensor(node, "nodes_splits", DOUBLE),
            true_child=self._integers(node, "nodes_truenodeids"),
            false_child=self._integers(node, "nodes_falsenodeids"),
            true_is_leaf=self._integers(node, "nodes_trueleafs"),
            false_is_leaf=self._integers(node, "nodes_falseleafs"),
            missing_true=self._integers(node, "nodes_missing_value_tracks_true"),
            membership=self._tensor(node, "membership_values", DOUBLE) if has_sets else array("d"),
            leaf=self._tensor(node, "leaf_weights", DOUBLE),
        )

    def _tensor(self, node: Node, name: str, dtype: str) -> Any:
        tensor = node.attributes.get(name)
        if not isinstance(tensor, Tensor) or tensor.dtype != dtype:
            raise ArtifactError(
                f"{name} of {node.name} is a tensor of {dtype}", value=type(tensor), remedy=_DAMAGED
            )
        return tensor.data

    def _integers(self, node: Node, name: str) -> array[int]:
        values = node.attributes.get(name)
        if not isinstance(values, array):
            raise ArtifactError(
                f"{name} of {node.name} is a list of integers", value=type(values), remedy=_DAMAGED
            )
        return values


def _demand_same_graph(made: Graph, found: Graph) -> None:
    """The law of the format: the file holds the graph of its blueprint and nothing else."""
    for what, want, have in (
        ("inputs", made.inputs, found.inputs),
        ("outputs", made.outputs, found.outputs),
        ("initializers", list(made.initializers), list(found.initializers)),
        ("nodes", [node.name for node in made.nodes], [node.name for node in found.nodes]),
    ):
        if want != have:
            differing = next(
                (pair for pair in zip(want, have, strict=False) if pair[0] != pair[1]), (len(want), len(have))
            )
            raise ArtifactError(
                f"the {what} are those of the blueprint: {differing[0]}", value=differing[1], remedy=_DAMAGED
            )
    for name, tensor in made.initializers.items():
        if tensor != found.initializers[name]:
            raise ArtifactError(
                f"constant {name} is {_shown(tensor)}",
                value=_shown(found.initializers[name]),
                remedy=_DAMAGED,
            )
    for want_node, have_node in zip(made.nodes, found.nodes, strict=True):
        _demand_same_node(want_node, have_node)


def _demand_same_node(made: Node, found: Node) -> None:
    if (made.op, made.domain, made.inputs) != (found.op, found.domain, found.inputs):
        raise ArtifactError(
            f"node {made.name} is {made.domain} {made.op}{made.inputs}",
            value=f"{found.domain} {found.op}{found.inputs}",
            remedy=_DAMAGED,
        )
    if list(made.attributes) != list(found.attributes):
        raise ArtifactError(
            f"node {made.name} has the attributes {list(made.attributes)}",
            value=list(found.attributes),
            remedy=_DAMAGED,
        )
    for name, value in made.attributes.items():
        if value != found.attributes[name]:
            raise ArtifactError(
                f"attribute {name} of {made.name} is as the blueprint says",
                value="another value",
                remedy=_DAMAGED,
            )


def _shown(tensor: Tensor) -> object:
    return tensor.data[0] if len(tensor.data) == 1 else tensor.dims


def _check_rows(blueprint: Blueprint, check: SelfCheck) -> None:
    for part, found, wanted in (
        ("columns", check.columns, tuple(input_kinds(blueprint))),
        ("expected", check.expected, expected_names(blueprint)),
    ):
        if set(found) != set(wanted):
            raise ArtifactError(
                f"the self-check's {part} are {sorted(wanted)}", value=sorted(found), remedy=_DAMAGED
            )
    lengths = {len(column) for column in _all_columns(check)}
    if len(lengths) != 1:
        raise ArtifactError(
            "the self-check's columns are of one length", value=sorted(lengths), remedy=_DAMAGED
        )


def _all_columns(check: SelfCheck) -> list[Any]:
    columns: Mapping[str, Any] = check.columns
    return [*columns.values(), *check.expected.values()]
