"""The texts of a command line or a job as `JoinRules`: `2026-03-01`, `30d`, `win=-1h`, a CSV of exchange rates."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Final

from bidml.errors import ConfigError, DataError
from bidml.log.join.rules import JoinRules

_SPAN = re.compile(r"([+-]?)(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def rules_from_options(
    *,
    first_day: str | None = None,
    last_day: str | None = None,
    as_of: str | None = None,
    notice_window: str | None = None,
    click_window: str | None = None,
    conversion_window: str | None = None,
    clock_skew: str | None = None,
    clock_offsets: Iterable[str] = (),
    convert_to: str | None = None,
    rates: Path | None = None,
    max_malformed: float = 0.05,
    max_out_of_time: float = 0.05,
) -> JoinRules:
    """`last_day` defaults to `first_day`; `rates` is a CSV with the columns day, currency, rate.

    Raises `ConfigError` for a text that is no such value, `DataError` for an unreadable file of rates.
    """
    if last_day is not None and first_day is None:
        raise ConfigError("a last day has a first one", value=last_day, remedy="set the first day too")
    first = None if first_day is None else _day(first_day)
    return JoinRules(
        days=None if first is None else (first, first if last_day is None else _day(last_day)),
        as_of=None if as_of is None else _moment(as_of),
        notice_window=_maybe_span(notice_window),
        click_window=_maybe_span(click_window),
        conversion_window=_maybe_span(conversion_window),
        clock_skew=_maybe_span(clock_skew),
        clock_offset=dict(_offset(text) for text in clock_offsets),
        currency=convert_to,
        rates={} if rates is None else read_rates(rates),
        max_malformed=max_malformed,
        max_out_of_time=max_out_of_time,
    )


def span(text: str) -> timedelta:
    """A number and a unit.

    >>> span("90s"), span("-1.5h"), span("30d")
    (datetime.timedelta(seconds=90), datetime.timedelta(days=-1, seconds=81000), datetime.timedelta(days=30))
    """
    match = _SPAN.fullmatch(text)
    if match is None or len(text) > 20:
        raise ConfigError("a time span is a number and ms, s, m, h or d", value=text, remedy="such as 30d")
    found = float(match[2]) * _UNIT[match[3]]
    return -found if match[1] == "-" else found


def read_rates(path: Path) -> dict[tuple[date, str], float]:
    """(day, currency) → rate of a CSV file; raises `DataError`."""
    rates: dict[tuple[date, str], float] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                key = (date.fromisoformat(row["day"]), row["currency"])
                if key in rates:
                    raise ValueError(f"{row['day']} {row['currency']} twice")
                rates[key] = float(row["rate"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            "exchange rates are a CSV with the columns day, currency and rate, one line for each day and currency",
            value=f"{path}: {error}",
            remedy="correct it",
        ) from None
    return rates


def _maybe_span(text: str | None) -> timedelta | None:
    return None if text is None else span(text)


def _offset(text: str) -> tuple[str, timedelta]:
    kind, equals, offset = text.partition("=")
    if not equals:
        raise ConfigError("a clock offset is type=span", value=text, remedy="such as win=-1h")
    return kind, span(offset)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError("a day is written YYYY-MM-DD", value=text, remedy="correct it") from None


def _moment(text: str) -> datetime:
    """ISO 8601; UTC if no zone is named."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("as_of is an ISO 8601 time", value=text, remedy="2026-03-04T00:00:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
