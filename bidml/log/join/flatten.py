"""Events that carry a request → staged Parquet: checked, and their features extracted, by the bidder's own code.

This is the part that runs in Python, one process a core; a line costs what JSON and the extractor cost.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from bidml.contract import FeatureSpec
from bidml.errors import BidmlError
from bidml.log.events import BadEvent, checked_event, parsed_event
from bidml.log.files import refusing_damage
from bidml.log.join.staged import OUTCOMES, bid_schema, staged_names
from bidml.log.openrtb_events import BidCells, Tally, event_lines, outcome_cells, tie_breaker

_ROWS_AT_ONCE: Final = 20_000
_SMALL_BYTES: Final = 16 << 20  # below, starting processes takes longer than reading


@dataclass(frozen=True, slots=True)
class Defaults:
    """What bids and requests are taken to say where they are silent."""

    spec: FeatureSpec | None = None
    currency: str | None = None
    auction_type: int | None = None


@dataclass(frozen=True, slots=True)
class Flattened:
    """What one file gave: lines met, good events, malformed lines by rule with examples."""

    n_lines: int
    n_bids: int
    n_outcomes: int
    malformed: Mapping[str, int]
    examples: Mapping[str, str]


def flatten(files: Sequence[Path], folder: Path, defaults: Defaults, *, n_workers: int) -> list[Flattened]:
    """Writes `<i>.bids.parquet` and `<i>.outcomes.parquet` into `folder` for each of `files`; one report a file.

    Raises `DataError` for a file that cannot be read to its end, `SpecError` for an unusable spec.
    """
    if defaults.spec is not None:
        BidCells(defaults.spec, None, None)  # refuses an unusable spec here, not in a worker
    jobs = [(file, folder / f"{i:05}", defaults) for i, file in enumerate(files)]
    if n_workers <= 1 or len(jobs) == 1 or sum(file.stat().st_size for file in files) < _SMALL_BYTES:
        return [_flatten_file(*job) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, mp_context=context) as workers:
        found = list(workers.map(_flatten_or_tell, jobs))
    for result in found:
        if not isinstance(result, Flattened):
            kind, rule, value, remedy = result
            raise kind(rule, value=value, remedy=remedy)
    return [result for result in found if isinstance(result, Flattened)]


def _flatten_or_tell(
    job: tuple[Path, Path, Defaults],
) -> Flattened | tuple[type[BidmlError], str, str, str]:
    """An error of the family crosses processes as its parts."""
    try:
        return _flatten_file(*job)
    except BidmlError as error:
        return type(error), error.rule, str(error.value), error.remedy


def _flatten_file(file: Path, target: Path, defaults: Defaults) -> Flattened:
    tally = Tally()
    staged = staged_names(defaults.spec)
    cells_of_bid = BidCells(defaults.spec, defaults.currency, defaults.auction_type)
    events = _parquet_events(file, tally) if file.suffix == ".parquet" else _json_events(file, tally)
    with (
        _Writer(target.with_suffix(".bids.parquet"), bid_schema(defaults.spec)) as bids,
        _Writer(target.with_suffix(".outcomes.parquet"), OUTCOMES) as outcomes,
    ):
        for event, text in events:
            try:
                keys = {
                    "auction_id": event["auction_id"],
                    "timestamp_ms": event["timestamp_ms"],
                    "tie": int.from_bytes(tie_breaker(event), "big"),
                }
                if event["type"] == "bid":
                    cells = cells_of_bid(event)
                    bids.add({**{staged.get(name, name): cell for name, cell in cells.items()}, **keys})
                else:
                    outcomes.add({**outcome_cells(event), **keys, "type": event["type"]})
            except BadEvent as error:
                tally.bad(str(error), text)
        return Flattened(tally.n_lines, bids.n_rows, outcomes.n_rows, tally.malformed, tally.examples)


def _json_events(file: Path, tally: Tally) -> Iterator[tuple[dict[str, Any], str]]:
    for text in event_lines(file, tally):
        try:
            event = parsed_event(text)
        except BadEvent as error:
            tally.bad(str(error), text)
            continue
        yield event, text


def _parquet_events(file: Path, tally: Tally) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows with a `request` (an object, or its JSON text) as the events they are; a null cell is an absent key."""
    with refusing_damage(file):
        for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                tally.n_lines += 1
                event = {key: cell for key, cell in row.items() if cell is not None and cell == cell}
                try:
                    for key in ("request", "line_item"):
                        if isinstance(event.get(key), str):
                            event[key] = json.loads(event[key])
                    yield checked_event(event), str(row)
                except ValueError as error:  # BadEvent is one
                    tally.bad(str(error) if isinstance(error, BadEvent) else "not_json", str(row))


class _Writer:
    """Rows, a batch at a time, into one Parquet file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.n_rows = 0
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        self._columns: list[list[Any]] = [[] for _ in schema]

    def add(self, cells: Mapping[str, Any]) -> None:
        for name, column in zip(self._schema.names, self._columns, strict=True):
            column.append(cells.get(name))
        self.n_rows += 1
        if self.n_rows % _ROWS_AT_ONCE == 0:
            self._flush()

    def _flush(self) -> None:
        arrays = [
            pa.array(column if field.type != pa.float64() else map(_as_double, column), field.type)
            for field, column in zip(self._schema, self._columns, strict=True)
        ]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._columns = [[] for _ in self._schema]

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None and self._columns[0]:
                self._flush()
        finally:
            self._writer.close()


def _as_double(cell: float | None) -> float | None:
    """JSON integers can be larger than Arrow converts by itself."""
    return None if cell is None else float(cell)
