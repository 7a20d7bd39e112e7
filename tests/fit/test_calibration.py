"""Calibration: the artifact's formula, monotone and finite always, right in the large and in each segment."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from artifacts import knots
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from bidml.blueprint import Blueprint, Calibration, CtrBlueprint, Head, Knots
from bidml.bounds import check_blueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, ExportError
from bidml.fit.calibration import at_rate, calibrated, fit_calibration, fit_segment_offsets, traffic_level
from bidml.fit.encoding import Categories
from bidml.metrics import calibration_ratio, expected_calibration_error, log_loss_from_log_odds
from bidml.oracle import row_function

GENTLE = Knots(array("d", [-4.0, -2.5, -1.0]), array("d", [-4.1, -2.4, -1.0]))
SPEC = FeatureSpec((Feature("site", FeatureKind.CATEGORY, "site.domain"),))


def sigmoid(s: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-s))


@st.composite
def held_out(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """From nothing but clicks to none at all, from one value to values of any size."""
    n = draw(st.integers(1, 30))
    size = draw(st.sampled_from([0.1, 3.0, 30.0, 700.0]))
    s = np.array(draw(st.lists(st.floats(-1, 1), min_size=n, max_size=n))) * size
    return s, np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))


@given(held_out(), st.sampled_from(["platt", "beta", "isotonic"]))
def test_every_map_is_increasing_finite_and_takes_no_harm(
    sample: tuple[np.ndarray, np.ndarray], method: str
) -> None:
    """It is legal in an artifact, keeps the order, and never loses against leaving the scores alone."""
    s, y = sample
    found = fit_calibration(s, y, method=method)
    check_blueprint(Blueprint(SPEC, CtrBlueprint(Head((), None), found), None, "USD"), error=ExportError)
    grid = np.linspace(-800.0, 800.0, 401)
    out = calibrated(found, grid)
    assert np.isfinite(out).all()
    assert (np.diff(out) >= -1e-9 * np.abs(out[1:])).all()
    before, after = log_loss_from_log_odds(y, s), log_loss_from_log_odds(y, calibrated(found, s))
    assert after <= before * (1.0 + 1e-9) + 1e-12
    if method == "platt":
        assert found.positive == found.negative


@given(st.floats(0, 3), st.floats(0, 3), st.floats(-20, 20), st.none() | knots(), st.floats(-40, 40))
def test_the_map_is_the_artifacts(
    positive: float, negative: float, shift: float, bend: Knots | None, s: float
) -> None:
    """Against the oracle's row function, to the last bits."""
    calibration = Calibration(positive, negative, shift, bend)
    head = Head((), None, intercept=s)
    row = row_function(Blueprint(SPEC, CtrBlueprint(head, calibration), None, "USD"))({"site": ""})
    mapped = calibrated(calibration, np.array([s]))[0]
    assert sigmoid(mapped) == pytest.approx(row["pctr"], rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("method", ["platt", "beta"])
def test_the_optimum_is_scipys(method: str) -> None:
    """The same penalised likelihood, minimised by L-BFGS-B."""
    rng = np.random.default_rng(0)
    s = rng.normal(-3.0, 1.2, 4_000)
    y = rng.random(4_000) < sigmoid(0.7 * s - 0.4)
    found = fit_calibration(s, y, method=method)

    def objective(theta: Any) -> float:
        a, b, c = (theta[0], theta[0], theta[1]) if method == "platt" else theta
        loss = log_loss_from_log_odds(y, calibrated(Calibration(a, b, c), s)) * len(s)
        level = c + (a - 1.0) * s.mean() + (b - a) * np.logaddexp(0.0, s).mean()
        return loss + 0.5 * (((a - 1.0) / 0.25) ** 2 + ((b - a) / 0.5) ** 2 + (level / 0.2) ** 2)

    start, low = ([1.0, 0.0], [(0, None), (None, None)]) if method == "platt" else (
        [1.0, 1.0, 0.0], [(0, None), (0, None), (None, None)]
    )  # fmt: skip
    best = optimize.minimize(
        objective, start, bounds=low, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}
    )
    mine = (
        [found.positive, found.shift] if method == "platt" else [found.positive, found.negative, found.shift]
    )
    assert objective(mine) <= best.fun + 1e-9
    assert mine == pytest.approx(best.x, abs=2e-3)


