"""How far outcomes lie above their expectation at the end of a log, by all of it, not by its last clicks alone.

The last 380 clicks tell a level to 5 %, 2,500 tell it to 2 %: if nothing moves. So the log is cut into periods, and the
level of the log-odds is a random walk over them (local level model, Harvey 1989): z_t = ln(Y_t/E_t) = L_t + noise of
variance 1/Y, L_t − L_{t−1} ~ N(0, q). The filter's last state is averaged over q by evidence, with half of the prior
weight on q = 0: a still level is told by all clicks, a moving one by the latest, and what is unclear lies between.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bidml.fit.crew import ALONE, Crew, sampled
from bidml.fit.encoding import Doubles, as_ticks

_PERIODS: Final = 14
_STEPS: Final = (0.02, 0.05, 0.1, 0.2, 0.4)  # standard deviations of a period's step
_SD_AT_FIRST: Final = 1.0
_STILL: Final = 0.5  # the prior chance that nothing moves


def late_level(
    log_odds: Doubles,
    y: Doubles,
    time: npt.NDArray[np.generic],
    *,
    weight: Doubles | None = None,
    crew: Crew = ALONE,
) -> float:
    """What to add to `log_odds` (n,), which are right for the log as a whole, at its end; outcomes `y` (n,).

    0.0 without an event.
    """
    ticks = as_ticks(time)
    known = np.sort(sampled(crew, ticks))
    begins = known[np.arange(1, _PERIODS) * len(known) // _PERIODS]
    period = np.searchsorted(begins, ticks, side="right")
    w = np.ones(len(y)) if weight is None else weight
    of = (w * y, w * expit(log_odds), w * w * y)
    events, expected, squares = (
        crew.sum(np.bincount(period, weights=each, minlength=_PERIODS).astype(np.float64)) for each in of
    )
    if not events.sum() > 0.0:
        return 0.0
    return filtered_level(events, expected, unit=squares.sum() / events.sum())


def filtered_level(events: Doubles, expected: Doubles, *, unit: float = 1.0) -> float:
    """L at the end, given `events` and `expected` ones of each period (n_periods,); `unit`: what one event weighs."""
    y, e = events / unit, expected / unit
    z, noise = np.log((y + 0.5) / (e + 0.5)), 1.0 / (0.5 * (y + e) + 0.5)
    found = [_filter(z, noise, step**2) for step in (0.0, *_STEPS)]
    evidence, level = np.array(found).T
    prior = np.array([_STILL, *[(1.0 - _STILL) / len(_STEPS)] * len(_STEPS)])
    weights = prior * np.exp(evidence - evidence.max())
    return float((weights * level).sum() / weights.sum())


def _filter(z: Doubles, noise: Doubles, q: float) -> tuple[float, float]:
    """(ln evidence, last level) by Kalman's filter."""
    level, variance, evidence = 0.0, _SD_AT_FIRST**2, 0.0
    for x, r in zip(z, noise, strict=True):
        spread = variance + r
        evidence -= 0.5 * (np.log(spread) + (x - level) ** 2 / spread)
        gain = variance / spread
        level += gain * (x - level)
        variance = variance * (1.0 - gain) + q
    return evidence, level
