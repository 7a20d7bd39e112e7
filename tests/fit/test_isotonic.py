"""The broken line behind the beta map: increasing, continuous, found where the clicks ask for it and only there."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import replace
from math import inf, nextafter
from typing import Any

import numpy as np
import pytest
from artifacts import SPEC, knots
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from bidml.blueprint import Blueprint, Calibration, CtrBlueprint, Head, Knots
from bidml.bounds import MAX_SLOPE, MIN_SLOPE, check_blueprint
from bidml.errors import ExportError
from bidml.fit.calibration import calibrated, fit_calibration, steepness
from bidml.metrics import log_loss_from_log_odds
from bidml.oracle import calibrated as of_the_oracle

Curve = Callable[[Any], Any]


def sigmoid(s: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-s))


def bent(line: Knots) -> Calibration:
    return Calibration(knots=line)


def s_shaped(s: Any) -> Any:
    """Too wide in the middle, too narrow outside: no beta map."""
    return -2.0 + np.tanh(1.2 * (s + 2.5)) + 0.25 * (s + 2.5)


def right(s: Any) -> Any:
    return s


def draw(n: int, curve: Curve, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores around −2.5 and clicks whose log-odds are `curve` of them, (n,) both."""
    rng = np.random.default_rng(seed)
    s = rng.normal(-2.5, 1.2, n)
    return s, rng.random(n) < sigmoid(curve(s))


def excess_loss(found: Calibration, curve: Curve) -> float:
    """Expected log loss above that of the truth, per impression, over the scores' distribution."""
    s = -2.5 + 1.2 * ndtri((np.arange(4_000) + 0.5) / 4_000)
    return expected_loss(calibrated(found, s), curve(s)) - expected_loss(curve(s), curve(s))


def expected_loss(log_odds: Any, truth: Any) -> float:
    return float((np.logaddexp(0.0, log_odds) - sigmoid(truth) * log_odds).mean())


# ---- the map ------------------------------------------------------------------------------------------------------


@given(knots(), st.floats(-9.0, 9.0))
def test_the_line_goes_through_its_knots_without_a_jump(line: Knots, shift: float) -> None:
    """Exactly at a knot; the double before and the one behind it are as near as a slope of 32 lets them be."""
    whole = Calibration(shift=shift, knots=line)
    for x, y in zip(line.x, line.y, strict=True):
        at, before, after = calibrated(whole, np.array([x, nextafter(x, -inf), nextafter(x, inf)]))
        assert at == y + shift
        assert abs(before - at) <= 1e-12
        assert abs(after - at) <= 1e-12


