"""Streams of events as they come: repeated, out of order, malformed, without their bid."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from bidml.contract import Feature, FeatureKind, FeatureSpec

DAY: Final = 86_400_000
MIDNIGHT: Final = 1_772_323_200_000  # 2026-03-01T00:00:00Z
SPEC: Final = FeatureSpec(
    (
        Feature("country", FeatureKind.CATEGORY, "device.geo.country"),
        Feature("exchange", FeatureKind.CATEGORY, "ext.exchange"),
        Feature("day", FeatureKind.NUMBER, "ext.day"),
        Feature("tie", FeatureKind.NUMBER, "imp.bidfloor"),
        Feature("timestamp_ms", FeatureKind.CATEGORY, "imp.id"),
        Feature("type", FeatureKind.CATEGORY, "line_item.type"),
        Feature("hour_of_day", FeatureKind.NUMBER, "derived.hour_of_day"),
    )
)
_JUNK: Final = (
    "{oops", "[1]", "null", '{"type": "view"}', '{"type": "win", "auction_id": "", "timestamp_ms": 1}',
    '{"type": "click", "auction_id": "a1", "timestamp_ms": "now"}',
    '{"type": "bid", "auction_id": "a1", "timestamp_ms": 1, "bid_cpm": 2}',
    '{"type": "loss", "auction_id": "a1", "timestamp_ms": 1, "loss_reason": 1.5}',
)  # fmt: skip


def stream(rng: random.Random, n: int) -> list[str]:
    """`n` lines about some n / 4 auctions of three days; a tenth of them replays or junk."""
    lines: list[str] = []
    for _ in range(n):
        chance = rng.random()
        if chance < 0.05:
            lines.append(rng.choice(_JUNK))
        elif chance < 0.1 and lines:
            lines.append(rng.choice(lines))
        else:
            lines.append(
                json.dumps(_event(rng, f"a{rng.randrange(max(1, n // 4))}é\u0000"[: rng.choice((3, 9))]))
            )
    rng.shuffle(lines)
    return lines


def _event(rng: random.Random, auction_id: str) -> dict[str, Any]:
    kind = rng.choice(("bid", "bid", "bid", "win", "loss", "impression", "click", "conversion"))
    day = rng.randrange(3)
    time = MIDNIGHT + day * DAY + rng.randrange(4) * 7_000_000
    event: dict[str, Any] = {
        "type": kind,
        "auction_id": auction_id,
        "timestamp_ms": time + rng.choice((0, 0, 1, 0.4, 0.25, 0.9997)),
    }
    if kind == "bid":
        event |= _bid(rng)
    if kind == "win":
        event |= _some(rng, price_cpm=rng.choice((1.5, 2, 1e-9)))
    if kind in ("win", "loss"):
        event |= _some(rng, min_bid_to_win_cpm=rng.choice((0.5, 3, 10**30)))
    if kind == "loss":
        event |= _some(rng, loss_reason=rng.choice((0, 1, 102, -(2**31) + 1)))
    return event


def _bid(rng: random.Random) -> dict[str, Any]:
    imps = [{"id": "1", **_some(rng, bidfloor=rng.choice((0, 0.5)), bidfloorcur="USD")}, {"id": "2"}]
    geo = _some(rng, country="DEU", utcoffset=rng.choice((60, -330.5)))
    request = {
        "imp": imps,
        **_some(rng, at=rng.choice((1, 2, 1.5)), device={"geo": geo}, ext={"day": 3, "exchange": "x"}),
    }
    return {"request": request, "bid_cpm": rng.choice((1, 2.5, 1e300))} | _some(
        rng,
        imp_id="2",
        currency=rng.choice(("USD", "EUR", "")),
        auction_type=rng.choice((1, 2, 0)),
        floor_cpm=0.25,
        value_per_click=0.5,
        propensity=2.0,
        exchange="adx",
        line_item=rng.choice(({"id": 7, "type": "t"}, {"id": "l1"}, {})),
    )


def _some(rng: random.Random, **cells: Any) -> dict[str, Any]:
    """Each cell with probability a half, null or there."""
    kept = {name: cell for name, cell in cells.items() if rng.random() < 0.5}
    return {name: None if rng.random() < 0.1 and name != "line_item" else cell for name, cell in kept.items()}
