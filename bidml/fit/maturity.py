"""How many of a click's conversions have arrived by now: the curve of arrival, and what it says of a log's clicks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.errors import ConfigError, DataError
from bidml.features import Doubles


@dataclass(frozen=True, slots=True, eq=False)
class MaturityCurve:
    """G(e): the share of conversions within the window that have arrived at age e, in seconds.

    A step function: `arrived[i]` from `delays[i]` on, (m,) each, both increasing, the last 1.
    """

    delays: Doubles
    arrived: Doubles

    def __call__(self, age_seconds: npt.ArrayLike) -> Doubles:
        """G at each age, (n,); 0 before the first delay."""
        at = np.searchsorted(self.delays, np.asarray(age_seconds, dtype=np.float64), side="right")
        found: Doubles = np.append(0.0, self.arrived)[at]
        return found

    @classmethod
    def of(cls, delay_seconds: npt.ArrayLike, age_seconds: npt.ArrayLike) -> MaturityCurve:
        """From conversions (n,): how long each took, and how old its click is now; delays at most the ages.

        Known up to the oldest age: if that is less than the window, so is what G counts.
        Raises `DataError` without conversions, and for a delay that is negative or longer than the age.
        """
        delay, age = np.asarray(delay_seconds, dtype=np.float64), np.asarray(age_seconds, dtype=np.float64)
        if not len(delay) or delay.shape != age.shape:
            raise DataError(
                "maturity is learnt from conversions", value=delay.shape, remedy="take a longer log"
            )
        if not ((delay >= 0.0) & (delay <= age)).all():
            raise DataError(
                "a conversion follows its click and precedes the end of the log",
                value=float(delay[~((delay >= 0.0) & (delay <= age))][0]),
                remedy="check the timestamps and as_of",
            )
        distinct, events = np.unique(delay, return_counts=True)
        # at risk in reversed time at u: conversions with delay ≤ u that would have been seen at u, age ≥ u
        at_risk = np.searchsorted(np.sort(delay), distinct, side="right") - np.searchsorted(
            np.sort(age), distinct, side="left"
        )
        # G(before u) = G(u) · (1 − events(u) / at risk(u)), from the last delay down
        kept = 1.0 - events / at_risk
        kept[0] = 1.0  # the first delay holds all that is left
        arrived = np.append(np.cumprod(kept[:0:-1])[::-1], 1.0)
        return cls(distinct, arrived)


@dataclass(frozen=True, slots=True, eq=False)
class Maturity:
    """The arrival of conversions in a log, as known at `as_of` (seconds since 1970) within `window` seconds."""

    curve: MaturityCurve
    window: float
    as_of: float

    @classmethod
    def of(cls, log: pd.DataFrame, window: str) -> Maturity | None:
        """From the clicks of a log; None where it has no conversions, or no times of them.

        `as_of` is the latest time in the log. Raises `ConfigError` for a window that is no duration.
        """
        seconds = window_seconds(window)
        if not {"clicked", "converted", "click_timestamp", "conversion_timestamp"} <= set(log.columns):
            return None
        as_of = latest_seconds(log)
        clicks = log[log["clicked"].to_numpy(dtype=bool)]
        clicked_at = utc_seconds(clicks["click_timestamp"])
        delay = utc_seconds(clicks["conversion_timestamp"]) - clicked_at
        counted = clicks["converted"].to_numpy(dtype=bool) & (delay >= 0.0) & (delay <= seconds)
        if not counted.any():
            return None
        age = np.minimum(as_of - clicked_at, seconds)
        return cls(MaturityCurve.of(delay[counted], age[counted]), seconds, as_of)

    def arrived(self, clicks: pd.DataFrame) -> Doubles:
        """The share of each click's conversions that is known by now, (n,)."""
        age = np.minimum(self.as_of - utc_seconds(clicks["click_timestamp"]), self.window)
        return self.curve(age)

    def converted(self, clicks: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Conversions within the window, as known by now, (n,)."""
        delay = utc_seconds(clicks["conversion_timestamp"]) - utc_seconds(clicks["click_timestamp"])
        return np.asarray(clicks["converted"].to_numpy(dtype=bool) & (delay <= self.window))


def latest_seconds(log: pd.DataFrame) -> float:
    """The latest time in any column of times of a log, in seconds since 1970: it was written no earlier."""
    names = ("timestamp", "click_timestamp", "conversion_timestamp")
    latest = [utc_seconds(log[name]) for name in names if name in log]
    return float(np.nanmax(np.concatenate(latest)))


def window_seconds(window: str) -> float:
    """A duration as pandas reads it ("7D"), in seconds; raises `ConfigError` for another."""
    try:
        seconds = pd.Timedelta(window).total_seconds()
    except ValueError:
        seconds = float("nan")
    if not seconds > 0.0:
        raise ConfigError("a window is a positive duration", value=window, remedy='for example "7D"')
    return float(seconds)


def utc_seconds(times: pd.Series[Any]) -> Doubles:
    """Times as seconds since 1970, (n,), null as NaN."""
    utc = pd.to_datetime(times, utc=True)
    seconds = (utc - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return np.asarray(seconds, dtype=np.float64)