@given(knots(), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_the_line_rises_everywhere(line: Knots, positive: float, negative: float) -> None:
    """By the least slope of the bounds at least, times the beta map's: what was above stays above."""
    whole = Calibration(positive, negative, 0.5, line)
    s = np.linspace(-60.0, 60.0, 3_001)
    found, before = calibrated(whole, s), calibrated(replace(whole, knots=None), s)
    assert (np.diff(found) >= MIN_SLOPE * np.diff(before) - 1e-12).all()
    assert (np.diff(found) <= MAX_SLOPE * np.diff(before) + 1e-12).all()


@given(knots(), st.floats(-30.0, 30.0))
def test_numpy_computes_what_the_oracle_does(line: Knots, s: float) -> None:
    """To the bit, for Platt's weights; and both are linear interpolation, with a slope of 1 outside."""
    whole = Calibration(1.25, 1.25, -0.75, line)
    (found,) = calibrated(whole, np.array([s]))
    assert found == of_the_oracle(whole, s)
    x, y, t = np.array(line.x), np.array(line.y), 1.25 * s
    wanted = np.interp(t, x, y) + min(t - x[0], 0.0) + max(t - x[-1], 0.0)
    assert found == pytest.approx(wanted - 0.75, abs=1e-11)


@given(knots(), st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(-30.0, 30.0))
def test_knots_of_the_identity_change_nothing(
    line: Knots, positive: float, negative: float, s: float
) -> None:
    plain = Calibration(positive, negative, 0.25)
    same = replace(plain, knots=Knots(line.x, line.x))
    at = np.array([s])
    assert calibrated(same, at) == pytest.approx(calibrated(plain, at), abs=1e-13)


@given(knots(), st.sampled_from([-1e300, -1e5, -700.0, 700.0, 1e5, 1e300]))
def test_far_outside_the_bend_stays_what_it_is_at_the_end(line: Knots, s: float) -> None:
    """Down to probabilities that are no doubles any more."""
    end = 0 if s < 0.0 else -1
    (found,) = calibrated(bent(line), np.array([s]))
    assert found == line.y[end] + (s - line.x[end])
    assert found == of_the_oracle(bent(line), s)


@given(knots(), st.floats(0.1, 2.0), st.floats(0.1, 2.0))
def test_steepness_is_the_derivative(line: Knots, positive: float, negative: float) -> None:
    """Where both sides of a point lie on one line."""
    whole = Calibration(positive, negative, 0.5, line)
    s = np.linspace(-12.0, 12.0, 997)
    low, high = s - 1e-6, s + 1e-6
    same = np.isclose(steepness(whole, low), steepness(whole, high), rtol=1e-4)
    slope = (calibrated(whole, high) - calibrated(whole, low)) / 2e-6
    assert np.allclose(steepness(whole, s)[same], slope[same], rtol=1e-3, atol=1e-6)
    assert same.mean() > 0.9


# ---- the fit ------------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**32), st.sampled_from([200, 3_000]), st.floats(-6.0, 3.0), st.floats(0.01, 4.0),
    st.lists(st.floats(-3.0, 3.0), min_size=4, max_size=4), st.sampled_from([0.0, 0.25]),
)  # fmt: skip
@settings(max_examples=60)
def test_every_fit_is_legal_increasing_and_no_worse_on_its_rows(
    seed: int, n: int, mean: float, spread: float, wave: list[float], grid: float
) -> None:
    """Any distortion, falling ones too; scores that repeat."""
    rng = np.random.default_rng(seed)
    s = rng.normal(mean, spread, n)
    s = np.round(s / grid) * grid if grid else s
    u = (s - mean) / spread
    truth = mean + wave[0] * u + wave[1] * np.sin(2.0 * u) + wave[2] * np.cos(u) + wave[3] * (u > 0.5)
    y = rng.random(n) < sigmoid(truth)
    beta, found = (fit_calibration(s, y, method=method) for method in ("beta", "isotonic"))
    check_blueprint(Blueprint(SPEC, CtrBlueprint(Head((), None), found), None, "USD"), error=ExportError)
    assert replace(found, knots=None) == beta
    far = np.linspace(-800.0, 800.0, 401)
    assert np.isfinite(calibrated(found, far)).all()
    near = np.linspace(s.min() - 1.0, s.max() + 1.0, 401)
    rise, of_beta = np.diff(calibrated(found, near)), np.diff(calibrated(beta, near))
    assert (rise >= MIN_SLOPE * of_beta - 1e-9).all()
    if (beta.positive + beta.negative) > 0.1:
        assert (rise > 0.0).all()
    assert (
        log_loss_from_log_odds(y, calibrated(found, s))
        <= log_loss_from_log_odds(y, calibrated(beta, s)) + 1e-9
    )


def test_a_distortion_that_no_beta_map_follows_is_undone() -> None:
    """An S in log-odds, 2,000 clicks and more to learn each tenth from: in every tenth of other impressions, all with
    200 clicks and more, the prediction is within 3 % of the truth, where the beta map is off by more than 20 %."""
    s, y = draw(1_200_000, s_shaped, seed=1)
    beta, found = (fit_calibration(s, y, method=method) for method in ("beta", "isotonic"))
    others, clicked = draw(150_000, s_shaped, seed=2)
    truth = sigmoid(s_shaped(others))
    tenth = np.searchsorted(np.quantile(others, np.arange(1, 10) / 10), others)
    clicks, expected = (np.bincount(tenth, weights=x) for x in (clicked, truth))
    assert clicks.min() >= 200
    off = {
        name: np.abs(np.bincount(tenth, weights=sigmoid(calibrated(c, others))) / expected - 1.0).max()
        for name, c in (("beta", beta), ("isotonic", found))
    }
    assert off["isotonic"] < 0.03
    assert off["beta"] > 0.2
    assert excess_loss(found, s_shaped) < 0.1 * excess_loss(beta, s_shaped)


