"""Knots of a calibration in the scorer: every call goes through the same line, at and between and beyond its knots."""

from __future__ import annotations

from array import array
from itertools import product
from math import inf, nextafter
from typing import Any

import numpy as np
import onnxruntime
import pytest
from artifacts import CTR_KNOTS, CVR_KNOTS, knots
from decisions import artifact_of
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, Calibration, CtrBlueprint, Head, Knots, Lookup, WinBlueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.export import model_bytes
from bidml.metadata import TOLERANCE, difference
from bidml.oracle import calibrated, evaluate, sigmoid
from bidml.score import Scorer, _native
from bidml.self_check import self_check_of
from bidml.why import why_this_price

SPEC = FeatureSpec(tuple(Feature(name, FeatureKind.CATEGORY, f"ext.{name}") for name in ("a", "b")))


def head_of(feature: str, margins: list[float]) -> Head:
    """Margin i for the text i."""
    keys = sorted(map(str, range(len(margins))))
    return Head(
        (), None, (Lookup(feature, tuple(keys), array("d", [margins[int(key)] for key in keys]), 0.0),)
    )


def points_of(line: Knots) -> list[float]:
    """At each knot, one double beside it, between two, and far beyond."""
    beside = [p for x in line.x for p in (nextafter(x, -inf), x, nextafter(x, inf))]
    between = [0.5 * (a + b) for a, b in zip(line.x, line.x[1:], strict=False)]
    return [*beside, *between, -700.0, -18.4, 30.0, 700.0]


def blueprint_of(ctr: Calibration, cvr: Calibration) -> Blueprint:
    assert ctr.knots is not None
    assert cvr.knots is not None
    flat = Head((), None)
    return Blueprint(
        SPEC,
        CtrBlueprint(head_of("a", points_of(ctr.knots)), ctr),
        WinBlueprint(flat, flat, 0.5),
        "EUR",
        cvr=CtrBlueprint(head_of("b", points_of(cvr.knots)), cvr),
    )


@pytest.mark.parametrize(
    ("ctr", "cvr"),
    [
        (Calibration(knots=CTR_KNOTS), Calibration(knots=CVR_KNOTS)),
        (Calibration(1.0, 1.0, -2.0, CVR_KNOTS), Calibration(1.1, 0.9, 0.5, CTR_KNOTS)),
    ],
)
def test_one_decision_a_batch_and_an_explanation_say_the_same(ctr: Calibration, cvr: Calibration) -> None:
    """pctr and pcvr at every kind of point, by each way to ask, and as the oracle has them."""
    blueprint = blueprint_of(ctr, cvr)
    assert blueprint.ctr is not None
    assert blueprint.cvr is not None
    scorer = Scorer(artifact_of(blueprint))
    line = scorer.line_item(value_per_click=3.0, value_per_conversion=70.0, cap_cpm=1e6)
    n_a, n_b = (len(part.head.terms[0].keys) for part in (blueprint.ctr, blueprint.cvr))
    rows = list(product(map(str, range(n_a)), map(str, range(n_b))))
    columns: dict[str, Any] = {"a": [a for a, _ in rows], "b": [b for _, b in rows]}
    columns |= {
        name: array("d", [x]) * len(rows)
        for name, x in (
            ("value_per_click", 3.0), ("value_per_conversion", 70.0), ("value_per_impression_cpm", 0.0),
            ("floor_cpm", 0.0), ("cap_cpm", 1e6), ("pacing_multiplier", 1.0), ("auction_type", 1.0),
        )
    }  # fmt: skip
    wanted = evaluate(blueprint, columns)
    found = {name: array("d", bytes(8 * len(rows))) for name in ("pctr", "pcvr", "bid_cpm")}
    scorer.score_many(columns, found)
    for i, (a, b) in enumerate(rows):
        request = {"at": 1, "imp": [{}], "ext": {"a": a, "b": b}}
        explained = scorer.explain(request, line)
        for name in ("pctr", "pcvr", "bid_cpm"):
            assert difference(name, wanted[name][i], found[name][i]) <= TOLERANCE
            assert difference(name, wanted[name][i], getattr(explained, name)) <= TOLERANCE
        assert explained.pctr == found["pctr"][i]
        assert explained.pctr == pytest.approx(sigmoid(calibrated(ctr, explained.ctr_margin)), rel=1e-12)
        assert scorer.bid(request, line) == explained.bid_cpm
    assert scorer.telemetry().pctr.count >= len(rows)


