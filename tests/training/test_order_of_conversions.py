"""The gate's check of a conversion model's order, on forecasts alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from training.config import GateConfig
from training.gate.probability import CVR, Forecasts, _order
from training.gate.verdict import Check, Checks

CONFIG = GateConfig()


def checked(y: Any, new: Any, old: Any = None, seen: Any = None) -> Check:
    checks = Checks()
    _order(checks, Forecasts(CVR, y, new, old, {}, np.ones(len(y)), few=True, seen=seen), CONFIG)
    (found,) = checks.found
    return found


chances = st.sampled_from([0.0, 1e-12, 0.01, 0.3, 0.99, 1.0])


@given(st.lists(st.tuples(st.booleans(), chances, chances, chances), min_size=1, max_size=12))
def test_whatever_the_forecasts_are_there_is_a_number(rows: list[tuple[bool, float, float, float]]) -> None:
    """All converted, none expected, none seen yet: never NaN, and a champion's equal passes."""
    y, new, old, seen = (np.array(column) for column in zip(*rows, strict=True))
    y[0] = True  # `judge` asks for a conversion
    value = checked(y, new * seen, old * seen, seen).value
    assert isinstance(value, float)
    assert math.isfinite(value)
    assert checked(y, new * seen, new * seen, seen).passed


def test_sound_forecasts_are_refused_as_rarely_as_it_says() -> None:
    """And upside-down ones mostly are refused, where 40 of 400 clicks convert."""
    rng = np.random.default_rng(1)
    sound, wrong = [], []
    for _ in range(300):
        s = -2.4 + rng.normal(0.0, 0.7, 400)
        y = rng.random(400) < expit(s)
        sound.append(checked(y, expit(s)).passed)
        wrong.append(checked(y, expit(-4.8 - s)).passed)
    assert np.mean(sound) >= CONFIG.confidence
    assert np.mean(wrong) < 0.1


def test_a_champion_that_is_worse_is_no_reason_to_refuse() -> None:
    rng = np.random.default_rng(2)
    s = -2.4 + rng.normal(0.0, 0.7, 2_000)
    y = rng.random(2_000) < expit(s)
    upside_down, worse, sound = expit(-4.8 - s), expit(-2.4 - 2.0 * (s + 2.4)), expit(s)
    assert not checked(y, upside_down, sound).passed
    assert checked(y, upside_down, worse).passed
