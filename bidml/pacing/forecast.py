"""The shape of a day: how much of its traffic is still to come.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from bidml.errors import ConfigError, DataError

_SMOOTHING: Final = 0.02  # of the mean count: a window that was always empty may have traffic tomorrow


@dataclass(frozen=True, slots=True)
class TrafficForecast:
    """`expected`: auctions (not shares) per control window of a day, (n_windows,).

    Raises `ConfigError` for negative counts and for no traffic at all.
    """

    expected: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "expected", tuple(map(float, self.expected)))
        if not (all(0.0 <= n < math.inf for n in self.expected) and sum(self.expected) > 0.0):
            raise ConfigError(
                "a forecast has counts of at least 0, and some traffic",
                value=self.expected[:5],
                remedy="fit it to the counts of past days",
            )

    @classmethod
    def flat(cls, n_windows: int, n_auctions: float) -> TrafficForecast:
        """`n_auctions` in all, the same in every window."""
        return cls((n_auctions / n_windows,) * n_windows)

    @classmethod
    def fit(cls, days: Sequence[Sequence[float]], *, width: int = 3) -> TrafficForecast:
        """The mean of past days, (n_days, n_windows), smoothed over 2 · width + 1 windows, around midnight.

        Raises `DataError` when the days have no common number of windows.
        """
        lengths = {len(day) for day in days}
        if len(lengths) != 1:
            raise DataError(
                "days have the same number of windows",
                value=sorted(lengths),
                remedy="count all windows of a day",
            )
        n = lengths.pop()
        mean = [sum(float(day[j]) for day in days) / len(days) for j in range(n)]
        around = [
            sum(mean[(j + i) % n] for i in range(-width, width + 1)) / (2 * width + 1) for j in range(n)
        ]
        least = _SMOOTHING * sum(around) / n
        return cls(tuple(count + least for count in around))

    @property
    def n_windows(self) -> int:
        return len(self.expected)

    @property
    def total(self) -> float:
        """Expected auctions of the day."""
        return sum(self.expected)

    def passed(self) -> tuple[float, ...]:
        """Expected auctions before each window, and of the whole day: (n_windows + 1,)."""
        return tuple(accumulate(self.expected, initial=0.0))

    def to_json(self) -> list[float]:
        return list(self.expected)

    @classmethod
    def from_json(cls, document: Any) -> TrafficForecast:
        return cls(tuple(document))
