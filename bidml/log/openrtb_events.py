"""Auction logs as OpenRTB events, one JSON object a line, joined on `auction_id`: see docs/auction_log.md.

A bid event makes a row; win, loss, impression, click and conversion events complete it, in any order and
from any file. The features are read from the logged request by the extractor that the bidder uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd

from bidml.contract import FeatureSpec
from bidml.errors import DataError, SpecError
from bidml.log.events import (
    MOST_MILLISECONDS,
    BadEvent,
    auctioned_imp,
    is_code,
    is_number,
    is_text,
    parsed_event,
)
from bidml.log.files import opened
from bidml.log.quarantine import ReadingReport
from bidml.log.schema import COLUMN, ColumnType

_OPENRTB_DEFAULT_FLOOR_CURRENCY: Final = "USD"
_CANONICAL: Final = json.JSONEncoder(sort_keys=True).encode


@dataclass(slots=True)
class _Auction:
    """What is kept of an auction: by event type, the order key and the cells of the earliest event."""

    events: dict[str, tuple[tuple[float, bytes], dict[str, Any]]] = field(default_factory=dict)

    def cells(self, kind: str) -> dict[str, Any]:
        return self.events[kind][1] if kind in self.events else {}


class Tally:
    """Counts by rule, and the first example of each."""

    def __init__(self) -> None:
        self.malformed: dict[str, int] = {}
        self.notes: dict[str, int] = {}
        self.examples: dict[str, str] = {}
        self.n_lines = 0

    def bad(self, rule: str, example: str) -> None:
        self.malformed[rule] = self.malformed.get(rule, 0) + 1
        self.examples.setdefault(rule, example[:200])

    def note(self, rule: str, example: str) -> None:
        self.notes[rule] = self.notes.get(rule, 0) + 1
        self.examples.setdefault(rule, example[:200])


def read_openrtb_events(
    paths: list[Path],
    *,
    spec: FeatureSpec | None = None,
    currency: str | None = None,
    auction_type: int | None = None,
) -> tuple[pd.DataFrame, ReadingReport]:
    """The auction log of the events in `paths` (JSON Lines, gzip recognised), rows by time and auction_id.

    With a `spec`, its features become columns. `currency` and `auction_type` are for bids and requests that
    name none. Lines that are no event are malformed; repeated events (the earliest counts), and events of
    an auction without a bid, are noted. Raises `DataError` when no line is an event, or none is a bid.
    """
    tally = Tally()
    cells_of_bid = BidCells(spec, currency, auction_type)
    auctions: dict[str, _Auction] = {}
    for path in paths:
        for text in event_lines(path, tally):
            try:
                event = parsed_event(text)
                cells = cells_of_bid(event) if event["type"] == "bid" else outcome_cells(event)
            except BadEvent as error:
                tally.bad(str(error), text)
                continue
            _add(auctions, event, cells, tally)
    if tally.n_lines and sum(tally.malformed.values()) == tally.n_lines:
        raise DataError(
            "a file of OpenRTB events has one JSON event a line",
            value=next(iter(tally.examples.values())),
            remedy="see docs/auction_log.md, or set another format",
        )
    rows = [row for auction_id, auction in auctions.items() if (row := _row(auction_id, auction, tally))]
    if not rows:
        raise DataError(
            "a log of OpenRTB events has bids",
            value=f"{tally.n_lines:,} lines, no usable bid; {tally.malformed or tally.notes}",
            remedy="give the file of bid events too",
        )
    log = _typed(rows).sort_values(["timestamp", "auction_id"], ignore_index=True)
    return log, ReadingReport(tally.malformed, tally.notes, tally.examples)


def event_lines(path: Path, tally: Tally) -> Iterator[str]:
    with opened(path) as stream:
        for line in stream:
            if line.strip():
                tally.n_lines += 1
                try:
                    yield line.decode()
                except UnicodeDecodeError:
                    tally.bad("not_utf8", line.decode(errors="replace"))


def _add(
    auctions: dict[str, _Auction], event: Mapping[str, Any], cells: dict[str, Any], tally: Tally
) -> None:
    kind = event["type"]
    events = auctions.setdefault(event["auction_id"], _Auction()).events
    order = (event["timestamp_ms"], tie_breaker(event))
    if kind in events:
        tally.note(f"repeated_{kind}", event["auction_id"])
        if events[kind][0] <= order:
            return
    events[kind] = order, cells


def tie_breaker(event: Mapping[str, Any]) -> bytes:
    """Eight bytes of the content: which of two events of one kind, auction and time counts, wherever they stand."""
    return hashlib.blake2b(_CANONICAL(event).encode(), digest_size=8).digest()


class BidCells:
    """The cells that a bid event gives to its row, features included; the request is not kept."""

    def __init__(self, spec: FeatureSpec | None, currency: str | None, auction_type: int | None) -> None:
        self._spec = spec
        self._currency = currency
        self._auction_type = auction_type
        if spec is not None:
            if spec.timestamp_ms_source.startswith("imp."):
                raise SpecError(
                    "the time of a request is not below its impressions",
                    value=spec.timestamp_ms_source,
                    remedy="set timestamp_ms_source, for example ext.timestamp",
                )
            from bidml.score import RawExtractor  # the extension is needed only here

            self._extract = RawExtractor(spec)

    def __call__(self, bid: Mapping[str, Any]) -> dict[str, Any]:
        request, line_item = bid["request"], bid.get("line_item", {})
        currency = bid.get("currency") or self._currency
        at = bid.get("auction_type") or request.get("at")
        cells = {
            "timestamp": bid["timestamp_ms"],
            "utc_offset_minutes": _utc_offset(request),
            "exchange": bid.get("exchange"),
            "line_item_id": _id_text(line_item.get("id")),
            "currency": currency,
            "auction_type": at if is_code(at) else self._auction_type,
            "bid_cpm": bid["bid_cpm"],
            "floor_cpm": _floor_cpm(bid, currency),
            "value_per_click": bid.get("value_per_click"),
            "propensity": bid.get("propensity"),
        }
        if self._spec is None:
            return cells
        return {**cells, **self._extract(_as_bid_upon(bid, self._spec.timestamp_ms_source), line_item)}


def outcome_cells(event: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("timestamp_ms", "price_cpm", "min_bid_to_win_cpm", "loss_reason")
    return {name: event[name] for name in kept if event.get(name) is not None}


def _row(auction_id: str, auction: _Auction, tally: Tally) -> dict[str, Any] | None:
    bid, win, loss = auction.cells("bid"), auction.cells("win"), auction.cells("loss")
    won = bool(win) or "impression" in auction.events
    if not bid:
        tally.note("event_without_bid", auction_id)
        return None
    if won and loss:
        tally.bad("won_and_lost", auction_id)
        return None
    return {
        "auction_id": auction_id,
        "won": won,
        "price_cpm": win.get("price_cpm"),
        "min_bid_to_win_cpm": win.get("min_bid_to_win_cpm", loss.get("min_bid_to_win_cpm")),
        "loss_reason": loss.get("loss_reason"),
        "clicked": "click" in auction.events,
        "click_timestamp": auction.cells("click").get("timestamp_ms"),
        "converted": "conversion" in auction.events,
        "conversion_timestamp": auction.cells("conversion").get("timestamp_ms"),
        **bid,
    }


def _id_text(cell: object) -> str | None:
    return cell if is_text(cell) else str(cell) if is_code(cell) else None


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    log = pd.DataFrame(rows)
    for name in log.columns:
        column = COLUMN.get(name)
        if column is None:
            continue
        if column.type is ColumnType.TIME:
            log[name] = pd.to_datetime(log[name].astype("float64"), unit="ms", utc=True)
        elif column.type in (ColumnType.NUMBER, ColumnType.INTEGER):
            log[name] = log[name].astype("float64")
    return log[[name for name in COLUMN if name in log] + [name for name in log if name not in COLUMN]]


def _floor_cpm(bid: Mapping[str, Any], currency: str | None) -> float | None:
    """The floor in the bid's currency: as the bidder saw it, else as requested; rates are not known here."""
    if bid.get("floor_cpm") is not None:
        return float(bid["floor_cpm"])
    imp = auctioned_imp(bid) or {}
    floor = imp.get("bidfloor")
    if not is_number(floor) or floor == 0:
        return None
    if imp.get("bidfloorcur", _OPENRTB_DEFAULT_FLOOR_CURRENCY) != currency:
        raise BadEvent("floor_in_another_currency")
    return float(floor)


def _utc_offset(request: Mapping[str, Any]) -> float | None:
    device = request.get("device")
    geo = device.get("geo") if isinstance(device, dict) else None
    offset = geo.get("utcoffset") if isinstance(geo, dict) else None
    return offset if is_number(offset) else None


def _as_bid_upon(bid: Mapping[str, Any], time_path: str) -> dict[str, Any]:
    """The request with the auctioned impression first, dated by the event where it carries no time itself."""
    request = {**bid["request"], "imp": [auctioned_imp(bid)]}
    *parents, name = time_path.split(".")
    at = request
    for parent in parents:
        below = at.get(parent)
        at[parent] = dict(below) if isinstance(below, dict) else {}
        at = at[parent]
    known = at.get(name)
    if not is_number(known) or not 0 <= known < MOST_MILLISECONDS:
        at[name] = bid["timestamp_ms"]
    return request