@pytest.mark.parametrize(("a", "b", "c"), [(1.0, 1.0, 0.0), (0.6, 0.6, -1.0), (0.7, 1.6, 0.5)])
def test_a_distortion_of_its_form_is_undone(a: float, b: float, c: float) -> None:
    """100,000 rows: the map is found to a twentieth, the calibration error falls to its noise."""
    rng = np.random.default_rng(1)
    s = rng.normal(-1.0, 1.5, 100_000)
    y = rng.random(len(s)) < sigmoid(calibrated(Calibration(a, b, c), s))
    found = fit_calibration(s, y)
    assert (found.positive, found.negative, found.shift) == pytest.approx((a, b, c), abs=0.08)
    p = sigmoid(calibrated(found, s))
    assert calibration_ratio(y, p) == pytest.approx(1.0, abs=0.002)
    assert expected_calibration_error(y, p) < 0.02


def test_tiny_probabilities_are_moved_exactly() -> None:
    """A base rate of 1e-8, over-predicted fourfold, seen through weights: the level falls by ln 4."""
    s = np.full(200_000, np.log(4e-8))
    y = np.r_[np.ones(100_000), np.zeros(100_000)]
    weight = np.where(y == 1.0, 1.0, 1e8)
    found = fit_calibration(s, y, method="platt", sample_weight=weight)
    assert calibrated(found, s[:1])[0] == pytest.approx(np.log(1e-8), abs=5e-3)


def test_without_clicks_the_scores_fall_and_stay_finite() -> None:
    """180 clicks expected and none seen takes the level down by 1 and more; half a click expected, by nothing."""
    s = np.full(10_000, -4.0)
    assert -14.0 < calibrated(fit_calibration(s, np.zeros(10_000)), s[:1])[0] < -5.0
    s = np.linspace(-13.0, -7.0, 1_000)
    few = calibrated(fit_calibration(s, np.zeros(1_000)), s)
    assert np.abs(few - s).max() < 0.1


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(),
        Calibration(0.5, 0.5, -1.0),
        Calibration(0.5, 1.5, 0.3),
        Calibration(1.1, 0.9, 0.2, GENTLE),
    ],
)
def test_segment_offsets_repair_a_segment_through_any_map(calibration: Calibration) -> None:
    """Segment b clicks half as often as predicted; after its offset it is right, and the unseen are left alone."""
    rng = np.random.default_rng(2)
    n = 120_000
    site = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, n)]
    s = rng.normal(-2.0, 1.0, n)
    p = sigmoid(calibrated(calibration, s))
    y = rng.random(n) < np.where(site == "b", 0.5, 1.0) * p
    categories = Categories.of("site", site)
    offsets = fit_segment_offsets(categories, s, y, calibration=calibration)
    after = sigmoid(calibrated(calibration, s + np.array(offsets.values)[categories.codes]))
    for key in "abc":
        assert calibration_ratio(y[site == key], after[site == key]) == pytest.approx(1.0, abs=0.03)
    assert calibration_ratio(y[site == "b"], p[site == "b"]) > 1.8
    assert offsets.default == 0.0


