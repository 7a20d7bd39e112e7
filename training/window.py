"""The days that a job trains on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from bidml.errors import ConfigError

_MAX_DAYS: Final = 366


@dataclass(frozen=True, slots=True)
class Window:
    """From `first` to `last`, both included, in UTC days.

    >>> window = Window.parse("2026-11-01/2026-11-07")
    >>> len(window.days), window.end.isoformat()
    (7, '2026-11-08T00:00:00+00:00')
    """

    first: date
    last: date

    @classmethod
    def parse(cls, text: str, *, today: date | None = None) -> Window:
        """FIRST/LAST or one day, as YYYY-MM-DD, or last-N-days: those before `today` (UTC). Raises `ConfigError`."""
        if recent := re.fullmatch(r"last-([1-9]\d{0,3})-days", text):
            yesterday = (today or datetime.now(UTC).date()) - timedelta(days=1)
            text = f"{yesterday - timedelta(days=int(recent[1]) - 1)}/{yesterday}"
        first, slash, last = text.partition("/")
        try:
            window = cls(_day(first), _day(last) if slash else _day(first))
        except ValueError:
            window = None
        if window is None or not timedelta(0) <= window.last - window.first < timedelta(days=_MAX_DAYS):
            raise ConfigError(
                f"a window is FIRST/LAST or last-N-days, at most {_MAX_DAYS} days",
                value=text,
                remedy="for example 2026-11-01/2026-11-07, last-7-days",
            )
        return window

    def __str__(self) -> str:
        return f"{self.first}_{self.last}"

    @property
    def days(self) -> tuple[date, ...]:
        n = (self.last - self.first).days + 1
        return tuple(self.first + timedelta(days=i) for i in range(n))

    @property
    def start(self) -> datetime:
        return datetime.combine(self.first, time(), UTC)

    @property
    def end(self) -> datetime:
        """The first moment that no longer belongs to it."""
        return datetime.combine(self.last + timedelta(days=1), time(), UTC)


def _day(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        raise ValueError(text)
    return date.fromisoformat(text)
