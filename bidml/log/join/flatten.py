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
from bidml.errors import BidmlError, ConfigError
from bidml.log.events import BadEvent, checked_event, parsed_event
from bidml.log.files import refusing_damage
from bidml.log.join.staged import OUTCOMES, bid_schema, staged_names
from bidml.log.openrtb_events import BidCells, Tally, event_lines, outcome_cells, tie_breaker

_ROWS_AT_ONCE: Final = 20_000
_TIME: Final = "__timestamp_ms"  # no feature's name begins like this
_TIE: Final = "__tie"
_AVRO: Final = b"Obj\x01"
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
    columns = {**staged_names(defaults.spec), _TIME: "timestamp_ms", _TIE: "tie"}
    cells_of_bid = BidCells(defaults.spec, defaults.currency, defaults.auction_type)
    events = _record_events(_records(file), tally) if is_table(file) else _json_events(file, tally)
    with (
        _Writer(target.with_suffix(".bids.parquet"), bid_schema(defaults.spec), columns) as bids,
        _Writer(target.with_suffix(".outcomes.parquet"), OUTCOMES, columns) as outcomes,
    ):
        for event, text in events:
            try:
                is_bid = event["type"] == "bid"
                cells = cells_of_bid(event) if is_bid else outcome_cells(event)
                cells["auction_id"] = event["auction_id"]
                cells[_TIME] = event["timestamp_ms"]
                cells[_TIE] = int.from_bytes(tie_breaker(event), "big")
                if is_bid:
                    bids.add(cells)
                else:
                    cells["type"] = event["type"]
                    outcomes.add(cells)
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


def _record_events(records: Iterator[dict[str, Any]], tally: Tally) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows with a `request` (an object, or its JSON text) as the events they are; a null cell is an absent key."""
    for record in records:
        tally.n_lines += 1
        event = {key: cell for key, cell in record.items() if cell is not None and cell == cell}
        try:
            for key in ("request", "line_item"):
                if isinstance(event.get(key), str):
                    event[key] = json.loads(event[key])
            yield checked_event(event), str(record)
        except ValueError as error:  # BadEvent is one
            tally.bad(str(error) if isinstance(error, BadEvent) else "not_json", str(record))


def is_parquet(file: Path) -> bool:
    """By its name or its first bytes."""
    return file.suffix == ".parquet" or _starts(file, b"PAR1")


def is_table(file: Path) -> bool:
    """Parquet or Avro."""
    return is_parquet(file) or _starts(file, _AVRO)


def _starts(file: Path, magic: bytes) -> bool:
    with refusing_damage(file), file.open("rb") as stream:
        return stream.read(len(magic)) == magic


def _records(file: Path) -> Iterator[dict[str, Any]]:
    if is_parquet(file):
        with refusing_damage(file):
            for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE):
                yield from batch.to_pylist()
        return
    try:
        import fastavro
    except ImportError:
        raise ConfigError(
            "Avro is read by fastavro",
            value=f"{file}, and it is not installed",
            remedy="pip install bidml[avro]",
        ) from None
    with refusing_damage(file), file.open("rb") as stream:
        try:
            for record in fastavro.reader(stream):
                if not isinstance(record, dict):
                    raise ValueError(f"a file of {type(record).__name__}, not of records")
                yield record
        except (ValueError, IndexError, KeyError, TypeError) as error:  # what fastavro raises on damage
            raise OSError(f"Avro: {error}") from error


class _Writer:
    """Rows, a batch at a time, into one Parquet file; `names` maps keys of a row to columns, where they differ."""

    def __init__(self, path: Path, schema: pa.Schema, names: Mapping[str, str] | None = None) -> None:
        self.n_rows = 0
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="snappy")
        key_of = {column: key for key, column in (names or {}).items()}
        self._keys = [key_of.get(column, column) for column in schema.names]
        self._rows: list[list[Any]] = []

    def add(self, cells: Mapping[str, Any]) -> None:
        get = cells.get
        self._rows.append([get(key) for key in self._keys])
        self.n_rows += 1
        if len(self._rows) == _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        arrays = [_array(cells, field.type) for cells, field in zip(columns, self._schema, strict=True)]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows.clear()

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None and self._rows:
                self._flush()
        finally:
            self._writer.close()


def _array(cells: tuple[Any, ...], kind: pa.DataType) -> pa.Array:
    """JSON integers can be larger than Arrow makes doubles of by itself."""
    try:
        return pa.array(cells, kind)
    except (pa.ArrowInvalid, OverflowError):
        return pa.array([None if cell is None else float(cell) for cell in cells], kind)
