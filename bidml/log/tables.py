"""Parquet and CSV tables, read as they are; `mapping` makes them a log. And the log as Parquet."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from bidml.errors import DataError
from bidml.log.conform import arrow_schema, conform
from bidml.log.files import opened, refusing_damage
from bidml.log.quarantine import ReadingReport

_BATCH_ROWS: Final = 131_072


def read_parquet(
    paths: list[Path], *, keep: Callable[[pd.DataFrame], pd.DataFrame] | None = None
) -> pd.DataFrame:
    """The rows of all files, in order; columns in the types of the files. With `keep`, what it keeps of each batch of
    rows: only that, and a batch, is held."""
    tables = []
    for path in paths:
        with refusing_damage(path):
            file = pq.ParquetFile(path)
            if keep is None:
                tables.append(file.read().to_pandas())
            else:
                empty = file.schema_arrow.empty_table().to_pandas()
                kept = [keep(batch.to_pandas()) for batch in file.iter_batches(_BATCH_ROWS)]
                tables.append(_stacked(kept or [empty]))
    return _stacked(tables)


def read_csv(paths: list[Path], *, delimiter: str = ",") -> tuple[pd.DataFrame, ReadingReport]:
    """The rows of all files as text, so that 64-bit ids stay exact; an empty cell is null, "NA" is text.

    Each file starts with its header. Lines with another number of cells are malformed. gzip is recognised.
    """
    tables, n_bad, example = [], 0, ""
    for path in paths:
        bad: list[str] = []
        tables.append(_read_one_csv(path, delimiter, bad))
        n_bad += len(bad)
        example = example or (bad[0] if bad else "")
    if not n_bad:
        return _stacked(tables), ReadingReport()
    return _stacked(tables), ReadingReport({"malformed_line": n_bad}, {}, {"malformed_line": example})


def write_log(log: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes `log`, conformed, as Parquet; the file appears whole or not at all.

    Raises `DataError` when a feature column mixes types.
    """
    target = Path(path)
    typed = conform(log)
    typed.attrs = {}
    try:
        table = pa.Table.from_pandas(typed, schema=arrow_schema(typed), preserve_index=False)
    except (pa.ArrowException, TypeError) as error:
        raise DataError(
            f"a column to be written holds one type ({error})",
            value=str(target),
            remedy="convert the column to text",
        ) from None
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        pq.write_table(table, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _read_one_csv(path: Path, delimiter: str, bad: list[str]) -> pd.DataFrame:
    def skip(row: Any) -> str:
        bad.append(str(row.text))
        return "skip"

    with opened(path) as stream:
        header = next(csv.reader([stream.readline().decode("utf-8-sig")], delimiter=delimiter), [])
    if not any(name.strip() for name in header):
        raise DataError(
            "a CSV file starts with its header", value=str(path), remedy="add the line of column names"
        )
    if len(set(header)) < len(header):
        raise DataError("a header names each column once", value=header, remedy="rename the second one")
    with opened(path) as stream:
        table = pacsv.read_csv(
            stream,
            read_options=pacsv.ReadOptions(use_threads=False, column_names=header, skip_rows=1),
            parse_options=pacsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in header},
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    if not table.num_rows and bad:
        raise DataError(
            "a CSV file has lines that match its header", value=bad[0], remedy="set delimiter or format"
        )
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _stacked(tables: list[pd.DataFrame]) -> pd.DataFrame:
    return tables[0] if len(tables) == 1 else pd.concat(tables, ignore_index=True)
