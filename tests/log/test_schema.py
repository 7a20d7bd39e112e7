"""The table is the definition: the document, the types and the needs follow it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from bidml.errors import DataError
from bidml.log.conform import conform
from bidml.log.rules import RULES, markdown_rules
from bidml.log.schema import (
    COLUMN,
    COLUMNS,
    NEEDED_COLUMNS,
    ColumnType,
    Need,
    is_feature_column,
    markdown_table,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "auction_log.md"


def test_the_document_shows_the_table_and_the_rules() -> None:
    """docs/auction_log.md is generated from the code it describes."""
    text = DOCUMENT.read_text()
    assert markdown_table() in text
    assert markdown_rules() in text
    for need, columns in NEEDED_COLUMNS.items():
        assert f"| `{need}` | {', '.join(f'`{name}`' for name in columns)} |" in text


def test_money_carries_its_unit() -> None:
    """A column in CPM says so in its name, and no other column does."""
    for column in COLUMNS:
        assert column.name.endswith("_cpm") == ("1000 impressions" in column.unit)


def test_needs_and_rules_name_columns_of_the_table() -> None:
    """No need and no rule reads a column that cannot exist."""
    assert set(NEEDED_COLUMNS) == set(Need)
    for names in [*NEEDED_COLUMNS.values(), *(rule.columns for rule in RULES)]:
        assert set(names) <= set(COLUMN)


def test_features_are_what_is_left() -> None:
    """Neither the log's own columns nor truth are features."""
    assert is_feature_column("city")
    assert not is_feature_column("clicked")
    assert not is_feature_column("true_pctr")


def test_conform_gives_the_types_of_the_table() -> None:
    """From the plain types that files and simulators have."""
    plain = {
        ColumnType.TEXT: ["a", None],
        ColumnType.TIME: pd.to_datetime(["2026-03-01", None]),
        ColumnType.NUMBER: [1, 2],
        ColumnType.INTEGER: [1, 2],
        ColumnType.FLAG: [0, 1],
    }
    log = pd.DataFrame({column.name: plain[column.type] for column in COLUMNS})
    typed = conform(log)
    assert {name: str(dtype) for name, dtype in typed.dtypes.items()} == {
        column.name: column.pandas_dtype for column in COLUMNS
    }


def test_nulls_survive_until_validation() -> None:
    """A null flag or integer keeps its row; the type says that there are nulls."""
    typed = conform(pd.DataFrame({"won": [True, None], "auction_type": [1, None], "true_pctr": [1, 0]}))
    assert [str(dtype) for dtype in typed.dtypes] == ["boolean", "Int64", "float64"]


def test_a_column_is_there_once_and_named() -> None:
    """Two columns of one name, or a name that is a number, are refused."""
    with pytest.raises(DataError, match="each column once"):
        conform(pd.DataFrame([[1, 2]], columns=["won", "won"]))
    with pytest.raises(DataError, match="has a name"):
        conform(pd.DataFrame([[1, 2]]))
