"""Checks a log before anything is learnt from it: bad rows are set aside and counted, bad logs refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from bidml.errors import ConfigError, DataError
from bidml.log.conform import conform
from bidml.log.quarantine import QuarantineReport, json_cells, reading_report, without_reading_report
from bidml.log.rules import RULES, Limits, first_broken
from bidml.log.schema import Need
from bidml.log.whole_log import (
    check_columns,
    check_not_empty,
    check_one_currency,
    check_outcomes,
    check_price_units,
)
from bidml.units import is_currency_code


@dataclass(frozen=True, slots=True, eq=False)
class ValidatedLog:
    """`log`: the rows that passed, in order, in the schema's types; `quarantine`: the others."""

    log: pd.DataFrame
    quarantine: QuarantineReport


def validate(
    log: pd.DataFrame,
    *,
    needs: Iterable[Need | str],
    window: tuple[datetime | None, datetime | None] = (None, None),
    max_quarantined: float = 0.05,
    price_tolerance: float = 0.01,
    check_units: bool = True,
) -> ValidatedLog:
    """Quarantines the rows that break a rule of `bidml.log.rules`; refuses a log that is bad as a whole.

    `window` is [start, end) in UTC, and rows outside count as bad: select a window before;
    `max_quarantined` is the largest share of rows (and of lines the reader could not parse) that may be set
    aside; `price_tolerance` is relative; `check_units=False` accepts prices that look like another unit.

    Raises `DataError` for an empty log, a missing column, a column of another type, mixed currencies, a
    suspected wrong unit, one-sided outcomes, and too much quarantine; `ConfigError` for an unknown need.
    """
    wanted = frozenset(_need(name) for name in needs)
    check_not_empty(log)
    check_columns(log, wanted)
    typed = conform(log)
    check_one_currency(_known_currencies(typed))
    if check_units:
        check_price_units(typed)
    limits = Limits(_utc(window[0]), _utc(window[1]), price_tolerance)
    broken = first_broken(typed, needs=wanted, limits=limits)
    report = _report(typed, broken)
    if report.share > max_quarantined or len(report.rows) == report.n_rows:
        raise DataError(
            f"at most {max_quarantined:.1%} of a log is quarantined",
            value=f"{report.share:.1%}: {_all_counts(report)}",
            remedy="repair the log or its mapping; validate with a larger max_quarantined to see the rows",
        )
    kept = without_reading_report(conform(typed[broken == ""]))
    if check_units:
        check_price_units(kept)
    check_outcomes(kept, wanted)
    return ValidatedLog(kept, report)


def _need(name: Need | str) -> Need:
    try:
        return Need(name)
    except ValueError:
        raise ConfigError(
            "a need of a log is known", value=name, remedy=f"one of {[need.value for need in Need]}"
        ) from None


def _utc(time: datetime | None) -> datetime | None:
    if time is not None and time.tzinfo is None:
        raise ConfigError("a time window has a time zone", value=time, remedy="write it with +00:00")
    return time


def _known_currencies(log: pd.DataFrame) -> pd.DataFrame:
    if "currency" not in log.columns:
        return log
    known = [code for code in log["currency"].dropna().unique() if is_currency_code(code)]
    return log[log["currency"].isin(known)]


def _report(log: pd.DataFrame, broken: pd.Series[Any]) -> QuarantineReport:
    bad = broken != ""
    rows = log[bad].assign(rule=broken[bad].astype("str")).reset_index(drop=True)
    counts, examples, why = {}, {}, {}
    met = set(rows["rule"])
    for rule in RULES:
        if rule.name in met:
            found = rows[rows["rule"] == rule.name]
            counts[rule.name] = len(found)
            why[rule.name] = rule.why
            shown = [name for name in dict.fromkeys(("auction_id", *rule.columns)) if name in found.columns]
            examples[rule.name] = _example(found, shown)
    return QuarantineReport(len(log), rows, counts, examples, why, reading_report(log))


def _example(found: pd.DataFrame, columns: list[str]) -> dict[str, Any]:
    """The smallest row as text, so that the order of the log does not choose it."""
    shown = found if columns in ([], ["auction_id"]) else found[columns]
    as_text = shown.astype(object).map(str)
    return json_cells(shown.loc[as_text.sort_values(list(as_text.columns)).index[0]])


def _all_counts(report: QuarantineReport) -> dict[str, int]:
    return {**report.counts, **report.reading.malformed}
