"""The form between the stages: bids wide, outcomes narrow, one row an event, on disk as Parquet.

Everything that arrives is first brought into this form; it is also what a Parquet file of events may hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from bidml.contract import FeatureKind, FeatureSpec
from bidml.errors import SpecError
from bidml.log.schema import COLUMN, ColumnType, check_feature_names

OUTCOMES: Final = pa.schema(
    [
        ("type", pa.string()),
        ("auction_id", pa.string()),
        ("timestamp_ms", pa.float64()),
        ("tie", pa.uint64()),
        ("price_cpm", pa.float64()),
        ("min_bid_to_win_cpm", pa.float64()),
        ("loss_reason", pa.int64()),
    ]
)
_BIDS: Final = pa.schema(
    [
        ("auction_id", pa.string()),
        ("timestamp_ms", pa.float64()),
        ("tie", pa.uint64()),
        ("utc_offset_minutes", pa.float64()),
        ("exchange", pa.string()),
        ("line_item_id", pa.string()),
        ("currency", pa.string()),
        ("auction_type", pa.int64()),
        ("bid_cpm", pa.float64()),
        ("floor_cpm", pa.float64()),
        ("value_per_click", pa.float64()),
        ("propensity", pa.float64()),
    ]
)

JOINED_COLUMNS: Final = tuple(name for name in COLUMN if name != "sampling_rate")


def bid_schema(spec: FeatureSpec | None) -> pa.Schema:
    """The staged bids, the features of `spec` last, under the names of `staged_names`.

    Raises `SpecError` for a feature that is an outcome, or of another type than the column of the log that it
    replaces.
    """
    schema = _BIDS
    if spec is None:
        return schema
    check_feature_names(spec.names)
    staged = staged_names(spec)
    for feature in spec.features:
        is_text = feature.kind is FeatureKind.CATEGORY
        known = COLUMN.get(feature.name)
        if known is None:
            schema = schema.append(pa.field(staged[feature.name], pa.string() if is_text else pa.float64()))
        elif (known.type is ColumnType.TEXT) != is_text:
            raise SpecError(
                f"a feature named {feature.name} has the type of that column of the log",
                value=feature.kind.value,
                remedy="rename the feature",
            )
    return schema


def staged_names(spec: FeatureSpec | None) -> dict[str, str]:
    """Feature name → staged column. Numbered, so that no feature's name meets one of ours; one named as a
    column of the log is that column."""
    names = spec.names if spec else ()
    return {name: name if name in COLUMN else f"feature_{i}" for i, name in enumerate(names)}


def feature_columns(schema: pa.Schema) -> list[str]:
    """The staged feature columns that are not the log's own."""
    return list(schema.names[len(_BIDS.names) :])


def quoted(name: str) -> str:
    """A column's name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(quoted, names))
