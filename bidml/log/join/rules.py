"""What the join does beyond matching ids: days, watermark, windows, clocks, currencies. All off by default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from bidml.errors import ConfigError
from bidml.log.events import EVENT_TYPES
from bidml.units import is_currency_code

NOTICES: Final = ("win", "loss", "impression")
_LONGEST_RANGE: Final = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class JoinRules:
    """With every rule at its default the join is `read_log(format="openrtb")`, only larger.

    `days`: first and last UTC day (inclusive) of the bids that make rows; every one of them must have bids.
    `as_of`: events dated at or after it are not read, so that a rerun with more data gives the same rows.
    `notice_window`, `click_window`, `conversion_window`: how long after its bid a win, loss or impression
    counts, after its impression a click, after its click a conversion.
    `clock_skew`: how long before its cause an event may be dated; it is moved to its cause. Earlier ones
    are dropped.
    `clock_offset`: by event type, what is added to its times: minus an hour for a clock an hour fast.
    `currency` and `rates`: all money in `currency`, by `rates[day, currency]` = its units for one of theirs.
    `max_malformed`: the largest share of lines that may be no events; `max_out_of_time`: the largest share
    of one type's events that windows and skew may drop. Above either the join is refused.
    """

    days: tuple[date, date] | None = None
    as_of: datetime | None = None
    notice_window: timedelta | None = None
    click_window: timedelta | None = None
    conversion_window: timedelta | None = None
    clock_skew: timedelta | None = None
    clock_offset: Mapping[str, timedelta] = field(default_factory=dict)
    currency: str | None = None
    rates: Mapping[tuple[date, str], float] = field(default_factory=dict)
    max_malformed: float = 0.05
    max_out_of_time: float = 0.05

    def __post_init__(self) -> None:
        if self.days is not None and not timedelta(0) <= self.days[1] - self.days[0] <= _LONGEST_RANGE:
            _refuse("days are (first, last), at most 400 days", self.days, "order them, or join in parts")
        if self.as_of is not None and self.as_of.tzinfo is None:
            _refuse("as_of has a time zone", self.as_of, "add +00:00 for UTC")
        for name in ("notice_window", "click_window", "conversion_window", "clock_skew"):
            span = getattr(self, name)
            if span is not None and not timedelta(0) <= span <= _LONGEST_RANGE:
                _refuse(f"{name} is between 0 and 400 days", span, "correct it")
        for kind in self.clock_offset:
            if kind not in EVENT_TYPES:
                _refuse("a clock offset is of an event type", kind, f"one of {list(EVENT_TYPES)}")
        if self.rates and self.currency is None:
            _refuse("exchange rates convert into a currency", None, "set currency")
        if self.currency is not None and not is_currency_code(self.currency):
            _refuse("a currency is an ISO 4217 code", self.currency, "for example USD")
        for (day, code), rate in self.rates.items():
            if not is_currency_code(code) or not math.isfinite(rate) or rate <= 0.0:
                _refuse("an exchange rate is a positive number", f"{day} {code}: {rate}", "correct it")
        for name in ("max_malformed", "max_out_of_time"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                _refuse(f"{name} is a share", getattr(self, name), "a number from 0 to 1")

    @property
    def judges_time(self) -> bool:
        """Whether any window or the clock rule is on."""
        spans = (self.notice_window, self.click_window, self.conversion_window, self.clock_skew)
        return any(span is not None for span in spans)

    def is_final(self, day: date) -> bool:
        """Whether no event at or after `as_of` can change the rows of `day`: all its windows have closed.

        >>> rules = JoinRules(as_of=datetime(2026, 3, 4, tzinfo=UTC), notice_window=timedelta(hours=1),
        ...     click_window=timedelta(hours=11), conversion_window=timedelta(days=1), clock_skew=timedelta(0))
        >>> rules.is_final(date(2026, 3, 1)), rules.is_final(date(2026, 3, 2)), rules.is_final(date(2026, 3, 3))
        (True, True, False)
        """
        windows = (self.notice_window, self.click_window, self.conversion_window)
        if self.as_of is None or any(window is None for window in windows):
            return False
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        return midnight + sum((window for window in windows if window), timedelta(0)) <= self.as_of

    def to_json(self) -> dict[str, Any]:
        """The rules that are on, times in seconds."""
        spans = ("notice_window", "click_window", "conversion_window", "clock_skew")
        found: dict[str, Any] = {
            "days": self.days and [day.isoformat() for day in self.days],
            "as_of": self.as_of and self.as_of.astimezone(UTC).isoformat(),
            **{f"{name}_s": seconds(getattr(self, name)) for name in spans},
            "clock_offset_s": {kind: seconds(offset) for kind, offset in sorted(self.clock_offset.items())},
            "currency": self.currency,
            "rates": {f"{day} {code}": rate for (day, code), rate in sorted(self.rates.items())},
        }
        return {name: value for name, value in found.items() if value not in (None, {})}


def seconds(span: timedelta | None) -> float | None:
    return None if span is None else span.total_seconds()


def _refuse(rule: str, value: object, remedy: str) -> None:
    raise ConfigError(rule, value=value if isinstance(value, str) else str(value), remedy=remedy)
