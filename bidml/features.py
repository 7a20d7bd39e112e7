"""A log table as the numbers the trees see, and the plain reference of a head: the offline oracle.

The native engine and the ONNX graph must agree with these functions. They are written to be read: look up a
category by its text, rewrite a number as LightGBM would, walk every tree one level at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from bidml.blueprint import LIGHTGBM_ZERO, CrossLookup, Head, Lookup, NodeMode, Rewrite, Trees, Vocabulary
from bidml.contract import UNMATCHABLE as UNMATCHABLE
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import SpecError

Doubles: TypeAlias = npt.NDArray[np.float64]
RawColumns: TypeAlias = Mapping[str, npt.NDArray[Any]]

_LONGEST_TEXT: Final = 1024
_LAST_BEGINS_BY: Final = 1028
_MINUTES_PER_DAY: Final = 1440.0
_LARGEST_EXACT_INTEGER: Final = 2.0**53
_ROWS_AT_ONCE: Final = 1 << 21  # rows × trees walked together: the working set stays in the cache


def raw_columns(log: pd.DataFrame, spec: FeatureSpec) -> dict[str, npt.NDArray[Any]]:
    """The raw features of `spec` in `log`, by feature name; each array has shape (n_rows,).

    A category is an object array of `str`: integers become decimal text; null and bool become ""; text that
    the native extractor cannot match (lone surrogates, over 1024 characters) becomes `UNMATCHABLE`. A
    number is float64: null, bool, text and ±inf become NaN. `derived.hour_of_day` and `derived.weekday`
    (Monday is 0) come from `timestamp` and `utc_offset_minutes` when the log has no column of the feature's
    name.

    Raises `SpecError` for a missing column, a category of fractions or of integers beyond 64 bits, and a
    number column that holds only text.
    """
    return {feature.name: _raw_column(log, feature) for feature in spec.features}


def encode(columns: RawColumns, head: Head) -> Doubles:
    """The trees' inputs, shape (n_rows, len(head.columns)): each column through its lookup, then its rewrite.

    Raises `SpecError` when a feature of the head is not in `columns`, or is text where a number is wanted.
    """
    matrix = np.empty((_n_rows(columns), len(head.columns)))
    factorised = _Factorised(columns)
    for i, column in enumerate(head.columns):
        if column.lookup is not None:
            numbers = factorised.through(column.lookup)
        else:
            numbers = _as_numbers(_column(columns, column.feature), column.feature)
        matrix[:, i] = rewritten(numbers, column.rewrite)
    return matrix


def margins(columns: RawColumns, head: Head) -> Doubles:
    """Σ trees / divisor · scale + intercept + terms, added from left to right; shape (n_rows,)."""
    n_rows = _n_rows(columns)
    total = np.zeros(n_rows) if head.trees is None else tree_sums(encode(columns, head), head.trees)
    margin: Doubles = total / head.divisor * head.scale + head.intercept
    factorised = _Factorised(columns)
    for term in head.terms:
        margin += factorised.through(term)
    return margin


def looked_up(lookup: Lookup | CrossLookup, columns: RawColumns) -> Doubles:
    """What the bidder finds for each row of `columns`, (n_rows,)."""
    return _Factorised(columns).through(lookup)


def rewritten(numbers: Doubles, rewrite: Rewrite) -> Doubles:
    """`numbers` as LightGBM reads them (see `Rewrite`); shape unchanged, the input is not altered."""
    if rewrite is Rewrite.ZERO_IS_MISSING:
        return np.where(np.abs(numbers) <= LIGHTGBM_ZERO, np.nan, numbers)
    if rewrite is Rewrite.TRUNCATE:
        return np.trunc(numbers)
    return numbers


def tree_sums(matrix: Doubles, trees: Trees) -> Doubles:
    """The sum of the leaves each row reaches, in tree order; `matrix` (n_rows, n_columns) → (n_rows,)."""
    walker = TreeArrays(trees)
    rows = max(1, _ROWS_AT_ONCE // max(1, trees.n_trees))
    parts = [walker.sums(matrix[start : start + rows]) for start in range(0, len(matrix), rows)]
    return np.concatenate(parts) if parts else np.zeros(0)


class TreeArrays:
    """Trees as NumPy arrays. A child is one number: a node, or ~leaf (negative), where the walk ends."""

    def __init__(self, trees: Trees) -> None:
        self.roots = _int64(trees.roots)
        self.column = _int64(trees.column)
        self.threshold = np.array(trees.threshold, dtype=np.float64)
        self.missing_true = _int64(trees.missing_true) != 0
        self.if_true = _child(trees.true_child, trees.true_is_leaf)
        self.if_false = _child(trees.false_child, trees.false_is_leaf)
        self.leaf = np.array(trees.leaf, dtype=np.float64)
        self.member = _int64(trees.mode) == NodeMode.MEMBER
        self.sets = _Membership(trees, self.member)

    def sums(self, matrix: Doubles) -> Doubles:
        leaves = self.leaf[self.leaves(matrix, slice(None))]
        total = np.zeros(len(matrix))
        for t in range(leaves.shape[1]):  # LightGBM adds tree by tree; a pairwise sum would round differently
            total += leaves[:, t]
        return total

    def leaves(self, matrix: Doubles, trees: slice) -> npt.NDArray[np.int64]:
        """The leaf that each row reaches in each of the `trees`, (n_rows, n_trees)."""
        roots = self.roots[trees]
        n_rows, n_trees = len(matrix), len(roots)
        at = np.tile(roots, n_rows)  # (n_rows · n_trees,)
        walking = np.arange(n_rows * n_trees)
        while walking.size:
            node = at[walking]
            goes_true = self.decisions(node, matrix[walking // n_trees, self.column[node]])
            at[walking] = np.where(goes_true, self.if_true[node], self.if_false[node])
            walking = walking[at[walking] >= 0]
        return (~at).reshape(n_rows, n_trees)

    def decisions(self, node: npt.NDArray[np.int64], x: Doubles) -> npt.NDArray[np.bool_]:
        """Whether each `node` sends its `x` to the true side; equal shapes, (n,)."""
        goes_true = x <= self.threshold[node]
        at_set = np.flatnonzero(self.member[node])
        if at_set.size:
            goes_true[at_set] = self.sets.holds(node[at_set], x[at_set])
        return np.where(np.isnan(x), self.missing_true[node], goes_true)


class _Membership:
    """The sets of the MEMBER nodes as one sorted list of (set, value) pairs, a pair being one integer."""

    def __init__(self, trees: Trees, member: npt.NDArray[np.bool_]) -> None:
        flat = np.array(trees.membership, dtype=np.float64)
        ends = np.isnan(flat)
        self.set_of_node = np.cumsum(member) - 1
        self.values = np.unique(flat[~ends])
        set_of_value = np.cumsum(ends)[~ends]
        self.pairs = np.unique(
            set_of_value * max(1, len(self.values)) + np.searchsorted(self.values, flat[~ends])
        )

    def holds(self, node: npt.NDArray[np.int64], x: Doubles) -> npt.NDArray[np.bool_]:
        if not self.values.size:
            return np.zeros(len(x), dtype=bool)
        rank = np.minimum(np.searchsorted(self.values, x), len(self.values) - 1)
        pair = self.set_of_node[node] * len(self.values) + rank
        slot = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        found: npt.NDArray[np.bool_] = (self.values[rank] == x) & (self.pairs[slot] == pair)
        return found


class _Factorised:
    """Category columns as (codes, distinct texts), found once for all lookups of one feature."""

    def __init__(self, columns: RawColumns) -> None:
        self._columns = columns
        self._parts: dict[str, tuple[npt.NDArray[np.int64], list[str]]] = {}

    def through(self, lookup: Lookup | CrossLookup) -> Doubles:
        if isinstance(lookup, CrossLookup):
            return self._through_cross(lookup)
        codes, texts = self._of(lookup.feature)
        values = dict(zip(lookup.keys, lookup.values, strict=True))
        return np.array([values.get(text, lookup.default) for text in texts], dtype=np.float64)[codes]

    def _through_cross(self, lookup: CrossLookup) -> Doubles:
        pair = self._numbers(lookup.first) * lookup.second.n_numbers + self._numbers(lookup.second)
        known = np.array(lookup.codes, dtype=np.float64).astype(np.int64)
        at = np.minimum(np.searchsorted(known, pair), len(known) - 1)
        found: Doubles = np.where(
            known[at] == pair, np.array(lookup.values, dtype=np.float64)[at], lookup.default
        )
        return found

    def _numbers(self, vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
        codes, texts = self._of(vocabulary.feature)
        numbers = {key: i for i, key in enumerate(vocabulary.keys)}
        return np.array([numbers.get(text, len(numbers)) for text in texts], dtype=np.int64)[codes]

    def _of(self, feature: str) -> tuple[npt.NDArray[np.int64], list[str]]:
        if feature not in self._parts:
            codes, texts = pd.factorize(_as_texts(_column(self._columns, feature), feature))
            self._parts[feature] = codes, list(texts)
        return self._parts[feature]


def _raw_column(log: pd.DataFrame, feature: Feature) -> npt.NDArray[Any]:
    if feature.name in log.columns:
        cells = log[feature.name]
        return _category(cells, feature) if feature.kind is FeatureKind.CATEGORY else _number(cells, feature)
    if feature.source in ("derived.hour_of_day", "derived.weekday") and "timestamp" in log.columns:
        return _from_clock(log, feature.source)
    raise SpecError(
        "the log has a column for every feature of the spec",
        value=feature.name,
        remedy=f"add the column or drop the feature; the log has {list(log.columns)}",
    )


def _category(cells: pd.Series[Any], feature: Feature) -> npt.NDArray[Any]:
    if cells.dtype == object and pd.api.types.infer_dtype(cells, skipna=True) != "string":
        # cell by cell: a hash table takes True, 1 and 1.0 for one key
        missing = cells.isna()
        return np.array(
            ["" if null else _text(cell, feature) for cell, null in zip(cells, missing, strict=True)],
            dtype=object,
        )
    codes, distinct = pd.factorize(cells, use_na_sentinel=True)
    texts = np.array([_text(cell, feature) for cell in distinct] + [""], dtype=object)  # code −1 is null
    found: npt.NDArray[Any] = texts[codes]
    return found


def _text(cell: object, feature: Feature) -> str:
    if isinstance(cell, str):
        return cell if _is_matchable(cell) else UNMATCHABLE
    if isinstance(cell, (bool, np.bool_)):
        return ""
    if isinstance(cell, (int, np.integer)) and -(2**63) <= int(cell) < 2**63:
        return str(int(cell))
    if isinstance(cell, (float, np.floating)):
        number = float(cell)  # pandas turns a column of integers with a null in it into floats
        if number.is_integer() and abs(number) <= _LARGEST_EXACT_INTEGER:
            return str(int(number))
    raise SpecError(
        f"category {feature.name} holds text or 64-bit integers (as floats: below 2**53)",
        value=cell,
        remedy="store it as text, or declare it a number",
    )


def _is_matchable(text: str) -> bool:
    """The native rule (extract.h): at most 1024 characters, all UTF-8, the last one begun by byte 1028."""
    try:
        n_bytes = len(text.encode())
    except UnicodeEncodeError:
        return False
    return len(text) <= _LONGEST_TEXT and n_bytes - len(text[-1:].encode()) <= _LAST_BEGINS_BY


def _number(cells: pd.Series[Any], feature: Feature) -> npt.NDArray[Any]:
    if pd.api.types.is_bool_dtype(cells.dtype):
        return np.full(len(cells), np.nan)
    if pd.api.types.is_numeric_dtype(cells.dtype):
        numbers = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        numbers = np.array([_double(cell) for cell in cells], dtype=np.float64)
        texts = [cell for cell in cells if isinstance(cell, str)] if np.isnan(numbers).all() else []
        if texts:
            raise SpecError(
                f"number {feature.name} holds numbers",
                value=texts[0],
                remedy="declare it a category, or convert the column: text is never read as a number",
            )
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _double(cell: object) -> float:
    if isinstance(cell, (bool, np.bool_)) or not isinstance(cell, (int, float, np.integer, np.floating)):
        return float("nan")
    try:
        return float(cell)
    except OverflowError:
        return float("nan")


def _from_clock(log: pd.DataFrame, source: str) -> Doubles:
    local = log["timestamp"]
    if "utc_offset_minutes" in log.columns:
        offset = log["utc_offset_minutes"].astype("float64")
        local = local + pd.to_timedelta(offset.where(offset.abs() <= _MINUTES_PER_DAY, 0.0), unit="min")
    part = local.dt.hour if source == "derived.hour_of_day" else local.dt.day_of_week
    return np.asarray(part, dtype=np.float64)


def _column(columns: RawColumns, feature: str) -> npt.NDArray[Any]:
    if feature not in columns:
        raise SpecError(
            "the raw columns hold every feature of the head",
            value=feature,
            remedy=f"given: {sorted(columns)}",
        )
    return columns[feature]


def _as_texts(cells: npt.NDArray[Any], feature: str) -> npt.NDArray[Any]:
    if cells.dtype.kind not in "OU":
        raise SpecError(
            f"{feature} is a category of text", value=cells.dtype, remedy="give its raw_columns array"
        )
    return cells.astype(object, copy=False)


def _as_numbers(cells: npt.NDArray[Any], feature: str) -> Doubles:
    if cells.dtype.kind not in "fiu":
        raise SpecError(
            f"{feature} is a number", value=cells.dtype, remedy="give the head a lookup for the category"
        )
    return cells.astype(np.float64, copy=False)


def _n_rows(columns: RawColumns) -> int:
    lengths = {len(cells) for cells in columns.values()}
    if len(lengths) != 1:
        raise SpecError(
            "raw columns have one length", value=sorted(lengths), remedy="give arrays of shape (n_rows,)"
        )
    return lengths.pop()


def _int64(numbers: Any) -> npt.NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def _child(child: Any, is_leaf: Any) -> npt.NDArray[np.int64]:
    index = _int64(child)
    return np.where(_int64(is_leaf) != 0, ~index, index)
