"""The live guard: silent for a calibrated model however late its clicks come and however often it is read, else not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.errors import ConfigError, DataError
from bidml.fit.cvr import MaturityCurve
from bidml.monitor.calibration import CalibrationGuard
from bidml.monitor.sequential import log_e_above, log_e_below, ratio_sequence

HOUR = 3600.0
HORIZON = 24 * HOUR
MEAN_DELAY = 2 * HOUR


def arrived(age: np.ndarray) -> np.ndarray:
    return -np.expm1(-age / MEAN_DELAY)


def day(rng: np.random.Generator, n: int, odds: float, hours: float = 12.0) -> dict[str, np.ndarray]:
    """Impressions over some hours; p is predicted, clicks come with rate p · odds, exponentially late."""
    shown = np.sort(rng.uniform(0.0, hours * HOUR, n))
    p = rng.beta(2.0, 60.0, n)
    clicked = np.where(
        rng.random(n) < np.minimum(odds * p, 1.0), shown + rng.exponential(MEAN_DELAY, n), np.inf
    )
    return {"shown": shown, "p": p, "clicked": clicked}


def readings(found: dict[str, np.ndarray], every: float, guard: CalibrationGuard) -> list:
    """As a job would: each interval's impressions and clicks are told, then it is read."""
    out, before = [], -1.0
    for now in np.arange(every, 12 * HOUR + every, every):
        new = (found["shown"] > before) & (found["shown"] <= now)
        guard.impressions(found["shown"][new], found["p"][new])
        clicks = (found["clicked"] > before) & (found["clicked"] <= now)
        guard.clicks(found["shown"][clicks], found["p"][clicks], found["clicked"][clicks])
        out.append(guard.read(now))
        before = now
    return out


def alarms(
    odds: float, n_streams: int, *, knows_delay: bool = True, tolerance: float = 0.0, n: int = 4000
) -> float:
    """The share of streams that ever alarm, read every half hour, at 95 %."""
    rng = np.random.default_rng(7)
    found = 0
    for _ in range(n_streams):
        curve = arrived if knows_delay else np.ones_like
        guard = CalibrationGuard(curve, tolerance=tolerance, confidence=0.95, horizon=HORIZON)
        found += any(reading.alarm for reading in readings(day(rng, n, odds), HOUR / 2, guard))
    return found / n_streams


def test_a_calibrated_model_is_hardly_ever_alarmed_however_often_it_is_read() -> None:
    """24 readings of 100 streams at 95 %: at most 5 % ever. A fixed test, its twin, errs far more."""
    assert alarms(1.0, 100) <= 0.05
    rng = np.random.default_rng(7)
    fixed = 0
    for _ in range(60):
        found = readings(day(rng, 4000, 1.0), HOUR / 2, CalibrationGuard(arrived, horizon=HORIZON))
        fixed += any(abs(r.clicks - r.expected) > 1.96 * math.sqrt(r.expected) for r in found)
    assert fixed / 60 > 0.15


def test_a_guard_that_forgets_the_delay_cries_wolf() -> None:
    """Its twin: a young hour has few clicks, and every model seems to predict too many."""
    assert alarms(1.0, 20, knows_delay=False) > 0.6


@pytest.mark.parametrize(("odds", "kind"), [(0.6, "over"), (1.6, "under")])
def test_a_wrong_level_is_found_and_its_side_told(odds: float, kind: str) -> None:
    """Within some hundred expected clicks."""
    rng = np.random.default_rng(1)
    guard = CalibrationGuard(arrived, tolerance=0.1, confidence=0.999, horizon=HORIZON)
    found = readings(day(rng, 20_000, odds), HOUR / 2, guard)
    first = next(reading for reading in found if reading.alarm)
    assert first.alarm == kind
    assert first.expected < 400
    assert found[-1].low <= 1 / odds <= found[-1].high


def test_an_error_within_the_tolerance_is_no_alarm() -> None:
    """5 % off, 10 % allowed."""
    assert alarms(1.05, 30, tolerance=0.1, n=20_000) == 0.0


