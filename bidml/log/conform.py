"""A table in the types of the schema: what the rules and the fits may rely on."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
import pyarrow as pa

from bidml.errors import DataError
from bidml.log.schema import COLUMN, TRUTH_PREFIX, ColumnType, LogColumn

_TIME_DTYPE: Final = "datetime64[us, UTC]"


def conform(log: pd.DataFrame) -> pd.DataFrame:
    """`log` with the schema's columns in their types, rows in order, numbered from 0.

    The input is not altered. A non-nullable column that has nulls takes the nullable type of its kind
    (`boolean`, `Int64`); validation quarantines those rows. Times without a zone are UTC. Numeric `true_*`
    columns become float64. Raises `DataError` for a column that cannot be read as its type.
    """
    columns = {}
    for name in log.columns:
        if not isinstance(name, str):
            raise DataError("a column of a log has a name", value=name, remedy="name the columns")
        cells = log[name]
        if isinstance(cells, pd.DataFrame):
            raise DataError("a log has each column once", value=name, remedy="drop or rename the second one")
        columns[name] = _conformed(cells, name)
    typed = pd.DataFrame(columns).reset_index(drop=True)
    typed.attrs = dict(log.attrs)
    return typed


def arrow_schema(log: pd.DataFrame) -> pa.Schema:
    """The Arrow schema of a conformed log: the schema's types, and Arrow's own choice for feature columns."""
    inferred = pa.Schema.from_pandas(log, preserve_index=False)
    fields = [
        pa.field(field.name, COLUMN[field.name].arrow_type) if field.name in COLUMN else field
        for field in inferred
    ]
    return pa.schema(fields)


def _conformed(cells: pd.Series[Any], name: str) -> pd.Series[Any]:
    column = COLUMN.get(name)
    if column is None:
        is_number = pd.api.types.is_numeric_dtype(cells.dtype) and not pd.api.types.is_bool_dtype(cells.dtype)
        return cells.astype("float64") if name.startswith(TRUTH_PREFIX) and is_number else cells
    try:
        return _CONVERT[column.type](cells, column)
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError) as error:
        shown = list(cells.head(3))
        raise DataError(
            f"column {name} is {column.type} ({error})",
            value=shown,
            remedy="convert it, or map another column to this name",
        ) from None


def _text(cells: pd.Series[Any], column: LogColumn) -> pd.Series[Any]:
    if pd.api.types.is_float_dtype(cells.dtype) and cells.notna().any():
        raise ValueError("a float may have lost digits of an id")
    return cells.astype("str")


def _time(cells: pd.Series[Any], column: LogColumn) -> pd.Series[Any]:
    if cells.isna().all():
        return pd.Series(pd.NaT, index=cells.index, dtype=_TIME_DTYPE)
    if not pd.api.types.is_datetime64_any_dtype(cells.dtype):
        raise ValueError("numbers and text must be converted to times first")
    if cells.dt.tz is None:
        cells = cells.dt.tz_localize("UTC")
    return cells.astype(_TIME_DTYPE)


def _number(cells: pd.Series[Any], column: LogColumn) -> pd.Series[Any]:
    is_text = pd.api.types.is_string_dtype(cells.dtype) and bool(cells.notna().any())
    if is_text or pd.api.types.is_bool_dtype(cells.dtype):
        raise ValueError("neither flags nor text are numbers")
    return cells.astype("float64")


def _integer(cells: pd.Series[Any], column: LogColumn) -> pd.Series[Any]:
    if pd.api.types.is_bool_dtype(cells.dtype):
        raise ValueError("flags are not integers")
    return cells.astype("Int64") if column.nullable or cells.isna().any() else cells.astype("int64")


def _flag(cells: pd.Series[Any], column: LogColumn) -> pd.Series[Any]:
    flags = cells.astype("boolean")  # accepts 0, 1, True, False and null; raises for anything else
    return flags if flags.isna().any() else flags.astype("bool")


_CONVERT = {
    ColumnType.TEXT: _text,
    ColumnType.TIME: _time,
    ColumnType.NUMBER: _number,
    ColumnType.INTEGER: _integer,
    ColumnType.FLAG: _flag,
}
