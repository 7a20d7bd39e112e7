"""A batch's columns and output buffers, checked and put in the native engine's order."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from numbers import Real
from typing import Any, Final

from bidml.contract import (
    CTR_OUTPUTS,
    CVR_OUTPUTS,
    GOAL_INPUTS,
    PRICE_INPUTS,
    PRICE_OUTPUTS,
    RISK_INPUTS,
    SD_OUTPUTS,
    WIN_OUTPUTS,
    FeatureKind,
    FeatureSpec,
)
from bidml.errors import DataError
from bidml.metadata import CTR_MARGINS, CVR_MARGINS, VARIANCE_MARGINS, WIN_MARGINS

BATCH_OUTPUTS: Final = (
    PRICE_OUTPUTS
    + CTR_OUTPUTS
    + WIN_OUTPUTS
    + CTR_MARGINS
    + WIN_MARGINS
    + CVR_MARGINS
    + CVR_OUTPUTS
    + VARIANCE_MARGINS
    + SD_OUTPUTS
)


def batch_arguments(
    spec: FeatureSpec,
    slots: Mapping[str, tuple[bool, int]],
    columns: Mapping[str, Any],
    outputs: Mapping[str, Any],
) -> tuple[int, list[Any], list[Any], list[Any], list[Any]]:
    """(n_rows, categories, numbers, price inputs, outputs), each a list of columns in the engine's order.

    `slots`: feature → (is a category, its position). Columns that nobody asked for are None, and so are
    `GOAL_INPUTS` and `RISK_INPUTS` that are not given. Raises `DataError`.
    """
    unknown = sorted(set(outputs) - set(BATCH_OUTPUTS))
    if unknown or not outputs:
        raise DataError("an output is known", value=unknown, remedy=f"use {list(BATCH_OUTPUTS)}")
    n_rows = _n_rows(outputs)
    categories: list[Any] = [()] * sum(is_category for is_category, _ in slots.values())
    numbers: list[Any] = [None] * (len(slots) - len(categories))
    for feature in spec.features:
        column = _column(columns, feature.name)
        _, slot = slots[feature.name]
        if feature.kind is FeatureKind.CATEGORY:
            categories[slot] = _texts(feature.name, column, n_rows)
        else:
            numbers[slot] = _doubles(feature.name, column, n_rows)
    priced = not set(PRICE_OUTPUTS).isdisjoint(outputs)
    prices = [_doubles(name, _column(columns, name), n_rows) if priced else None for name in PRICE_INPUTS]
    for name in GOAL_INPUTS + RISK_INPUTS:
        is_given = priced and name in columns and name not in slots
        prices.append(_doubles(name, columns[name], n_rows) if is_given else None)
    return n_rows, categories, numbers, prices, [outputs.get(name) for name in BATCH_OUTPUTS]


def _n_rows(outputs: Mapping[str, Any]) -> int:
    sizes = {name: _writable_size(name, buffer) for name, buffer in outputs.items()}
    if len(set(sizes.values())) != 1:
        raise DataError("output buffers have one length", value=sizes, remedy="one double per row")
    return next(iter(sizes.values()))


def _writable_size(name: str, buffer: Any) -> int:
    try:
        view = memoryview(buffer)
    except TypeError:
        found: object = type(buffer).__name__
    else:
        if view.format == "d" and view.c_contiguous and not view.readonly:
            return view.nbytes // 8
        found = (
            f"format {view.format}, {'read-only' if view.readonly else 'writable'}, strides {view.strides}"
        )
    raise DataError(
        f"the buffer of {name} is writable, contiguous, of doubles",
        value=found,
        remedy='give array("d") or a float64 array',
    )


def _column(columns: Mapping[str, Any], name: str) -> Any:
    try:
        return columns[name]
    except KeyError:
        raise DataError(
            f"a batch has the column {name}",
            value=sorted(columns),
            remedy="add the column (NaN or '' where missing)",
        ) from None


def _check_length(name: str, length: int, n_rows: int) -> None:
    if length != n_rows:
        raise DataError(f"{name} has one value per row: {n_rows}", value=length, remedy="align the columns")


def _texts(name: str, column: Any, n_rows: int) -> Any:
    if isinstance(column, str | bytes) or not hasattr(column, "__len__"):
        raise DataError(f"{name} is a sequence of texts", value=column, remedy="give one text per row")
    _check_length(name, len(column), n_rows)
    return column


def _doubles(name: str, column: Any, n_rows: int) -> Any:
    """The column itself where it is a buffer of doubles, else a copy."""
    view = _view(column)
    if view is not None and view.format == "d" and view.c_contiguous:
        _check_length(name, view.nbytes // 8, n_rows)
        return column
    try:
        if isinstance(column, bool) or (view is not None and view.format == "?"):
            raise TypeError("True and False are no numbers")
        if isinstance(column, Real):
            return array("d", [float(column)]) * n_rows
        values = array("d", column)
    except (TypeError, OverflowError) as error:
        raise DataError(
            f"{name} is one number for all rows, or one per row", value=str(error), remedy="give float64"
        ) from None
    _check_length(name, len(values), n_rows)
    return values


def _view(column: Any) -> memoryview | None:
    try:
        return memoryview(column) if not isinstance(column, Real) else None  # a NumPy scalar is a buffer too
    except TypeError:
        return None
