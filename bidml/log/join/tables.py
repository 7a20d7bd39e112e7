"""Parquet files of events as SQL: their columns checked by type before anything is read, their rows by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from bidml.contract import FeatureKind
from bidml.errors import DataError
from bidml.log.events import EVENT_TYPES, MOST_MILLISECONDS
from bidml.log.files import refusing_damage
from bidml.log.join.flatten import Defaults
from bidml.log.join.staged import literal, quoted, staged_names

_MOST_CODE: Final = 2**31


@dataclass(frozen=True, slots=True)
class EventTable:
    """Parquet files whose known columns have the same names and types."""

    files: tuple[Path, ...]
    columns: dict[str, pa.DataType]

    @property
    def has_requests(self) -> bool:
        return "request" in self.columns

    @property
    def has_bids(self) -> bool:
        return "bid_cpm" in self.columns


def event_tables(files: Sequence[Path], defaults: Defaults) -> list[EventTable]:
    """`files` grouped by their columns. Raises `DataError` for a file that is damaged or holds no events."""
    expected = _expected(defaults)
    groups: dict[tuple[tuple[str, str], ...], EventTable] = {}
    for file in files:
        with refusing_damage(file):
            schema = pq.read_schema(file)
        if len({name.casefold() for name in schema.names}) < len(schema.names):
            _refuse(file, "names each column once", schema.names)
        columns = {
            field.name: field.type for field in schema if field.name in expected or field.name == "request"
        }
        _check(file, columns, schema, expected, defaults)
        key = tuple(sorted((name, str(kind)) for name, kind in columns.items()))
        known = groups.get(key)
        groups[key] = EventTable((*(known.files if known else ()), file), columns)
    return list(groups.values())


def bids_sql(table: EventTable, defaults: Defaults, offset_ms: float) -> str:
    """The bids of `table` as staged rows, with `bad` (the rule a row breaks, or null)."""
    cell = _Cells(table.columns)
    currency = f"coalesce(nullif({cell.text('currency')}, ''), {_or_null(defaults.currency)})"
    kind = f"coalesce(nullif({cell.integer('auction_type')}, 0), {_or_null(defaults.auction_type)})"
    cells = {
        "auction_id": cell.text("auction_id"),
        "timestamp_ms": f"{cell.time()} + {offset_ms!r}",
        "tie": "NULL::UBIGINT",
        "utc_offset_minutes": cell.number("utc_offset_minutes"),
        "exchange": cell.text("exchange"),
        "line_item_id": cell.text("line_item_id"),
        "currency": currency,
        "auction_type": kind,
        **{name: cell.number(name) for name in ("bid_cpm", "floor_cpm", "value_per_click", "propensity")},
    }
    staged = staged_names(defaults.spec)
    for feature in defaults.spec.features if defaults.spec else ():
        is_text = feature.kind is FeatureKind.CATEGORY
        raw = cell.text(feature.name) if is_text else cell.number(feature.name)
        cells[staged[feature.name]] = (
            f"coalesce({raw}, {literal('') if is_text else literal('NaN') + '::DOUBLE'})"
        )
    checks = [
        *cell.identity_checks(),
        (
            f"{cell.number('bid_cpm')} IS NULL OR NOT isfinite({cell.number('bid_cpm')})",
            "bid_without_bid_cpm",
        ),
        *(cell.number_check(name) for name in ("floor_cpm", "value_per_click", "propensity")),
        cell.integer_check("auction_type"),
    ]
    return _select(table, cells, checks, where="type = 'bid'")


def outcomes_sql(table: EventTable, offsets_ms: dict[str, float]) -> str:
    """All other rows of `table`, likewise; those of no known type are bad."""
    cell = _Cells(table.columns)
    shift = "".join(f" WHEN {literal(kind)} THEN {ms!r}" for kind, ms in offsets_ms.items())
    time = f"{cell.time()} + CASE type{shift} ELSE 0.0 END" if shift else cell.time()
    win_or_loss = "type IN ('win', 'loss')"
    cells = {
        "type": "type",
        "auction_id": cell.text("auction_id"),
        "timestamp_ms": time,
        "tie": "NULL::UBIGINT",
        "price_cpm": f"CASE WHEN type = 'win' THEN {cell.number('price_cpm')} END",
        "min_bid_to_win_cpm": f"CASE WHEN {win_or_loss} THEN {cell.number('min_bid_to_win_cpm')} END",
        "loss_reason": f"CASE WHEN type = 'loss' THEN {cell.integer('loss_reason')} END",
    }
    known = ", ".join(map(literal, EVENT_TYPES))
    checks = [
        (f"type IS NULL OR type NOT IN ({known})", "unknown_type"),
        *cell.identity_checks(),
        cell.number_check("price_cpm", "type = 'win' AND "),
        cell.number_check("min_bid_to_win_cpm", f"{win_or_loss} AND "),
        cell.integer_check("loss_reason", "type = 'loss' AND "),
    ]
    return _select(table, cells, checks, where="type IS DISTINCT FROM 'bid'")


class _Cells:
    """Columns of a file as SQL expressions of the staged types; an absent column is null."""

    def __init__(self, columns: dict[str, pa.DataType]) -> None:
        self._columns = columns

    def text(self, name: str) -> str:
        return f"{quoted(name)}::VARCHAR" if name in self._columns else "NULL::VARCHAR"

    def number(self, name: str) -> str:
        kind = self._columns.get(name)
        if kind is None:
            return "NULL::DOUBLE"
        double = f"{quoted(name)}::DOUBLE"
        return f"CASE WHEN NOT isnan({double}) THEN {double} END" if pt.is_floating(kind) else double

    def integer(self, name: str) -> str:
        return f"TRY_CAST({self.number(name)} AS BIGINT)"

    def time(self) -> str:
        kind = self._columns["timestamp_ms"]
        if pt.is_timestamp(kind):
            return "epoch_us(timestamp_ms::TIMESTAMPTZ) / 1000.0"
        return self.number("timestamp_ms")

    def identity_checks(self) -> list[tuple[str, str]]:
        identity, time = self.text("auction_id"), self.time()
        return [
            (f"{identity} IS NULL OR {identity} = ''", "no_auction_id"),
            (f"({time}) IS NULL OR NOT ({time} >= 0 AND {time} < {MOST_MILLISECONDS!r})", "no_timestamp_ms"),
        ]

    def number_check(self, name: str, only: str = "") -> tuple[str, str]:
        return f"{only}NOT isfinite({self.number(name)})", f"{name}_is_not_a_number"

    def integer_check(self, name: str, only: str = "") -> tuple[str, str]:
        number = self.number(name)
        return (
            f"{only}({number} <> trunc({number}) OR abs({number}) >= {_MOST_CODE})",
            f"{name}_is_not_an_integer",
        )


def _select(table: EventTable, cells: dict[str, str], checks: list[tuple[str, str]], *, where: str) -> str:
    files = ", ".join(literal(str(file)) for file in table.files)
    bad = "CASE " + " ".join(f"WHEN {broken} THEN {literal(rule)}" for broken, rule in checks) + " END"
    selected = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in cells.items())
    return (
        f"SELECT {selected}, {bad} AS bad FROM read_parquet([{files}], hive_partitioning=false) WHERE {where}"
    )


def _or_null(default: str | int | None) -> str:
    return "NULL" if default is None else literal(default) if isinstance(default, str) else str(default)


def _is_text(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        kind = kind.value_type
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_null(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind) or pt.is_null(kind))


def _is_text_or_id(kind: pa.DataType) -> bool:
    return _is_text(kind) or bool(pt.is_integer(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_timestamp(kind))


_Accepts = Callable[[pa.DataType], bool]


def _expected(defaults: Defaults) -> dict[str, tuple[_Accepts, str]]:
    text, number, text_or_id = (
        (_is_text, "text"),
        (_is_number, "numbers"),
        (_is_text_or_id, "text or integers"),
    )
    expected: dict[str, tuple[_Accepts, str]] = {
        "type": text,
        "auction_id": text,
        "timestamp_ms": (_is_time, "milliseconds, or times"),
        "exchange": text,
        "currency": text,
        "line_item_id": text_or_id,
    }
    for name in ("utc_offset_minutes", "auction_type", "bid_cpm", "floor_cpm", "value_per_click", "propensity",
                 "price_cpm", "min_bid_to_win_cpm", "loss_reason"):  # fmt: skip
        expected[name] = number
    for feature in defaults.spec.features if defaults.spec else ():
        expected[feature.name] = text_or_id if feature.kind is FeatureKind.CATEGORY else number
    return expected


def _check(
    file: Path,
    columns: dict[str, pa.DataType],
    schema: pa.Schema,
    expected: dict[str, tuple[_Accepts, str]],
    defaults: Defaults,
) -> None:
    required = ["type", "auction_id", "timestamp_ms"]
    if "bid_cpm" in columns and "request" not in columns and defaults.spec is not None:
        required += defaults.spec.names
    for name in required:
        if name not in columns:
            _refuse(file, f"has the column {name}", schema.names)
    if "request" in columns:
        return  # its rows are checked as JSON events are
    for name, kind in columns.items():
        accepts, what = expected[name]
        if not accepts(kind):
            _refuse(file, f"holds {what} in {name}", str(kind))


def _refuse(file: Path, rule: str, found: object) -> None:
    raise DataError(
        f"a Parquet file of events {rule} ({file})", value=found, remedy="see docs/events.md, or leave it out"
    )
