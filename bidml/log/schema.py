"""The auction log: one row for each auction we bid in. This table is its only definition.

Prices are CPM in the row's currency, times are UTC. A column may be absent when nothing needs it: a pure
click log has `clicked` and features, a log of won impressions has no losses. What a job needs it names as
`Need`s. Every column that is not listed here is a feature, found by the name the FeatureSpec gives it;
`true_*` columns hold what only a simulator or a research data set knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import pyarrow as pa

from bidml.errors import SpecError

TRUTH_PREFIX: Final = "true_"
_KNOWN_BEFORE_THE_BID: Final = ("exchange", "line_item_id", "utc_offset_minutes")


class ColumnType(StrEnum):
    """How a column is stored. The pandas and Arrow types follow from it."""

    TEXT = "text"
    TIME = "time"
    NUMBER = "number"
    INTEGER = "integer"
    FLAG = "flag"


_PANDAS: Final[Mapping[ColumnType, str]] = {
    ColumnType.TEXT: "str",
    ColumnType.TIME: "datetime64[us, UTC]",
    ColumnType.NUMBER: "float64",
    ColumnType.INTEGER: "int64",
    ColumnType.FLAG: "bool",
}
_ARROW: Final[Mapping[ColumnType, pa.DataType]] = {
    ColumnType.TEXT: pa.string(),
    ColumnType.TIME: pa.timestamp("us", tz="UTC"),
    ColumnType.NUMBER: pa.float64(),
    ColumnType.INTEGER: pa.int64(),
    ColumnType.FLAG: pa.bool_(),
}


@dataclass(frozen=True, slots=True)
class LogColumn:
    """One column: name, stored type, unit in words, whether a cell may be null, and what it means."""

    name: str
    type: ColumnType
    unit: str
    nullable: bool
    meaning: str

    @property
    def pandas_dtype(self) -> str:
        """Numbers say null with NaN, times with NaT; only nullable integers need pandas' `Int64`."""
        if self.type is ColumnType.INTEGER and self.nullable:
            return "Int64"
        return _PANDAS[self.type]

    @property
    def arrow_type(self) -> pa.DataType:
        return _ARROW[self.type]


_CPM: Final = "currency / 1000 impressions"

COLUMNS: Final[tuple[LogColumn, ...]] = (
    LogColumn("auction_id", ColumnType.TEXT, "", False, "identifies the auction; no two rows share it"),
    LogColumn("timestamp", ColumnType.TIME, "UTC", False, "when we bid; in impression logs, when shown"),
    LogColumn("utc_offset_minutes", ColumnType.NUMBER, "minutes east of UTC", True,
              "the user's local time, as OpenRTB `geo.utcoffset`; null: UTC"),
    LogColumn("exchange", ColumnType.TEXT, "", True, "who ran the auction"),
    LogColumn("line_item_id", ColumnType.TEXT, "", True, "what we bid for"),
    LogColumn("currency", ColumnType.TEXT, "ISO 4217", False, "of every money column of the row"),
    LogColumn("auction_type", ColumnType.INTEGER, "OpenRTB `at`", False, "1 first price, 2 second price"),
    LogColumn("bid_cpm", ColumnType.NUMBER, _CPM, False, "what we submitted"),
    LogColumn("floor_cpm", ColumnType.NUMBER, _CPM, True, "the publisher's minimum; null or 0: none"),
    LogColumn("won", ColumnType.FLAG, "", False, "our ad was chosen"),
    LogColumn("price_cpm", ColumnType.NUMBER, _CPM, True, "what we paid; null if lost, or not reported"),
    LogColumn("min_bid_to_win_cpm", ColumnType.NUMBER, _CPM, True,
              "the exact market price where the exchange tells it, on wins, on losses or on both"),
    LogColumn("loss_reason", ColumnType.INTEGER, "OpenRTB 2.5 list 5.25", True,
              "why we lost; null: unknown, taken as outbid. Only 100, 101, 102 tell about the price"),
    LogColumn("clicked", ColumnType.FLAG, "", False, "the impression was clicked; false if lost"),
    LogColumn("click_timestamp", ColumnType.TIME, "UTC", True, "when; null if not clicked or unknown"),
    LogColumn("converted", ColumnType.FLAG, "", False, "the click led to a conversion, as known when logged"),
    LogColumn("conversion_timestamp", ColumnType.TIME, "UTC", True, "when; null if not converted or unknown"),
    LogColumn("value_per_click", ColumnType.NUMBER, "currency / click", True, "worth of a click to us"),
    LogColumn("propensity", ColumnType.NUMBER, "1 / ln(CPM)", True,
              "density of the logged ln bid under the logging policy; null: the bid was not randomised"),
    LogColumn("sampling_rate", ColumnType.NUMBER, "share", True,
              "the share of such rows that a sample of the log kept; null: all of them"),
)  # fmt: skip
COLUMN: Final[Mapping[str, LogColumn]] = {column.name: column for column in COLUMNS}

MONEY: Final = tuple(column.name for column in COLUMNS if column.unit.startswith("currency /"))

# OpenRTB 2.5 list 5.25: below auction floor, below deal floor, lost to a higher bid. With every other reason
# (time-out, blocked creative, lost to a deal) no bid would have won: it says nothing about the market price.
PRICE_LOSS_REASONS: Final = frozenset({100, 101, 102})


class Need(StrEnum):
    """What a job asks of a log; each stands for the columns that must be there."""

    CTR = "ctr"
    CVR = "cvr"
    WIN = "win"
    PRICE = "price"
    OFF_POLICY = "off_policy"
    TIME = "time"


NEEDED_COLUMNS: Final[Mapping[Need, tuple[str, ...]]] = {
    Need.CTR: ("clicked",),
    Need.CVR: ("clicked", "converted"),
    Need.WIN: ("currency", "bid_cpm", "won"),
    Need.PRICE: ("currency", "price_cpm"),
    Need.OFF_POLICY: ("currency", "bid_cpm", "won", "propensity"),
    Need.TIME: ("timestamp",),
}


def is_feature_column(name: str) -> bool:
    """True for a column that is neither part of the log nor truth."""
    return name not in COLUMN and not name.startswith(TRUTH_PREFIX)


def check_feature_names(names: Iterable[str]) -> None:
    """Raises `SpecError` for a feature that is an outcome, a price or truth: known only after the bid."""
    leaks = [name for name in names if not is_feature_column(name) and name not in _KNOWN_BEFORE_THE_BID]
    if leaks:
        raise SpecError(
            "a feature is known before the bid; the log's own columns are not",
            value=leaks,
            remedy="rename the feature or drop it",
        )


def markdown_table() -> str:
    """The table of `docs/auction_log.md`."""
    lines = ["| column | type | unit | null | meaning |", "|---|---|---|---|---|"]
    for column in COLUMNS:
        null = "yes" if column.nullable else "no"
        lines.append(f"| `{column.name}` | {column.type} | {column.unit} | {null} | {column.meaning} |")
    return "\n".join(lines)