def test_chance_moves_no_segment() -> None:
    """2,000 segments of 20 rows and right predictions: offsets stay small; a shrinkage of 0.01 would chase noise."""
    rng = np.random.default_rng(3)
    categories = Categories.of("site", rng.integers(0, 2_000, 40_000).astype(str).astype(object))
    s = rng.normal(-3.0, 1.0, 40_000)
    y = rng.random(40_000) < sigmoid(s)
    found, chased = (
        np.array(fit_segment_offsets(categories, s, y, shrinkage=k).values) for k in (None, 0.01)
    )
    assert np.std(found) < 0.15
    assert np.std(chased) > 5 * np.std(found)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: fit_calibration([], []), DataError),
        (lambda: fit_calibration([0.0], [1, 0]), DataError),
        (lambda: fit_calibration([np.nan], [1]), DataError),
        (lambda: fit_calibration([np.inf], [1]), DataError),
        (lambda: fit_calibration([0.0], [2.0]), DataError),
        (lambda: fit_calibration([0.0], [1.0], method="spline"), ConfigError),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_the_level_of_the_traffic_is_found_from_what_was_won() -> None:
    """A model that is right where we won, because it knows nothing of what makes auctions both dear and poor, becomes
    right where we bid; one that is right stays; and a sample of the losses says the same."""
    rng = np.random.default_rng(0)
    n = 400_000
    rich = rng.random(n) < 0.3
    pctr, win_rate = np.where(rich, 0.05, 0.01), np.where(rich, 0.6, 0.15)
    won = rng.random(n) < win_rate
    clicked = won & (rng.random(n) < pctr)
    of_impressions = np.full(n, np.log(pctr[won].mean() / (1 - pctr[won].mean())))
    level = traffic_level(of_impressions, won=won, clicked=clicked, win_rate=win_rate)
    assert pctr[won].mean() / pctr.mean() > 1.4
    assert sigmoid(of_impressions[0] + level) / pctr.mean() == pytest.approx(1.0, abs=0.05)
    right = np.log(pctr / (1.0 - pctr))
    assert traffic_level(right, won=won, clicked=clicked, win_rate=win_rate) == pytest.approx(0.0, abs=0.05)
    kept = won | (rng.random(n) < 0.1)
    of_sample = traffic_level(
        of_impressions[kept],
        won=won[kept],
        clicked=clicked[kept],
        win_rate=win_rate[kept],
        sample_weight=np.where(won[kept], 1.0, 10.0),
    )
    assert of_sample == pytest.approx(level, abs=0.02)


@given(held_out(), st.floats(0.0, 1.0), st.integers(0, 2**32))
def test_a_level_is_finite_and_of_no_unit(
    sample: tuple[np.ndarray, np.ndarray], lowest: float, seed: int
) -> None:
    """Whatever the rows and chances; without a click, or with nothing else, there is none."""
    s, y = sample
    rng = np.random.default_rng(seed)
    won, chance = rng.random(len(s)) < 0.7, np.clip(rng.random(len(s)), lowest, 1.0)
    clicked = (y == 1) & won
    level = traffic_level(s, won=won, clicked=clicked, win_rate=chance)
    assert np.isfinite(level)
    if not clicked.any() or clicked[won].all():
        assert level == 0.0
    weighted = traffic_level(s, won=won, clicked=clicked, win_rate=chance, sample_weight=np.full(len(s), 3.0))
    assert weighted == pytest.approx(level, abs=1e-9)


def test_a_level_needs_a_chance_for_each_auction() -> None:
    """Not more, not less, none above one."""
    two = np.zeros(2)
    for win_rate in ([0.5], [0.5, 1.5], [0.5, np.nan]):
        with pytest.raises(DataError, match="a chance to win"):
            traffic_level(two, won=[True, True], clicked=two, win_rate=win_rate)


@given(rows=held_out(), rate=st.floats(1e-6, 1.0 - 1e-6), a=st.floats(0.5, 2.0), b=st.floats(0.5, 2.0))
def test_a_level_can_be_given(rows, rate, a, b):
    """The mean is the rate, and nothing but the shift has changed."""
    s, weight = np.clip(rows[0], -8.0, 8.0), rows[1] + 1.0
    before = Calibration(a, b, 0.7)
    found = at_rate(before, s, rate, sample_weight=weight)
    assert np.average(sigmoid(calibrated(found, s)), weights=weight) == pytest.approx(rate, rel=1e-6)
    assert (found.positive, found.negative, found.knots) == (a, b, None)
