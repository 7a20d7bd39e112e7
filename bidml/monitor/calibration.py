"""A live guard of click calibration that knows how late clicks come.

Of an impression shown a seconds ago with predicted click rate p, a click has come by now with probability p·G(a), G the
share of clicks that have arrived at that age. So clicks are held against those that were to be expected *by now*, not
against p, and a young hour is no alarm. The expectation is the compensator of the clicks: between −ln(1 − p·G) (the
integrated hazard, which counts until the click) and p·G; each direction uses the end that errs on the silent side.
The alarm may be read at any time: bidml/monitor/sequential.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bidml.errors import ConfigError, DataError
from bidml.features import Doubles
from bidml.metrics import Interval
from bidml.monitor.sequential import log_e_above, log_e_below, ratio_sequence

Arrived = Callable[[Doubles], Doubles]
"""Ages in seconds (n,) → the share of clicks that have arrived, never falling: `bidml.fit.cvr.MaturityCurve`."""

_MOST: Final = 1.0 - 1e-12


@dataclass(frozen=True, slots=True)
class Reading:
    """`clicks` so far and those `expected` by now; `ratio` is predicted / observed, in its confidence sequence.

    `alarm`: "over" when the model certainly predicts too many clicks, by more than the tolerance, "under" too few, else
    None. It may be read as often as one likes: a calibrated model raises one ever with probability 1 − confidence.
    """

    clicks: int
    expected: float
    ratio: float
    low: float
    high: float
    alarm: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            name: x if not isinstance(x, float) or math.isfinite(x) else None
            for name, x in asdict(self).items()
        }


class CalibrationGuard:
    """Of the impressions and clicks of one model, or of one segment."""

    def __init__(
        self,
        arrived: Arrived,
        *,
        tolerance: float = 0.1,
        confidence: float = 0.999,
        horizon: float = 86_400.0,
    ) -> None:
        """`tolerance`: a level wrong by less is no alarm. After `horizon` seconds every click has come.

        Raises `ConfigError`.
        """
        if not (tolerance >= 0.0 and 0.0 < confidence < 1.0 and horizon > 0.0):
            raise ConfigError(
                "a guard has a tolerance of at least 0, a confidence in (0, 1) and a horizon in seconds",
                value=(tolerance, confidence, horizon),
                remedy="for example tolerance=0.1, confidence=0.999, horizon=86400",
            )
        self._arrived = arrived
        self._tolerance = 1.0 + tolerance
        self._confidence = confidence
        self._horizon = horizon
        self._clicks = 0
        self._settled = np.zeros(2)  # of impressions older than the horizon, and of clicks: (hazard, p·G)
        self._young: list[
            tuple[Doubles, Doubles]
        ] = []  # (shown, pctr) of impressions younger than the horizon
        self._young_clicks: list[tuple[Doubles, Doubles]] = []

    def impressions(self, shown: npt.ArrayLike, pctr: npt.ArrayLike) -> None:
        """Shown at times (n,) in seconds with predicted rates (n,); before the clicks on them."""
        self._young.append(_checked(shown, pctr))

    def clicks(self, shown: npt.ArrayLike, pctr: npt.ArrayLike, clicked: npt.ArrayLike) -> None:
        """Clicks at times `clicked` (n,), at most one per impression; `shown` and `pctr` are the impressions' own."""
        when, p = _checked(shown, pctr)
        delays = np.asarray(clicked, dtype=np.float64) - when
        if delays.shape != when.shape or not (delays >= 0.0).all():
            raise DataError(
                "a click follows its impression",
                value=delays[~(delays >= 0.0)][:3],
                remedy="check the clocks",
            )
        self._clicks += len(when)
        self._settled += self._expected(p, delays)  # what an impression adds ends with its click ...
        self._young_clicks.append((when, p))  # ... so that what it adds as if unclicked is taken off

    def read(self, now: float) -> Reading:
        """At `now` in seconds, not before any impression or click that was told."""
        self._settle(now)
        hazard, share = self._settled.copy()
        for sign, parts in ((1.0, self._young), (-1.0, self._young_clicks)):
            for shown, p in parts:
                h, s = self._expected(p, now - shown)
                hazard, share = hazard + sign * h, share + sign * s
        limit = math.log(2.0 / (1.0 - self._confidence))  # half of it for each side
        alarm = None
        if log_e_above(self._clicks, hazard, at_most=self._tolerance) >= limit:
            alarm = "under"
        elif log_e_below(self._clicks, share, at_least=1.0 / self._tolerance) >= limit:
            alarm = "over"
        observed = ratio_sequence(self._clicks, share, confidence=self._confidence)
        ratio = _inverse(observed)
        return Reading(
            self._clicks, float(share), float(ratio.value), float(ratio.low), float(ratio.high), alarm
        )

    def _expected(self, p: Doubles, age: Doubles) -> npt.NDArray[np.float64]:
        """(integrated hazard, p·G), summed."""
        arrived = p * np.where(age >= self._horizon, 1.0, self._arrived(np.maximum(age, 0.0)))
        return np.array([-np.log1p(-np.minimum(arrived, _MOST)).sum(), arrived.sum()])

    def _settle(self, now: float) -> None:
        """What is older than the horizon no longer changes: its sums are kept, its rows are not."""
        for sign, parts in ((1.0, self._young), (-1.0, self._young_clicks)):
            kept = []
            for shown, p in parts:
                old = now - shown >= self._horizon
                if old.any():
                    self._settled += sign * self._expected(p[old], now - shown[old])
                if not old.all():
                    kept.append((shown[~old], p[~old]))
            parts[:] = kept


def _checked(shown: npt.ArrayLike, pctr: npt.ArrayLike) -> tuple[Doubles, Doubles]:
    when, p = np.asarray(shown, dtype=np.float64), np.asarray(pctr, dtype=np.float64)
    if when.ndim != 1 or when.shape != p.shape or not ((p >= 0.0) & (p <= 1.0)).all():
        raise DataError(
            "impressions have a time and a predicted click rate in [0, 1] each",
            value=(when.shape, p.shape),
            remedy="give two arrays of one length",
        )
    return when, p


def _inverse(observed: Interval) -> Interval:
    """predicted / observed from observed / predicted."""

    def one_over(x: float) -> float:
        return 1.0 / x if x > 0.0 else math.inf

    return Interval(one_over(observed.value), one_over(observed.high), one_over(observed.low))
