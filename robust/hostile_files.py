"""Model files: every byte takes every value, every length, with the digest check off; then with it on.

Held: the reader raises `ArtifactError` and nothing else; what it accepts is a file the exporter could have written,
byte by byte; a scorer of it never leaves its bounds on any row; with the manifest beside it, no changed file is
accepted at all.
"""

from __future__ import annotations

import hashlib
import math
import struct
import tempfile
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import INF, NAN

from bidml import export
from bidml.blueprint import CrossLookup
from bidml.contract import GOAL_INPUTS, MAX_VARIANCE, MIN_VARIANCE, PRICE_INPUTS, RISK_INPUTS, FeatureKind
from bidml.errors import ArtifactError
from bidml.export import write_model
from bidml.graph import graph_of
from bidml.metadata import MARGINS, metadata_of
from bidml.score import Scorer
from bidml.score import reader as reader_module
from bidml.score import wire as wire_module
from bidml.score._native import isa_available
from bidml.score.batch import BATCH_OUTPUTS
from bidml.score.reader import Artifact, parse_artifact, read_artifact
from robust import accepted_files
from robust.models import small_file, tiny_files
from robust.outcome import WHOLE, Effort, Outcome, Share

N_ROWS = 64
Reader = Callable[[bytes], Artifact]
ISAS = [isa for isa in ("scalar", "avx2", "avx512") if isa_available(isa)]
_NUMBERS = (NAN, 0.0, -0.0, 0.5, 1.0, 12.0, 300.0, 320.0, 1e300, -1e300, INF, -INF, 5e-324)
_TEXTS = ("", "iOS", "USA", "DEU", "320x50", "unseen", "x" * 2_000)