@pytest.mark.parametrize("n_rows", [1_000, 10_000])
def test_where_calibration_is_right_a_bend_costs_next_to_nothing(n_rows: int) -> None:
    """Of 20 logs at most a tenth get knots at all; the mean cost over the beta map is below a tenth of a nat in the
    likelihood of a log as large as the one that was learnt from. (The beta map itself costs about one nat.)"""
    costs, bends = [], 0
    for seed in range(20):
        s, y = draw(n_rows, right, seed=seed)
        beta, found = (fit_calibration(s, y, method=method) for method in ("beta", "isotonic"))
        bends += found.knots is not None
        costs.append((excess_loss(found, right) - excess_loss(beta, right)) * n_rows)
    assert bends <= 2
    assert np.mean(costs) < 0.1


def test_few_clicks_bend_nothing() -> None:
    """However wrong: 60 clicks are a level and a slope."""
    s, y = draw(500, s_shaped, seed=3)
    assert 30 < y.sum() < 100
    assert fit_calibration(s, y, method="isotonic").knots is None


def test_the_order_of_the_rows_does_not_matter() -> None:
    """Nor that a row of weight 2 is two rows."""
    s, y = draw(20_000, s_shaped, seed=4)
    at = np.linspace(-8.0, 3.0, 111)
    found = fit_calibration(s, y, method="isotonic")
    assert found.knots is not None
    order = np.random.default_rng(0).permutation(len(s))
    other = fit_calibration(s[order], y[order], method="isotonic")
    twice = fit_calibration(np.r_[s, s], np.r_[y, y], method="isotonic")
    heavy = fit_calibration(s, y, method="isotonic", sample_weight=np.full(len(s), 2.0))
    assert calibrated(other, at) == pytest.approx(calibrated(found, at), abs=1e-6)
    assert calibrated(heavy, at) == pytest.approx(calibrated(twice, at), abs=1e-6)


def test_a_base_rate_of_1e_minus_8_is_bent_as_one_of_2_percent_is() -> None:
    """Seen through weights: unclicked rows stand for 10⁶ each, and the line lies ln 10⁶ lower."""
    s, y = draw(60_000, s_shaped, seed=5)
    found = fit_calibration(s, y, method="isotonic")
    down = np.log(1e6)
    tiny = fit_calibration(s - down, y, method="isotonic", sample_weight=np.where(y, 1.0, 1e6))
    at = np.linspace(-4.5, -1.0, 71)
    assert found.knots is not None
    assert tiny.knots is not None
    assert sigmoid(calibrated(tiny, at - down)).max() < 1e-6
    gap = calibrated(tiny, at - down) + down - calibrated(found, at)
    assert np.abs(gap).max() < 0.2


def test_a_fall_becomes_flat_and_keeps_the_order() -> None:
    """Scores that are wrong about order in their middle: the least slope there, not a fall."""
    curve: Curve = lambda s: -1.5 + 0.9 * (s + 2.5) - 1.6 * np.sin(2.0 * (s + 2.5))  # noqa: E731 (a formula)
    s, y = draw(60_000, curve, seed=6)
    found = fit_calibration(s, y, method="isotonic")
    assert found.knots is not None
    slopes = found.knots.lines[2]
    assert min(slopes) == pytest.approx(1.0 / 16.0, rel=1e-6)
    assert (np.diff(calibrated(found, np.sort(s))) >= 0.0).all()


def test_lines_are_of_knots() -> None:
    """The table that every evaluation reads."""
    x, y, slope = Knots(array("d", [1.0, 2.0, 4.0]), array("d", [0.0, 0.5, 4.5])).lines
    assert x.tolist() == [1.0, 1.0, 2.0, 4.0]
    assert y.tolist() == [0.0, 0.0, 0.5, 4.5]
    assert slope.tolist() == [1.0, 0.5, 2.0, 1.0]
