"""What a request says about the auction, read a second time, in plain Python: the twin of native `Terms`.

From docs: the impression, whether the currency is accepted, a private auction, the auction type, the floor. Uses
`dict.get` with exact keys only, so it is defined on what JSON decoders build and on their subclasses.
"""

from __future__ import annotations

import math
from typing import Any

from bidml.contract import NoBidReason

Terms = tuple[NoBidReason, float, int]


def number(value: Any) -> float:
    """An int or a finite float, else NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        found = float.__float__(value) if isinstance(value, float) else float(int(value))
    except OverflowError:
        return math.nan
    return found if math.isfinite(found) else math.nan


def text(value: Any) -> str | None:
    """Text as a category, an integer in decimal; None for what equals no currency."""
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return "an integer"
    return None


def _first_texts(found: list[Any]) -> list[str | None]:
    return [text(value) for value in list.__getitem__(found, slice(64))]


def terms_of(request: Any, imp: int, currency: str, rates: dict[str, float], default_at: int) -> Terms:
    """(reason, floor in CPM of `currency`, auction type); the floor and type count only for reason BID."""
    get = dict.get
    if not isinstance(request, dict) or not isinstance(imps := get(request, "imp"), list):
        return NoBidReason.INVALID_REQUEST, 0.0, 0
    if not 0 <= imp < list.__len__(imps) or not isinstance(chosen := list.__getitem__(imps, imp), dict):
        return NoBidReason.INVALID_IMP, 0.0, 0
    accepted = get(request, "cur")
    if isinstance(accepted, list) and list.__len__(accepted) and currency not in _first_texts(accepted):
        return NoBidReason.UNKNOWN_CURRENCY, 0.0, 0
    pmp = get(chosen, "pmp")
    if isinstance(pmp, dict) and number(get(pmp, "private_auction")) == 1.0:
        return NoBidReason.PRIVATE_AUCTION, 0.0, 0
    at = number(get(request, "at"))
    if not (math.isnan(at) or at in (1.0, 2.0)):
        return NoBidReason.UNSUPPORTED_AUCTION_TYPE, 0.0, 0
    kind = default_at if math.isnan(at) else int(at)
    found = get(chosen, "bidfloor")
    if found is None:
        return NoBidReason.BID, 0.0, kind
    floor = number(found)
    if not floor >= 0.0:
        return NoBidReason.INVALID_FLOOR, 0.0, kind
    if floor == 0.0:
        return NoBidReason.BID, 0.0, kind
    code = get(chosen, "bidfloorcur")
    rate = {currency: 1.0, **rates}.get("USD" if code is None else text(code) or "", 0.0)
    if not rate > 0.0:
        return NoBidReason.UNKNOWN_CURRENCY, 0.0, kind
    return NoBidReason.BID, floor * rate, kind


def violation(decision: Any, terms: Terms, *, cap_cpm: float, value_cpm: float = math.inf) -> str | None:
    """How (bid_cpm, reason) breaks the contract, or None. `value_cpm`: the most that may be bid."""
    bid, reason = decision
    wanted, floor, _ = terms
    if type(bid) is not float or type(reason) is not int:
        return f"a decision is a float and an int: {decision!r}"
    if reason == 0:
        if wanted is not NoBidReason.BID:
            return f"a bid of {bid!r} where the request says {wanted.name}"
        if not (bid > 0.0 and floor <= bid <= cap_cpm and bid <= value_cpm):
            return f"a bid of {bid!r} outside floor {floor!r}, cap {cap_cpm!r}, value {value_cpm!r}"
    elif bid != 0.0 or not 0 < reason < len(NoBidReason):
        return f"a no-bid is 0.0 with a reason: {decision!r}"
    elif wanted is NoBidReason.BID and floor > cap_cpm:
        if reason != NoBidReason.FLOOR_ABOVE_CAP:
            return f"{NoBidReason(reason).name} where the floor {floor!r} is above the cap"
    elif wanted is NoBidReason.BID:
        if reason <= NoBidReason.PRIVATE_AUCTION:
            return f"{NoBidReason(reason).name} where the request is valid"
    elif reason != wanted:
        return f"{NoBidReason(reason).name} where the request says {wanted.name}"
    return None
