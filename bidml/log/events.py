"""One line of an OpenRTB event log, checked: what is missing or of another type makes the line malformed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeGuard

EVENT_TYPES: Final = ("bid", "win", "loss", "impression", "click", "conversion")
MOST_MILLISECONDS: Final = 1e14


class BadEvent(ValueError):
    """A line that is not an event; its text is the rule it breaks."""


def parsed_event(text: str) -> dict[str, Any]:
    """The event of one line, checked; raises `BadEvent`."""
    try:
        event = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise BadEvent("not_json") from None
    if not isinstance(event, dict):
        raise BadEvent("not_an_object")
    return checked_event(event)


def checked_event(event: dict[str, Any]) -> dict[str, Any]:
    """`event` itself if it keeps the rules; raises `BadEvent`."""
    if event.get("type") not in EVENT_TYPES:
        raise BadEvent("unknown_type")
    if not event.get("auction_id") or not is_text(event["auction_id"]):
        raise BadEvent("no_auction_id")
    time = event.get("timestamp_ms")
    if not is_number(time) or not 0 <= time < MOST_MILLISECONDS:
        raise BadEvent("no_timestamp_ms")
    _CHECKS.get(event["type"], _any)(event)
    return event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _any(event: Mapping[str, Any]) -> None:
    """Impressions, clicks and conversions carry nothing more."""


def _check_bid(event: Mapping[str, Any]) -> None:
    if not isinstance(event.get("request"), dict):
        raise BadEvent("bid_without_request")
    if not is_number(event.get("bid_cpm")):
        raise BadEvent("bid_without_bid_cpm")
    if not isinstance(event.get("line_item", {}), dict):
        raise BadEvent("line_item_is_not_an_object")
    _check_optional(event, ("floor_cpm", "value_per_click", "propensity"), ("exchange", "currency"))
    _check_integer(event, "auction_type")
    if auctioned_imp(event) is None:
        raise BadEvent("bid_without_imp")


def _check_win(event: Mapping[str, Any]) -> None:
    _check_optional(event, ("price_cpm", "min_bid_to_win_cpm"), ())


def _check_loss(event: Mapping[str, Any]) -> None:
    _check_optional(event, ("min_bid_to_win_cpm",), ())
    _check_integer(event, "loss_reason")


_CHECKS: Final = {"bid": _check_bid, "win": _check_win, "loss": _check_loss}


def _check_optional(event: Mapping[str, Any], numbers: tuple[str, ...], texts: tuple[str, ...]) -> None:
    for name in numbers:
        if event.get(name) is not None and not is_number(event[name]):
            raise BadEvent(f"{name}_is_not_a_number")
    for name in texts:
        if event.get(name) is not None and not is_text(event[name]):
            raise BadEvent(f"{name}_is_not_text")


def _check_integer(event: Mapping[str, Any], name: str) -> None:
    if event.get(name) is not None and not is_code(event[name]):
        raise BadEvent(f"{name}_is_not_an_integer")


def auctioned_imp(bid: Mapping[str, Any]) -> dict[str, Any] | None:
    """The auctioned impression: that of `imp_id`, else the first."""
    imps = bid["request"].get("imp")
    wanted = bid.get("imp_id")
    for imp in imps if isinstance(imps, list) else []:
        if isinstance(imp, dict) and (wanted is None or imp.get("id") == wanted):
            return imp
    return None


def is_number(cell: object) -> TypeGuard[int | float]:
    return isinstance(cell, (int, float)) and not isinstance(cell, bool) and _is_finite(cell)


def _is_finite(cell: int | float) -> bool:
    try:
        return math.isfinite(cell)
    except OverflowError:
        return False


def is_code(cell: object) -> TypeGuard[int]:
    """An integer small enough to be a code of OpenRTB or of an exchange."""
    return isinstance(cell, int) and not isinstance(cell, bool) and abs(cell) < 2**31


def is_text(cell: object) -> TypeGuard[str]:
    if not isinstance(cell, str):
        return False
    try:
        cell.encode()
    except UnicodeEncodeError:
        return False
    return True
