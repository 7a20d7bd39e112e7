"""The days, or hours, that a job trains on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

from bidml.errors import ConfigError

_MAX_DAYS: Final = 366
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `end`, the first moment that no longer belongs to it; full hours, UTC.

    >>> window = Window.parse("2026-11-01/2026-11-07")
    >>> len(window.days), window.end.isoformat()
    (7, '2026-11-08T00:00:00+00:00')
    >>> str(Window.parse("2026-11-08T00/2026-11-08T05"))
    '2026-11-08T00_2026-11-08T05'
    """

    start: datetime
    end: datetime

    @classmethod
    def parse(cls, text: str, *, now: datetime | None = None) -> Window:
        """FIRST/LAST or one of them, both included: days as YYYY-MM-DD, hours as YYYY-MM-DDTHH. Or last-N-days,
        last-N-hours: the last full ones before `now` (UTC). Raises `ConfigError`."""
        window = _recent(text, now or datetime.now(UTC)) or _named(text)
        if window is None or not timedelta(0) < window.end - window.start <= _MAX_DAYS * _DAY:
            raise ConfigError(
                f"a window is FIRST/LAST, last-N-days or last-N-hours, at most {_MAX_DAYS} days",
                value=text,
                remedy="for example 2026-11-01/2026-11-07, 2026-11-08T00/2026-11-08T05, last-7-days",
            )
        return window

    def __str__(self) -> str:
        if self.start.hour or self.end.hour:
            return f"{self.start:%Y-%m-%dT%H}_{self.end - _HOUR:%Y-%m-%dT%H}"
        return f"{self.start.date()}_{self.days[-1]}"

    @property
    def days(self) -> tuple[date, ...]:
        """Those that it has a part of."""
        n = ((self.end - _HOUR).date() - self.start.date()).days + 1
        return tuple(self.start.date() + timedelta(days=i) for i in range(n))

    @property
    def hours(self) -> tuple[datetime, ...]:
        """When each begins."""
        return tuple(self.start + i * _HOUR for i in range((self.end - self.start) // _HOUR))


def _recent(text: str, now: datetime) -> Window | None:
    """last-N-days, last-N-hours."""
    found = re.fullmatch(r"last-([1-9]\d{0,3})-(days|hours)", text)
    if found is None:
        return None
    unit = _DAY if found[2] == "days" else _HOUR
    now = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    end = now.replace(hour=0) if found[2] == "days" else now
    return Window(end - int(found[1]) * unit, end)


def _named(text: str) -> Window | None:
    """FIRST/LAST, or FIRST for both; None where a part is no day and no hour."""
    first, slash, last = text.partition("/")
    begins, ends = _moment(first), _moment(last if slash else first)
    return Window(begins[0], ends[0] + ends[1]) if begins and ends else None


def _moment(text: str) -> tuple[datetime, timedelta] | None:
    """When a day or an hour begins, and how long it is."""
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(T\d{2})?", text):
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC), _HOUR if "T" in text else _DAY
    except ValueError:
        return None
