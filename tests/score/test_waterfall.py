"""The steps from value to bid: they follow each other, begin at 0, end at the bid to the bit."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from artifacts import complete_blueprint
from hypothesis import given
from hypothesis import strategies as st

from bidml.contract import NoBidReason
from bidml.export import write_artifact
from bidml.score import Scorer

NAMES = ["prediction", "calibration", "margin", "pacing", "shading", "floor", "cap"]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    path = tmp_path_factory.mktemp("waterfall") / "model.onnx"
    write_artifact(complete_blueprint(), path)
    return Scorer.load(path)


@given(
    at=st.sampled_from([1, 2, 3]),
    floor=st.floats(0.0, 5.0),
    country=st.sampled_from(["DEU", "USA", "nowhere"]),
    terms=st.tuples(st.floats(0.0, 50.0), st.floats(0.01, 9.0), st.floats(0.0, 0.9), st.floats(0.0, 2.0)),
)
def test_the_steps_add_up_to_the_bid(scorer, at, floor, country, terms):
    value_per_click, cap, margin, pacing = terms
    line = scorer.line_item(
        value_per_click=value_per_click,
        cap_cpm=cap,
        margin=margin,
        pacing_multiplier=pacing,
        creative="320x50",
    )
    request = {
        "at": at,
        "imp": [{"bidfloor": floor, "bidfloorcur": "EUR"}],
        "device": {"geo": {"country": country}},
    }
    why = scorer.explain(request, line)
    steps = why.waterfall
    assert steps[0].before_cpm == 0.0
    assert all(a.after_cpm == b.before_cpm for a, b in pairwise(steps))
    assert steps[-1].after_cpm == why.bid_cpm
    assert math.fsum(step.change_cpm for step in steps) == pytest.approx(why.bid_cpm, abs=1e-12)
    if why.reason is NoBidReason.BID:
        assert [step.name for step in steps] == NAMES
        gains = dict(zip(NAMES, (step.change_cpm for step in steps), strict=True))
        assert gains["margin"] <= 1e-12
        assert gains["shading"] <= 0.0 <= gains["floor"]
        assert gains["cap"] <= 0.0
        assert gains["shading"] == 0.0 or at == 1
        assert steps[2].after_cpm == why.value_cpm
        assert steps[3].after_cpm == why.unshaded_bid_cpm
        # what is printed adds up as printed
        rows = [text.split() for text in str(why).splitlines() if text.startswith(tuple(NAMES))]
        assert len(rows) == len(NAMES)
        assert sum(float(row[1]) for row in rows) == pytest.approx(float(f"{why.bid_cpm:.4f}"), abs=1e-9)
    else:
        assert steps[-1].name == f"no bid: {why.reason.name.lower()}"


def test_a_value_next_to_nothing_is_never_shaded_upwards(scorer):
    """Its optimum rounds to more than it: the step down is 0 then."""
    line = scorer.line_item(value_per_click=2.2250738585e-313, cap_cpm=1.0, creative="320x50")
    why = scorer.explain({"imp": [{}], "at": 1, "device": {"geo": {"country": "DEU"}}}, line)
    assert why.optimum_cpm > why.unshaded_bid_cpm == why.bid_cpm > 0.0
    assert [step.change_cpm for step in why.waterfall[-3:]] == [0.0, 0.0, 0.0]


def test_the_prediction_is_before_calibration(scorer):
    """1000 · σ(margin) · value per click, without the line item's margin."""
    line = scorer.line_item(value_per_click=4.0, cap_cpm=50.0, margin=0.25, creative="320x50")
    why = scorer.explain({"imp": [{}], "at": 1}, line)
    assert why.waterfall[0].after_cpm == pytest.approx(4000.0 / (1.0 + math.exp(-why.ctr_margin)), rel=1e-12)
    assert why.waterfall[1].after_cpm == pytest.approx(4000.0 * why.pctr, rel=1e-12)
    assert why.margin == 0.25


def test_a_decision_that_ended_early_has_no_steps_but_the_reason(scorer):
    line = scorer.line_item(value_per_click=4.0, cap_cpm=50.0, creative="320x50")
    (step,) = scorer.explain("no request", line).waterfall
    assert (step.name, step.before_cpm, step.after_cpm) == ("no bid: invalid_request", 0.0, 0.0)
