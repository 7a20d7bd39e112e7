"""A log-normal win curve in the scorer: every call prices by it, and what it shares with NumPy is NumPy's."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import complete_blueprint, log_normal_blueprint
from decisions import RATES, artifact_of

from bidml.blueprint import Blueprint, WinFamily
from bidml.bounds import check_blueprint
from bidml.certify import DEFAULT_EVALUATORS, certify
from bidml.errors import CertificateError, ExportError
from bidml.export import model_bytes
from bidml.graph_log_normal import SCALED_TAIL
from bidml.metadata import TOLERANCE, SelfCheck, difference
from bidml.pricing import WinCurve, optimal_bid_cpm, second_price_surplus_cpm, soft_floor_bid_cpm
from bidml.replay.bidders import predict
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of

ROOT = Path(__file__).resolve().parents[2]
FLOORS = (0.0, 0.05, 0.5, 2.0)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(artifact_of(log_normal_blueprint()), rates=RATES)


def request_of(at: int, floor: float) -> dict[str, Any]:
    imp = {"bidfloor": floor, "bidfloorcur": "EUR"}
    return {"id": "x", "at": at, "imp": [imp], "device": {"geo": {"country": "DEU", "lat": 52.5}}}


def curve_of(scorer: Scorer, why: Any) -> WinCurve:
    win = scorer.blueprint.win
    assert win is not None
    return WinCurve(why.win_location, why.win_shape, win.gamma, win.family)


def lines_of(scorer: Scorer) -> list[Any]:
    return [
        scorer.line_item(creative=creative, value_per_click=value, cap_cpm=cap)
        for creative in ("320x50", "other")
        for value in (1e-5, 0.05, 0.5, 4.0)
        for cap in (1.0, 80.0)
    ]


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("floor", FLOORS)
def test_every_call_bids_as_numpy_does(scorer: Scorer, at: int, floor: float) -> None:
    """bid, decide, their JSON forms and explain alike; the bid and its win rate are NumPy's."""
    request = request_of(at, floor)
    data = json.dumps(request).encode()
    n_bids = 0
    for line in lines_of(scorer):
        why = scorer.explain(request, line)
        bid = scorer.bid(request, line)
        assert bid == scorer.bid_json(data, line) == scorer.decide(request, line).bid_cpm == why.bid_cpm
        if not why.bid_cpm > 0.0:
            continue
        n_bids += 1
        curve = curve_of(scorer, why)
        wanted = optimal_bid_cpm(
            why.unshaded_bid_cpm, curve, floor_cpm=floor, cap_cpm=why.cap_cpm, auction_type=at
        )
        assert bid == pytest.approx(wanted.item(), rel=1e-12)
        assert why.win_rate == pytest.approx(curve.win_rate(bid).item(), rel=1e-12)
        other = WinCurve(why.win_location, why.win_shape, curve.gamma)
        assert why.win_rate != pytest.approx(other.win_rate(bid).item(), rel=1e-6)
    assert n_bids >= 4


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("floor", FLOORS)
def test_the_best_line_item_is_that_of_numpy_s_surplus(scorer: Scorer, at: int, floor: float) -> None:
    """Of first price (v − b) F(b); of second price also the integral."""
    request, lines = request_of(at, floor), lines_of(scorer)
    earned = []
    for line in lines:
        why = scorer.explain(request, line)
        curve, bid = curve_of(scorer, why), np.array([why.bid_cpm])
        first = (why.unshaded_bid_cpm - bid) * curve.win_rate(np.maximum(bid, 1e-300))
        second = second_price_surplus_cpm(why.unshaded_bid_cpm, bid, curve, lowest_price_cpm=floor)
        earned.append((first if at == 1 else second).item() if why.bid_cpm > 0.0 else 0.0)
    index, bid_cpm = scorer.best(request, lines)
    assert earned[index] >= max(earned) * (1.0 - 1e-9)
    assert bid_cpm == scorer.bid(request, lines[index])


@pytest.mark.parametrize("soft", [0.1, 0.4, 0.8, 1.6, 3.0])
def test_soft_floors_are_numpy_s(scorer: Scorer, soft: float) -> None:
    """Whichever side earns more."""
    for line in lines_of(scorer):
        why = scorer.explain(request_of(2, 0.05), line, 0, soft)
        twin = soft_floor_bid_cpm(
            why.unshaded_bid_cpm,
            curve_of(scorer, why),
            soft_floor_cpm=soft,
            floor_cpm=0.05,
            cap_cpm=why.cap_cpm,
        ).item()
        assert why.bid_cpm == pytest.approx(twin, rel=1e-9)


def test_a_replay_reads_the_family(scorer: Scorer) -> None:
    """Its curves are those of the artifact."""
    columns: dict[str, Any] = {
        feature.name: np.array([""], dtype=object) if feature.kind == "category" else np.zeros(1)
        for feature in scorer.blueprint.spec.features
    }
    curve = predict(scorer, columns).curve
    assert curve is not None
    assert curve.family is WinFamily.LOG_NORMAL


