"""The certificate: independent evaluations of one file agree, on the rows that the file carries.

The trees are bit-equal, summed in tree order; what follows (exp, ln, the price) agrees to 1e-12 relative.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from bidml.errors import CertificateError
from bidml.metadata import MARGINS, TOLERANCE, SelfCheck, difference
from bidml.oracle import evaluate
from bidml.score.reader import Artifact, parse_artifact, read_artifact

Evaluate = Callable[[bytes, SelfCheck], Mapping[str, Sequence[float]]]


@dataclass(frozen=True, slots=True)
class Evaluator:
    """One way to compute an artifact. `tree_order`: it adds the trees in order, so margins are bit-equal."""

    name: str
    evaluate: Evaluate
    tree_order: bool


@dataclass(frozen=True, slots=True)
class Certificate:
    """`differences`: evaluator → output → the largest relative difference from the rows' expected values."""

    sha256: str
    n_rows: int
    differences: Mapping[str, Mapping[str, float]]


def certify(data: bytes, *, evaluators: Sequence[Evaluator]) -> Certificate:
    """Read `data` as the bidder would, and replay its rows through the oracle and each evaluator.

    Raises `ArtifactError` for bytes that the reader refuses, `CertificateError` for a difference.
    """
    artifact = parse_artifact(data)
    every = (ORACLE, *evaluators)
    differences = {e.name: _differences(e, artifact, e.evaluate(data, artifact.self_check)) for e in every}
    return Certificate(artifact.sha256, artifact.self_check.n_rows, differences)


def verify(path: str | Path, *, evaluators: Sequence[Evaluator] | None = None) -> Certificate:
    """The certificate of the artifact at `path`; its manifest, if any, must agree."""
    read_artifact(path)
    return certify(
        Path(path).read_bytes(), evaluators=DEFAULT_EVALUATORS if evaluators is None else evaluators
    )


def _differences(
    evaluator: Evaluator, artifact: Artifact, found: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    largest = {}
    win = artifact.blueprint.win
    compare = partial(difference, family=win.family if win else None)
    for name, expected in artifact.self_check.expected.items():
        exact = name in MARGINS and evaluator.tree_order
        scores = [compare(name, want, have) for want, have in zip(expected, found[name], strict=True)]
        largest[name] = max(scores)
        limit = 0.0 if exact else TOLERANCE
        for row, score in enumerate(scores):
            if not score <= limit:
                raise CertificateError(
                    f"{evaluator.name} computes {name} as the artifact's row {row} says: {expected[row]!r}",
                    value=float(found[name][row]),
                    remedy="do not publish this file; report the model that made it",
                )
    return largest


def _evaluate_by_oracle(data: bytes, check: SelfCheck) -> Mapping[str, Sequence[float]]:
    return evaluate(parse_artifact(data).blueprint, check.columns)


def _evaluate_by_onnxruntime(data: bytes, check: SelfCheck) -> Mapping[str, Sequence[float]]:
    """The outputs from the file as it is; the margins from a copy that has them as outputs."""
    import numpy as np
    import onnx
    import onnxruntime

    feeds = {
        name: np.array(column, dtype=object if isinstance(column, tuple) else np.float64).reshape(-1, 1)
        for name, column in check.columns.items()
    }
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more threads add the leaves in another order
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    found: dict[str, Sequence[float]] = {}
    for model, names in (
        (data, [name for name in check.expected if name not in MARGINS]),
        (_with_margins(onnx.load_from_string(data)), [name for name in check.expected if name in MARGINS]),
    ):
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        values = session.run([name.replace("_margin", ".margin") for name in names], feeds)
        found |= {name: value.ravel().tolist() for name, value in zip(names, values, strict=True)}
    return found


def _with_margins(model: Any) -> bytes:
    import onnx

    for node in model.graph.node:
        if node.name.endswith(".margin"):
            value = onnx.helper.make_tensor_value_info(node.name, onnx.TensorProto.DOUBLE, ["N", 1])
            model.graph.output.append(value)
    data: bytes = model.SerializeToString()
    return data


def _evaluate_by_scorer(data: bytes, check: SelfCheck) -> Mapping[str, Sequence[float]]:
    from bidml.score import Scorer

    found = {name: array("d", bytes(8 * check.n_rows)) for name in check.expected}
    Scorer(parse_artifact(data)).score_many(check.columns, found)
    return found


ORACLE: Final = Evaluator("the oracle", _evaluate_by_oracle, tree_order=True)
ONNXRUNTIME: Final = Evaluator("onnxruntime", _evaluate_by_onnxruntime, tree_order=True)
SCORER: Final = Evaluator("bidml.score", _evaluate_by_scorer, tree_order=False)
DEFAULT_EVALUATORS: Final = (ONNXRUNTIME, SCORER)