def test_onnxruntime_takes_one_line_at_each_knot() -> None:
    """The graph computes all lines: at a knot, where two meet, exactly one may be kept."""
    calibration = Calibration(1.0, 1.0, 0.25, CTR_KNOTS)
    points = points_of(CTR_KNOTS)
    blueprint = Blueprint(SPEC, CtrBlueprint(head_of("a", points), calibration), None, "EUR")
    session = onnxruntime.InferenceSession(
        model_bytes(blueprint, self_check_of(blueprint, {})), providers=["CPUExecutionProvider"]
    )
    texts = np.array([[str(i)] for i in range(len(points))], dtype=object)
    (found,) = session.run(["pctr"], {"a": texts, "b": texts})
    for point, pctr in zip(points, found.ravel().tolist(), strict=True):
        assert difference("pctr", sigmoid(calibrated(calibration, point)), pctr) <= TOLERANCE


def test_why_goes_through_the_line() -> None:
    """The parts of a price add up to the value that the bent probability gives."""
    blueprint = blueprint_of(Calibration(knots=CTR_KNOTS), Calibration(knots=CVR_KNOTS))
    scorer = Scorer(artifact_of(blueprint))
    line = scorer.line_item(value_per_click=3.0, cap_cpm=1e6)
    why = why_this_price(scorer, {"at": 1, "imp": [{}], "ext": {"a": "4", "b": "0"}}, line)
    assert why.value is not None
    assert why.value.total_cpm == pytest.approx(why.explanation.value_cpm, rel=1e-9)
    assert why.explanation.pctr == pytest.approx(sigmoid(CTR_KNOTS.y[1]), rel=1e-12)


@given(knots(), st.lists(st.floats(-40.0, 40.0), min_size=1, max_size=8))
def test_native_and_oracle_agree_to_the_last_bits(line: Knots, margins: list[float]) -> None:
    """With the identity before the line there is no exp and no ln, and the line is the same operations: what is left is
    the last exp."""
    whole = Calibration(1.0, 1.0, 0.25, line)
    blueprint = Blueprint(
        SPEC,
        CtrBlueprint(head_of("a", margins), whole),
        WinBlueprint(Head((), None), Head((), None), 0.5),
        "EUR",
    )
    scorer = Scorer(artifact_of(blueprint))
    item = scorer.line_item(value_per_click=1.0, cap_cpm=9.0)
    for i, margin in enumerate(margins):
        found = scorer.explain({"at": 1, "imp": [{}], "ext": {"a": str(i)}}, item)
        assert found.pctr == pytest.approx(sigmoid(calibrated(whole, margin)), rel=4e-15)


@pytest.mark.parametrize(
    ("x", "y", "rule"),
    [([1.0], [1.0], "two or more"), ([1.0, 2.0], [1.0], "as many x as y"), ([2.0, 1.0], [1.0, 2.0], "rise"),
     ([1.0, float("nan")], [1.0, 2.0], "rise")],
)  # fmt: skip
def test_the_native_constructor_looks_again(x: list[float], y: list[float], rule: str) -> None:
    """Whoever goes round the bounds meets an error, not memory of others."""
    flat = Head((), None)
    calibration = Calibration(knots=Knots(array("d", x), array("d", y)))
    blueprint = Blueprint(SPEC, CtrBlueprint(flat, calibration), WinBlueprint(flat, flat, 0.5), "EUR")
    with pytest.raises(ValueError, match=rule):
        _native.NativeScorer(blueprint, [], None, "scalar")