def test_a_varied_bid_has_the_win_rate_of_its_own(scorer: Scorer) -> None:
    """Exploration goes through the same curve."""
    line = scorer.line_item(
        creative="320x50", value_per_click=0.5, cap_cpm=80.0, exploration_share=1.0, exploration_sigma=0.3
    )
    why = scorer.explain(request_of(1, 0.0), line)
    assert not math.isnan(why.propensity)
    assert why.win_rate == pytest.approx(curve_of(scorer, why).win_rate(why.bid_cpm).item(), rel=1e-12)


def test_the_file_says_its_family(scorer: Scorer) -> None:
    """Read back as written; a log-logistic file says nothing and is what it was."""
    blueprint = log_normal_blueprint()
    for whole in (blueprint, replace(blueprint, ctr=None)):
        data = model_bytes(whole, self_check_of(whole, {}))
        found = parse_artifact(data).blueprint.win
        assert found is not None
        assert found.family is WinFamily.LOG_NORMAL
        assert b'"family":"log_normal"' in data
    other = complete_blueprint()
    assert b"family" not in model_bytes(other, self_check_of(other, {}))


@pytest.mark.parametrize("family", ["weibull", "log_normal", None])
def test_a_family_that_is_none_is_refused(family: Any) -> None:
    """Text is no family either."""
    whole = complete_blueprint()
    assert whole.win is not None
    wrong: Blueprint = replace(whole, win=replace(whole.win, family=family))
    with pytest.raises(ExportError, match="family of a win curve"):
        check_blueprint(wrong, error=ExportError)


def test_graph_and_engine_have_the_same_polynomial() -> None:
    """To the digit."""
    header = (ROOT / "bidml" / "native" / "log_normal.h").read_text()
    (body,) = re.findall(r"kScaledTail\[24\] = \{[^\n]*\n(.*?)\};", header, re.DOTALL)
    assert (
        tuple(float(number) for number in body.replace("\n", "").split(",") if number.strip()) == SCALED_TAIL
    )


def test_far_tails_agree_with_numpy() -> None:
    """Bids whose chance is 1e-4 to 1e-280, at a floor: nothing is lost to cancellation."""
    whole = log_normal_blueprint()
    assert whole.win is not None
    scorer = Scorer(
        artifact_of(replace(whole, win=replace(whole.win, gamma=1.0, reference_log_bid_cpm=12.0)))
    )
    n = 200
    columns: dict[str, Any] = {
        feature.name: [""] * n if feature.kind == "category" else np.zeros(n)
        for feature in whole.spec.features
    }
    columns |= {
        "value_per_click": np.full(n, 1e9),
        "floor_cpm": np.geomspace(1e-2, 1e4, n),
        "cap_cpm": np.geomspace(1e-2, 1e4, n),
        "pacing_multiplier": np.ones(n),
        "auction_type": np.ones(n),
    }
    found = {name: np.empty(n) for name in ("win_location", "win_shape", "bid_cpm", "win_rate")}
    scorer.score_many(columns, found)
    curve = WinCurve(found["win_location"], found["win_shape"], family=WinFamily.LOG_NORMAL)
    assert found["win_rate"].min() < 1e-30
    np.testing.assert_allclose(found["win_rate"], curve.win_rate(found["bid_cpm"]), rtol=1e-12)


def test_a_certificate_covers_the_family() -> None:
    """Every evaluator computes the file's own numbers; a log-logistic's bids do not pass for them."""
    blueprint = log_normal_blueprint()
    assert blueprint.win is not None
    check = self_check_of(blueprint, {})
    certify(model_bytes(blueprint, check), evaluators=DEFAULT_EVALUATORS)
    logistic = replace(blueprint, win=replace(blueprint.win, family=WinFamily.LOG_LOGISTIC))
    wrong = SelfCheck(check.columns, self_check_of(logistic, {}).expected)
    with pytest.raises(CertificateError, match="bid_cpm"):
        certify(model_bytes(blueprint, wrong), evaluators=())


def test_tiny_win_rates_are_compared_by_what_their_family_can_say() -> None:
    """Of the log-logistic to 1e-12 of themselves, however small; of the log-normal to 1e-62 below 1e-50."""
    near = 1e-62, 1.1e-62
    assert difference("win_rate", *near, family=WinFamily.LOG_LOGISTIC) > TOLERANCE
    assert difference("win_rate", *near, family=WinFamily.LOG_NORMAL) <= TOLERANCE
    assert difference("win_rate", 1e-40, 1.1e-40, family=WinFamily.LOG_NORMAL) > TOLERANCE
    assert difference("pctr", *near, family=WinFamily.LOG_NORMAL) > TOLERANCE
