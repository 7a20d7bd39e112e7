"""How old a model may be: fresh bids to the cap, aged to a lower cap, expired not at all. Standard library only."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from bidml.errors import ConfigError


class Age(StrEnum):
    FRESH = "fresh"
    AGED = "aged"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Staleness:
    """A policy on the age of a model, counted from the end of its training data, in seconds.

    From `aged_after_seconds` every line item's cap is multiplied by `aged_cap_factor` in (0, 1]; from
    `expired_after_seconds` there is no bid. Raises `ConfigError`.
    """

    aged_after_seconds: float
    expired_after_seconds: float
    aged_cap_factor: float = 0.5

    def __post_init__(self) -> None:
        numbers = (self.aged_after_seconds, self.expired_after_seconds, self.aged_cap_factor)
        finite = all(isinstance(x, int | float) and not isinstance(x, bool) and x == x for x in numbers)
        if not (finite and 0.0 < numbers[0] <= numbers[1] and 0.0 < numbers[2] <= 1.0):
            raise ConfigError(
                "a model ages before it expires, and its cap is then multiplied by a factor in (0, 1]",
                value=numbers,
                remedy="give 0 < aged_after_seconds <= expired_after_seconds",
            )

    def age_at(self, seconds: float) -> Age:
        if seconds >= self.expired_after_seconds:
            return Age.EXPIRED
        return Age.AGED if seconds >= self.aged_after_seconds else Age.FRESH


class Clocks:
    """The age of data: its end by the wall clock once, when the model arrives; from then on by a clock that only rises.

    So a wall clock that is set back later makes no model young. Data from the future has age 0.
    """

    def __init__(
        self, monotonic: Callable[[], float] | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        self.monotonic: Final = monotonic or _since_boot
        self.wall: Final = wall

    def born(self, data_end: str | None) -> float:
        """When the data ended, on the monotonic clock; NaN when that is not known."""
        if data_end is None:
            return math.nan
        age = self.wall() - datetime.fromisoformat(data_end).timestamp()
        return self.monotonic() - max(0.0, age)


def _since_boot() -> float:
    """The monotonic clock; where the system has one, one that also counts while the machine is suspended."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
