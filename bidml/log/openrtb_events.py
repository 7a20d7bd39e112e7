"""Auction logs as OpenRTB events, one JSON object a line, joined on `auction_id`: see docs/auction_log.md.

A bid event makes a row; win, loss, impression, click and conversion events complete it, in any order and
from any file. The features are read from the logged request by the extractor that the bidder uses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeGuard

import pandas as pd

from bidml.contract import FeatureSpec
from bidml.errors import DataError
from bidml.log.files import opened
from bidml.log.quarantine import ReadingReport

EVENT_TYPES: Final = ("bid", "win", "loss", "impression", "click", "conversion")
_OUTCOMES: Final = EVENT_TYPES[1:]
_OPENRTB_DEFAULT_FLOOR_CURRENCY: Final = "USD"
_MOST_MILLISECONDS: Final = 1e14
_EXTRACTED_AT_ONCE: Final = 20_000


class _BadEvent(ValueError):
    """A line that is not an event; its text is the rule it breaks."""


@dataclass(slots=True)
class _Auction:
    bid: Mapping[str, Any] | None = None
    outcomes: dict[str, Mapping[str, Any]] = field(default_factory=dict)


class _Tally:
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
    tally = _Tally()
    auctions: dict[str, _Auction] = {}
    for path in paths:
        for text in _lines(path, tally):
            try:
                _add(auctions, _event(text), tally)
            except _BadEvent as error:
                tally.bad(str(error), text)
    if tally.n_lines and sum(tally.malformed.values()) == tally.n_lines:
        raise DataError(
            "a file of OpenRTB events has one JSON event a line",
            value=next(iter(tally.examples.values())),
            remedy="see docs/auction_log.md, or set another format",
        )
    rows: list[dict[str, Any]] = []
    bids: list[Mapping[str, Any]] = []
    for auction_id, auction in auctions.items():
        if auction.bid is None:
            tally.note("event_without_bid", auction_id)
            continue
        try:
            rows.append(_row(auction_id, auction.bid, auction.outcomes, currency, auction_type))
        except _BadEvent as error:
            tally.bad(str(error), auction_id)
            continue
        bids.append(auction.bid)
    if not rows:
        raise DataError(
            "a log of OpenRTB events has bids",
            value=f"{tally.n_lines:,} lines, no usable bid; {tally.malformed or tally.notes}",
            remedy="give the file of bid events too",
        )
    log = _typed(rows)
    if spec is not None:
        features = _features(spec, bids)
        log = pd.concat([log.drop(columns=[n for n in features if n in log.columns]), features], axis=1)
    log = log.sort_values(["timestamp", "auction_id"], ignore_index=True)
    return log, ReadingReport(tally.malformed, tally.notes, tally.examples)


def _lines(path: Path, tally: _Tally) -> Iterator[str]:
    with opened(path) as stream:
        for line in stream:
            if line.strip():
                tally.n_lines += 1
                try:
                    yield line.decode()
                except UnicodeDecodeError:
                    tally.bad("not_utf8", line.decode(errors="replace"))


def _event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise _BadEvent("not_json") from None
    if not isinstance(event, dict):
        raise _BadEvent("not_an_object")
    if event.get("type") not in EVENT_TYPES:
        raise _BadEvent("unknown_type")
    if not event.get("auction_id") or not _is_text(event["auction_id"]):
        raise _BadEvent("no_auction_id")
    time = event.get("timestamp_ms")
    if not _is_number(time) or not 0 <= time < _MOST_MILLISECONDS:
        raise _BadEvent("no_timestamp_ms")
    _CHECKS.get(event["type"], _any)(event)
    return event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _any(event: Mapping[str, Any]) -> None:
    """Impressions, clicks and conversions carry nothing more."""


def _check_bid(event: Mapping[str, Any]) -> None:
    if not isinstance(event.get("request"), dict):
        raise _BadEvent("bid_without_request")
    if not _is_number(event.get("bid_cpm")):
        raise _BadEvent("bid_without_bid_cpm")
    if not isinstance(event.get("line_item", {}), dict):
        raise _BadEvent("line_item_is_not_an_object")
    _check_optional(
        event, ("floor_cpm", "value_per_click", "propensity", "auction_type"), ("exchange", "currency")
    )
    if _imp(event) is None:
        raise _BadEvent("bid_without_imp")


def _check_win(event: Mapping[str, Any]) -> None:
    _check_optional(event, ("price_cpm", "min_bid_to_win_cpm"), ())


def _check_loss(event: Mapping[str, Any]) -> None:
    _check_optional(event, ("loss_reason", "min_bid_to_win_cpm"), ())


_CHECKS: Final = {"bid": _check_bid, "win": _check_win, "loss": _check_loss}


def _check_optional(event: Mapping[str, Any], numbers: tuple[str, ...], texts: tuple[str, ...]) -> None:
    for name in numbers:
        if event.get(name) is not None and not _is_number(event[name]):
            raise _BadEvent(f"{name}_is_not_a_number")
    for name in texts:
        if event.get(name) is not None and not _is_text(event[name]):
            raise _BadEvent(f"{name}_is_not_text")


def _add(auctions: dict[str, _Auction], event: dict[str, Any], tally: _Tally) -> None:
    kind = event["type"]
    auction = auctions.setdefault(event["auction_id"], _Auction())
    known = auction.bid if kind == "bid" else auction.outcomes.get(kind)
    if known is not None:
        tally.note(f"repeated_{kind}", event["auction_id"])
        if _order(known) <= _order(event):
            return
    if kind == "bid":
        auction.bid = event
    else:
        auction.outcomes[kind] = event


def _order(event: Mapping[str, Any]) -> tuple[float, str]:
    return event["timestamp_ms"], json.dumps(event, sort_keys=True)


def _row(
    auction_id: str,
    bid: Mapping[str, Any],
    outcomes: Mapping[str, Mapping[str, Any]],
    currency: str | None,
    auction_type: int | None,
) -> dict[str, Any]:
    if "loss" in outcomes and ("win" in outcomes or "impression" in outcomes):
        raise _BadEvent("won_and_lost")
    request = bid["request"]
    win, loss = outcomes.get("win", {}), outcomes.get("loss", {})
    in_currency = bid.get("currency") or currency
    at = bid.get("auction_type") or request.get("at")
    line_item_id = bid.get("line_item", {}).get("id")
    return {
        "auction_id": auction_id,
        "timestamp": bid["timestamp_ms"],
        "utc_offset_minutes": _utc_offset(request),
        "exchange": bid.get("exchange"),
        "line_item_id": line_item_id if _is_text(line_item_id) else None,
        "currency": in_currency,
        "auction_type": int(at) if _is_number(at) else auction_type,
        "bid_cpm": bid["bid_cpm"],
        "floor_cpm": _floor_cpm(bid, in_currency),
        "won": "win" in outcomes or "impression" in outcomes,
        "price_cpm": win.get("price_cpm"),
        "min_bid_to_win_cpm": win.get("min_bid_to_win_cpm", loss.get("min_bid_to_win_cpm")),
        "loss_reason": loss.get("loss_reason"),
        "clicked": "click" in outcomes,
        "click_timestamp": outcomes.get("click", {}).get("timestamp_ms"),
        "converted": "conversion" in outcomes,
        "conversion_timestamp": outcomes.get("conversion", {}).get("timestamp_ms"),
        "value_per_click": bid.get("value_per_click"),
        "propensity": bid.get("propensity"),
    }


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    log = pd.DataFrame(rows)
    for name in ("timestamp", "click_timestamp", "conversion_timestamp"):
        log[name] = pd.to_datetime(log[name].astype("float64"), unit="ms", utc=True)
    for name in ("utc_offset_minutes", "floor_cpm", "price_cpm", "min_bid_to_win_cpm", "loss_reason",
                 "value_per_click", "propensity", "auction_type"):  # fmt: skip
        log[name] = log[name].astype("float64")
    return log


def _imp(bid: Mapping[str, Any]) -> dict[str, Any] | None:
    """The auctioned impression: that of `imp_id`, else the first."""
    imps = bid["request"].get("imp")
    wanted = bid.get("imp_id")
    for imp in imps if isinstance(imps, list) else []:
        if isinstance(imp, dict) and (wanted is None or imp.get("id") == wanted):
            return imp
    return None


def _floor_cpm(bid: Mapping[str, Any], currency: str | None) -> float | None:
    """The floor in the bid's currency: as the bidder saw it, else as requested; rates are not known here."""
    if bid.get("floor_cpm") is not None:
        return float(bid["floor_cpm"])
    imp = _imp(bid) or {}
    floor = imp.get("bidfloor")
    if not _is_number(floor) or floor == 0:
        return None
    if imp.get("bidfloorcur", _OPENRTB_DEFAULT_FLOOR_CURRENCY) != currency:
        raise _BadEvent("floor_in_another_currency")
    return float(floor)