@settings(max_examples=40)
@given(st.integers(0, 1000))
def test_when_it_is_read_and_how_rows_are_told_change_nothing(seed: int) -> None:
    """One call or many, read in between or not, rows forgotten after the horizon or kept."""
    rng = np.random.default_rng(seed)
    found = day(rng, 300, 1.0)
    one = CalibrationGuard(arrived, horizon=HORIZON)
    late = 48 * HOUR
    clicks = found["clicked"] <= late
    one.impressions(found["shown"], found["p"])
    one.clicks(found["shown"][clicks], found["p"][clicks], found["clicked"][clicks])
    many = CalibrationGuard(arrived, horizon=HORIZON)
    readings(found, HOUR, many)
    rest = (found["clicked"] > 12 * HOUR) & clicks
    many.clicks(found["shown"][rest], found["p"][rest], found["clicked"][rest])
    a, b = one.read(late), many.read(late)
    assert a.clicks == b.clicks == int(clicks.sum())
    assert a.expected == pytest.approx(b.expected, rel=1e-9)
    assert (
        a.expected
        == pytest.approx(
            (found["p"] * np.where(clicks, arrived(found["clicked"] - found["shown"]), 1.0)).sum(), rel=1e-9
        )
        or not clicks.any()
    )


def test_a_fitted_maturity_curve_will_do() -> None:
    """Steps instead of a formula."""
    rng = np.random.default_rng(3)
    delays = rng.exponential(MEAN_DELAY, 5000)
    curve = MaturityCurve.of(delays, np.full(5000, 48 * HOUR).clip(min=delays))
    guard = CalibrationGuard(curve, tolerance=0.05, confidence=0.999, horizon=HORIZON)
    assert not any(reading.alarm for reading in readings(day(rng, 20_000, 1.0), HOUR, guard))


@settings(max_examples=50)
@given(st.integers(0, 300), st.floats(1e-3, 300.0))
def test_e_values_are_the_mixtures_they_claim(n: int, expected: float) -> None:
    """Against the integral, by quadrature in the log."""
    for function, grid in (
        (log_e_above, np.linspace(1, 40, 40_001)),
        (log_e_below, np.linspace(1e-9, 1, 20_001)),
    ):
        log_prior = 9.0 * np.log(grid) - 10.0 * grid
        total = np.trapezoid(np.exp(log_prior - log_prior.max()), grid)
        log_f = n * np.log(grid) - (grid - 1.0) * expected + log_prior
        integral = np.trapezoid(np.exp(log_f - log_f.max()), grid)
        want = log_f.max() - log_prior.max() + math.log(integral) - math.log(total)
        if want > -3.0:  # below, one side of the mixture may underflow: no evidence is no evidence
            assert function(n, expected) == pytest.approx(want, abs=1e-3)


def test_the_ratio_s_sequence_holds_the_ratio_and_shrinks() -> None:
    """Wide at first, then narrow; nothing known: anything."""
    widths = []
    for n in (10, 100, 1000, 10_000):
        found = ratio_sequence(n, n / 1.1, confidence=0.95)
        assert found.low < 1.1 < found.high
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.12
    assert ratio_sequence(0, 0.0, confidence=0.95).high == math.inf
    assert ratio_sequence(0, 50.0, confidence=0.95).high < 0.3


def test_what_is_no_observation_is_refused() -> None:
    """Rule, value, remedy."""
    guard = CalibrationGuard(arrived)
    assert guard.read(0.0).to_json()["ratio"] is None
    for shown, p in (([1.0], [2.0]), ([1.0, 2.0], [0.1]), ([[1.0]], [[0.1]]), ([1.0], [np.nan])):
        with pytest.raises(DataError, match="click rate in"):
            guard.impressions(shown, p)
    with pytest.raises(DataError, match="follows"):
        guard.clicks([10.0], [0.1], [9.0])
    with pytest.raises(ConfigError, match="guard"):
        CalibrationGuard(arrived, confidence=1.0)