def attack(effort: Effort, rng: np.random.Generator, share: Share = WHOLE) -> Outcome:
    outcome = Outcome()
    accepted: list[bytes] = []
    for name, data in tiny_files().items():
        step = effort.of(short=97, ci=1, quick=1, long=1)
        one_in = effort.of(short=1, ci=48, quick=1, long=1)
        read = _reader_of_damaged(data)
        for position in range(0, len(data), step):
            if not share.has(position // step):
                continue
            changed = bytearray(data)
            for value in range(position % one_in, 256, one_in):
                if value != data[position]:
                    changed[position] = value
                    _one(outcome, bytes(changed), f"{name}, byte {position} = {value}", accepted, read)
            _one(outcome, data[:position], f"{name}, the first {position} bytes", accepted)
        if share.index == 0:
            _doubles(outcome, name, data, accepted)
        outcome.note(f"{name}: {len(data)} bytes, one value in {one_in}, every length")
        if effort is Effort.LONG:
            accepted_files.leave(accepted, share)  # a run of limited time may not come to the end
    several = effort.of(short=300, ci=1_000, quick=10_000, long=8_000_000) // share.of
    _several(outcome, small_file(), rng, several, accepted)
    outcome.note(f"{outcome.trials:,} files without digest, {len(accepted):,} accepted")
    outcome.note(f"{len(accepted) * N_ROWS:,} pairs of an accepted file and a row")
    _with_manifest(outcome, rng, effort.of(short=50, ci=1_000, quick=10_000, long=100_000) // share.of)
    if share.of > 1:
        accepted_files.leave(accepted, share)
    return outcome


def _one(
    outcome: Outcome, data: bytes, what: str, accepted: list[bytes], read: Reader = parse_artifact
) -> None:
    """Read `data`, and use it if it is accepted. `read` may be faster: every 64th file shows that it is the same."""
    outcome.trials += 1
    try:
        artifact, refusal = read(data), ""
    except ArtifactError as error:
        artifact, refusal = None, error.rule
    except BaseException as error:
        outcome.broke(f"{what}: {error!r}", data)
        return
    if read is not parse_artifact and outcome.trials % 64 == 0:
        outcome.demand(_rule(data) == refusal, f"{what}: two readings, {_rule(data)!r} and {refusal!r}")
    if artifact is None:
        return
    accepted.append(data)
    if _written(artifact) != data:
        outcome.broke(f"{what}: accepted, though the exporter would write something else", data)
    try:
        outside = out_of_bounds(artifact, isa=ISAS[outcome.trials % len(ISAS)])
    except BaseException as error:
        outside = repr(error)
    if outside:
        outcome.broke(f"{what}: accepted, then {outside}", data)


def _rule(data: bytes) -> str:
    """The rule by which the reader as it is refuses `data`; empty when it does not."""
    try:
        parse_artifact(data)
    except ArtifactError as error:
        return error.rule
    return ""


def _reader_of_damaged(data: bytes) -> Reader:
    """`parse_artifact` for files that differ from `data` in a byte: what is as in `data` is read once.

    A message's fields are a function of its bytes and its schema; its tensor or node is one of the message.
    """
    names = ("_Message", "_tensor", "_node", "_value")
    real = {name: getattr(wire_module, name) for name in names}
    known: dict[tuple[str, bytes], Any] = {}
    made: dict[Any, Any] = {}

    def message(data: bytes, start: int, end: int, where: str, schema: Any) -> Any:
        key = where, data[start:end]
        return known.get(key) or real["_Message"](data, start, end, where, schema)

    def first(data: bytes, start: int, end: int, where: str, schema: Any) -> Any:
        known[where, data[start:end]] = found = real["_Message"](data, start, end, where, schema)
        return found

    def once(name: str) -> Callable[[Any], Any]:
        def of(message: Any) -> Any:
            return made.get(message) or real[name](message)

        return of

    def first_of(name: str) -> Callable[[Any], Any]:
        def of(message: Any) -> Any:
            made[message] = found = real[name](message)
            return found

        return of

    shared = {"_Message": message, **{name: once(name) for name in names[1:]}}
    firsts = {"_Message": first, **{name: first_of(name) for name in names[1:]}}

    def read(data: bytes, parts: dict[str, Any] = shared) -> Artifact:
        wire_module.__dict__.update(parts)
        try:
            return parse_artifact(data)
        finally:
            wire_module.__dict__.update(real)

    read(data, firsts)
    return read


def _written(artifact: Artifact) -> bytes:
    """`rewritten_bytes` without onnx's own checker, which looks at the same file each time."""
    model = export._model(graph_of(artifact.blueprint), metadata_of(artifact.blueprint, artifact.self_check))
    return bytes(model.SerializeToString(deterministic=True))


def _doubles(outcome: Outcome, name: str, data: bytes, accepted: list[bytes]) -> None:
    """Every double of the model where its bytes lie in the file becomes NaN, infinite, huge, tiny."""
    blueprint = parse_artifact(data).blueprint
    heads = [part.head for part in (blueprint.ctr, blueprint.cvr) if part]
    heads += [blueprint.ctr.variance] if blueprint.ctr and blueprint.ctr.variance else []
    heads += [blueprint.win.location, blueprint.win.log_slope] if blueprint.win else []
    values: set[float] = set()
    for head in heads:
        values |= {head.intercept, head.scale, head.divisor}
        for lookup in head.lookups:
            values |= {*lookup.values, lookup.default}
            if isinstance(lookup, CrossLookup):
                values |= {*lookup.codes}
        if head.trees is not None:
            values |= {*head.trees.leaf, *head.trees.threshold, *head.trees.membership}
    for value in values:
        old = struct.pack("<d", value)
        at = data.find(old)
        while at >= 0:
            for wrong in (NAN, INF, -INF, 1e300, -1e300, 1e-300, -1.0, -0.0):
                changed = data[:at] + struct.pack("<d", wrong) + data[at + 8 :]
                _one(outcome, changed, f"{name}, a double at {at} is {wrong}", accepted)
            at = data.find(old, at + 1)


def _several(outcome: Outcome, data: bytes, rng: np.random.Generator, n: int, accepted: list[bytes]) -> None:
    """Random damage to a file with everything in it: bytes changed, runs cut out, doubled, moved, zeroed."""
    for trial in range(n):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            at, size = int(rng.integers(len(changed))), int(rng.integers(1, 40))
            match rng.integers(6):
                case 0 | 1:
                    changed[at] = int(rng.integers(256))
                case 2:
                    del changed[at : at + size]
                case 3:
                    changed[at:at] = changed[at : at + size]
                case 4:
                    changed[at:at] = data[-size:]
                case _:
                    changed[at : at + size] = bytes(len(changed[at : at + size]))
        if changed != data:
            _one(outcome, bytes(changed), f"the small file, damage {trial}", accepted)


def rows_of(artifact: Artifact, n_rows: int = N_ROWS) -> dict[str, Any]:
    """Columns of `n_rows` rows over the model's inputs, of values that hurt."""
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for feature in artifact.blueprint.spec.features:
        pool = _TEXTS if feature.kind is FeatureKind.CATEGORY else _NUMBERS
        cells = [pool[i] for i in rng.integers(len(pool), size=n_rows)]
        columns[feature.name] = cells if feature.kind is FeatureKind.CATEGORY else array("d", cells)
    ctr = artifact.blueprint.ctr
    risks = RISK_INPUTS if ctr is not None and ctr.variance is not None else ()
    for name in PRICE_INPUTS + GOAL_INPUTS + risks:
        columns[name] = array(
            "d", rng.choice([0.0, 0.5, 1.0, 1.0, 2.0, 30.0, NAN, INF, -1.0, 1e-9, 1e9], size=n_rows)
        )
    return columns


def out_of_bounds(artifact: Artifact, *, isa: str = "best") -> str | None:
    """How a scorer of the artifact leaves its bounds, on rows of `rows_of`; None when it does not."""
    try:
        scorer = Scorer(artifact, isa=isa)
    except ArtifactError as refusal:
        return f"the engine refuses what the reader accepted: {refusal}"
    blueprint = artifact.blueprint
    n_rows = N_ROWS
    columns = rows_of(artifact, n_rows)
    names = [name for name in BATCH_OUTPUTS if name in artifact.self_check.expected]
    found = {name: array("d", bytes(8 * n_rows)) for name in names}
    scorer.score_many(columns, found)
    for name in names:
        for row, x in enumerate(found[name]):
            if name in MARGINS or name == "win_location":
                good = math.isfinite(x)
            elif name == "win_shape":
                good = 0.0 < x < INF
            elif name == "pctr_log_odds_sd":
                good = MIN_VARIANCE**0.5 <= x <= MAX_VARIANCE**0.5
            elif name == "bid_cpm":
                top = columns["cap_cpm"][row]
                good = x == 0.0 or (x > 0.0 and columns["floor_cpm"][row] <= x <= top)
            else:
                good = 0.0 <= x <= 1.0
            if not good:
                return f"{name} is {x!r} in row {row} of {blueprint.spec.names}"
    return None


def _with_manifest(outcome: Outcome, rng: np.random.Generator, n: int) -> None:
    """The digest is on: a file that is not the manifest's is refused, whatever else it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        data = small_file()
        write_model(data, path)
        outcome.demand(
            read_artifact(path).sha256 == hashlib.sha256(data).hexdigest(), "the file itself is refused"
        )
        for other in tiny_files().values():
            path.write_bytes(other)
            outcome.trials += 1
            try:
                read_artifact(path)
                outcome.broke("another artifact beside the manifest is accepted")
            except ArtifactError:
                pass
        for _ in range(n):
            changed = bytearray(data)
            position = int(rng.integers(len(data)))
            changed[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(changed)
            outcome.trials += 1
            try:
                read_artifact(path)
                outcome.broke(f"a changed byte {position} beside the manifest of another file")
            except ArtifactError:
                pass


def _accept_any_graph() -> None:
    reader_module._demand_same_graph = lambda made, found: None


def _accept_any_digest() -> None:
    real = reader_module.manifest_of
    reader_module.manifest_of = lambda data: real(data) and None  # type: ignore[assignment,return-value]


def _check_no_bounds() -> None:
    reader_module.check_blueprint = lambda blueprint, *, error: None


TWINS = {
    "python: bounds are not checked": _check_no_bounds,
    "python: any graph is accepted": _accept_any_graph,
    "python: any digest is accepted": _accept_any_digest,
}
