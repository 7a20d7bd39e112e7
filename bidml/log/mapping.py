"""From the names, units and texts of somebody else's table to those of the auction log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import numpy as np
import pandas as pd

from bidml.errors import ConfigError, DataError
from bidml.log.conform import conform
from bidml.log.quarantine import ReadingReport
from bidml.log.schema import COLUMN, TRUTH_PREFIX, ColumnType


class PriceUnit(StrEnum):
    """The unit of every price column of a file: CPM; hundredths of it (iPinYou's fen, cents per thousand);
    micros for a thousand impressions; micros for one impression."""

    CPM = "cpm"
    CENTI_CPM = "centi_cpm"
    MICROS_PER_MILLE = "micros_per_mille"
    MICROS_PER_IMPRESSION = "micros_per_impression"


UNITS_PER_CPM: Final[Mapping[PriceUnit, float]] = {
    PriceUnit.CPM: 1.0,
    PriceUnit.CENTI_CPM: 100.0,
    PriceUnit.MICROS_PER_MILLE: 1e6,
    PriceUnit.MICROS_PER_IMPRESSION: 1e3,
}


class TimeUnit(StrEnum):
    """The unit of times given as numbers (since 1970, UTC); times given as text are ISO 8601."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"


@dataclass(frozen=True, slots=True)
class TableMapping:
    """How a file's columns become a log's.

    `columns` maps a name of the log (or of a feature) to the file's name; unmapped columns keep theirs.
    `currency` and `auction_type` fill those columns where the file has none. `numbers` names feature
    columns to read as numbers where the file holds text.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    currency: str | None = None
    auction_type: int | None = None
    price_unit: PriceUnit = PriceUnit.CPM
    time_unit: TimeUnit = TimeUnit.MILLISECONDS
    numbers: Collection[str] = ()


_FLAG_TEXTS: Final = {"0": False, "1": True, "false": False, "true": True}


def mapped(table: pd.DataFrame, mapping: TableMapping, report: ReadingReport) -> pd.DataFrame:
    """`table` (text or typed cells) as an auction log; rows with a cell that is no such value are taken out.

    Those rows are counted as malformed, `unreadable_<column>`. Text that is no number in a feature column
    is missing, and noted. A table with `bid_cpm` and `true_market_price_cpm` and no `won` is settled (see
    `settled`).
    """
    log = _renamed(table, mapping.columns)
    malformed, notes, examples = dict(report.malformed), dict(report.notes), dict(report.examples)
    bad = pd.Series(False, index=log.index)
    for name in log.columns:
        kind = _kind(name, mapping.numbers)
        if kind is None:
            continue
        cells = log[name]
        parsed = _parsed(cells, kind, mapping.time_unit)
        lost = parsed.isna() & cells.notna()
        if lost.any():
            is_part_of_log = name in COLUMN or name.startswith(TRUTH_PREFIX)
            rule = f"unreadable_{name}"
            (malformed if is_part_of_log else notes)[rule] = int(lost.sum())
            examples[rule] = str(cells[lost].iloc[0])
            bad |= lost & is_part_of_log
        log[name] = parsed
        if name.endswith("_cpm") and mapping.price_unit is not PriceUnit.CPM:
            log[name] = log[name] / UNITS_PER_CPM[mapping.price_unit]
    log = log[~bad].reset_index(drop=True)
    if mapping.currency is not None and "currency" not in log.columns:
        log["currency"] = mapping.currency
    if mapping.auction_type is not None and "auction_type" not in log.columns:
        log["auction_type"] = mapping.auction_type
    if {"bid_cpm", "true_market_price_cpm"} <= set(log.columns) and "won" not in log.columns:
        log = settled(log)
    return ReadingReport(malformed, notes, examples).attach(conform(log))


def settled(log: pd.DataFrame) -> pd.DataFrame:
    """Holds the auctions of a research log of known market price: adds `won`, `price_cpm`, masks `clicked`.

    A bid wins when it is above `true_market_price_cpm` (a tie loses, as in the published iPinYou
    experiments), and pays that price in a second-price auction, itself in a first-price one. What happened
    whether or not we won stays in `true_clicked`.
    """
    won = log["bid_cpm"] > log["true_market_price_cpm"]
    out = log.assign(won=won)
    if "auction_type" in log.columns:
        second = log["auction_type"] == 2
        out["price_cpm"] = log["true_market_price_cpm"].where(second, log["bid_cpm"]).where(won)
    if "clicked" in log.columns:
        clicked = log["clicked"].astype("bool")
        out = out.assign(true_clicked=clicked, clicked=clicked & won)
    return out


def _renamed(table: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    for name, source in columns.items():
        if source not in table.columns:
            raise DataError(
                f"the file has the column that {name} is mapped to",
                value=source,
                remedy=f"one of {list(table.columns)}",
            )
        if name in table.columns and source != name:
            raise DataError(
                "a mapped name is not already a column of the file",
                value=name,
                remedy=f"map {name} to itself, or rename it by mapping another name to it",
            )
    used = set(columns.values())
    mapped_columns = {name: table[source] for name, source in columns.items()}
    others = {name: table[name] for name in table.columns if name not in used}
    return pd.DataFrame({**mapped_columns, **others})


def _kind(name: str, numbers: Collection[str]) -> ColumnType | None:
    if name in COLUMN:
        return COLUMN[name].type
    if name in numbers or (name.startswith(TRUTH_PREFIX) and name.endswith("_cpm")):
        return ColumnType.NUMBER
    return None


def _parsed(cells: pd.Series[Any], kind: ColumnType, time_unit: TimeUnit) -> pd.Series[Any]:
    is_text = pd.api.types.is_string_dtype(cells.dtype)
    if kind is ColumnType.TIME:
        return _times(cells, is_text, time_unit)
    if not is_text:
        return cells
    if kind is ColumnType.FLAG:
        return cells.str.strip().str.lower().map(_FLAG_TEXTS).astype("boolean")
    if kind in (ColumnType.NUMBER, ColumnType.INTEGER):
        numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
        if kind is ColumnType.INTEGER:
            return numbers.where(numbers == np.trunc(numbers)).astype("Int64")
        return numbers
    return cells


def _times(cells: pd.Series[Any], is_text: bool, unit: TimeUnit) -> pd.Series[Any]:
    if is_text:
        return pd.to_datetime(cells, utc=True, errors="coerce", format="ISO8601")
    if pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_bool_dtype(cells.dtype):
        return pd.to_datetime(cells, unit=unit.value, utc=True, errors="coerce")
    return cells


def price_unit_of(unit: PriceUnit | str) -> PriceUnit:
    try:
        return PriceUnit(unit)
    except ValueError:
        raise ConfigError(
            "a price unit is known", value=unit, remedy=f"one of {[known.value for known in PriceUnit]}"
        ) from None


def time_unit_of(unit: TimeUnit | str) -> TimeUnit:
    try:
        return TimeUnit(unit)
    except ValueError:
        raise ConfigError(
            "a time unit is known", value=unit, remedy=f"one of {[known.value for known in TimeUnit]}"
        ) from None