def _utc_offset(request: Mapping[str, Any]) -> float | None:
    device = request.get("device")
    geo = device.get("geo") if isinstance(device, dict) else None
    offset = geo.get("utcoffset") if isinstance(geo, dict) else None
    return offset if _is_number(offset) else None


def _features(spec: FeatureSpec, bids: list[Mapping[str, Any]]) -> pd.DataFrame:
    from bidml.score import RawExtractor  # the extension is needed only here

    extractor = RawExtractor(spec)
    parts = []
    for start in range(0, len(bids), _EXTRACTED_AT_ONCE):
        some = bids[start : start + _EXTRACTED_AT_ONCE]
        requests = [_as_bid_upon(bid, spec.timestamp_ms_source) for bid in some]
        columns = extractor.columns(requests, [bid.get("line_item", {}) for bid in some])
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _as_bid_upon(bid: Mapping[str, Any], time_path: str) -> dict[str, Any]:
    """The request with the auctioned impression first, dated by the event where it carries no time itself."""
    request = {**bid["request"], "imp": [_imp(bid)]}
    *parents, name = time_path.split(".")
    at = request
    for parent in parents:
        below = at.get(parent)
        at[parent] = dict(below) if isinstance(below, dict) else {}
        at = at[parent]
    known = at.get(name)
    if not _is_number(known) or not 0 <= known < _MOST_MILLISECONDS:
        at[name] = bid["timestamp_ms"]
    return request


def _is_number(cell: object) -> TypeGuard[int | float]:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool) and _is_finite(cell)


def _is_finite(cell: int | float) -> bool:
    try:
        return math.isfinite(cell)
    except OverflowError:
        return False


def _is_text(cell: object) -> bool:
    if not isinstance(cell, str):
        return False
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
