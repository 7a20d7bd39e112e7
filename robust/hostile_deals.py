"""Private deals: `decide_deal` on requests whose deals, floors and terms are gone, wrong, doubled, or by the dozen.

Held: no exception; a bid is for the open auction, and then what `decide` bids, or for a deal that the line item and one
of the first 32 elements of the list name, at or above that element's floor, exactly at it where its price is fixed;
whoever would bid in the open auction bids here; the bytes of a request say what the request says; references are given
back.
"""

from __future__ import annotations

import gc
import json
import math
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from bidml.contract import MAX_DEALS, NoBidReason
from robust.corpus import requests
from robust.models import CAP_CPM, DEALS, RATES, VALUE_CPM, line_of, scorer_of, wide_blueprint
from robust.outcome import Effort, Outcome
from robust.terms import number, terms_of, text
from robust.wrong_values import FOURTEEN, GONE, LyingDict, places, wrong_values

_FLOORS = (0.0, 0.01, 0.3, 0.5, 2.7, 8.9, 9.0, 9.1, 60.0, -1.0)
_CURRENCIES = ("USD", "EUR", "CNY", "KWD", "XXX", None)
_KINDS = (1, 2, 3, 3.0, 0, 4, None)


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    sys.set_int_max_str_digits(0)
    gc.disable()
    outcome = Outcome()
    judge = _Judge(outcome)
    chance = random.Random(int(rng.integers(2**32)))
    corpus = [request for request in requests() if isinstance(request.get("imp"), list) and request["imp"]]
    corpus = [request for request in corpus if isinstance(request["imp"][0], dict)]
    for _ in range(effort.of(short=1_500, ci=15_000, quick=100_000, long=10_000_000)):
        judge(_with_deals(chance.choice(corpus), chance))
    outcome.note(f"{outcome.trials:,} lists of deals")
    values = [*FOURTEEN, GONE, *wrong_values()]
    for _ in range(effort.of(short=5, ci=40, quick=250, long=20_000)):
        _singles(judge, _with_deals(chance.choice(corpus), chance), values)
    outcome.note(f"{judge.n_deals:,} bids for deals, {judge.n_open:,} in the open auction")
    outcome.demand(judge.n_deals > 100 and judge.n_open > 100, "it hardly bids")
    return outcome


def _deal(chance: random.Random) -> Any:
    if chance.random() < 0.05:
        return chance.choice([None, 7, "d1", [], [{}], {}, LyingDict(id="d1", bidfloor=0.3)])
    deal: dict[str, Any] = {"id": chance.choice([*DEALS, *DEALS, "foreign", "d", 1])}
    for key, pool in (("bidfloor", _FLOORS), ("bidfloorcur", _CURRENCIES), ("at", _KINDS), ("wseat", ([],))):
        if chance.random() < 0.8:
            deal[key] = chance.choice(pool)
    return dict(chance.sample([*deal.items()], len(deal)))


def _with_deals(request: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    n = chance.choice((0, 1, 1, 2, 3, 5, MAX_DEALS - 1, MAX_DEALS, MAX_DEALS + 1, 100))
    pmp = {"private_auction": chance.choice((0, 0, 1)), "deals": [_deal(chance) for _ in range(n)]}
    impression = {"bidfloor": chance.choice(_FLOORS), "bidfloorcur": chance.choice(_CURRENCIES), "pmp": pmp}
    at = chance.choice((1, 1, 2, 3, None))
    return {**request, "at": at, "imp": [{**request["imp"][0], **impression}, *request["imp"][1:]]}


def _singles(judge: _Judge, request: dict[str, Any], values: list[Any]) -> None:
    pmp = request["imp"][0]["pmp"]
    found = [*places(pmp), (request["imp"][0], "pmp"), (request, "at"), (request, "cur")]
    kept = [c[k] for c, k in found if k in c and isinstance(c[k], dict | list | float)] if pmp else []
    counts = list(map(sys.getrefcount, kept))
    for container, key in found[:60]:
        old = container.get(key, GONE) if isinstance(container, dict) else container[key]
        for value in values:
            if value is not GONE:
                container[key] = value
            elif isinstance(container, dict):
                container.pop(key, None)
            else:
                container[key] = None
            judge(request, as_bytes=False)
        if old is GONE:
            container.pop(key, None)
        else:
            container[key] = old
    old = container = None
    if list(map(sys.getrefcount, kept)) != counts:
        judge.outcome.broke("references to deals are not given back", repr(request))


class _Judge:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.scorer = scorer_of(wide_blueprint())
        self.line = line_of(self.scorer)
        self.worthless = self.scorer.line_item(
            creative="320x50", cap_cpm=CAP_CPM, deals=DEALS, value_per_click=0.0
        )
        self.n_deals = self.n_open = 0

    def __call__(self, request: dict[str, Any], *, as_bytes: bool = True) -> None:
        self.outcome.trials += 1
        try:
            found = self.scorer.decide_deal(request, self.line)
            open_ = self.scorer.decide(request, self.line)
            of_two = self.scorer.best_deal(request, [self.worthless, self.line])
        except BaseException as error:
            self.outcome.broke(f"{error!r}", repr(request))
            return
        self.n_deals += found[2] is not None
        self.n_open += found[0] > 0.0 and found[2] is None
        broken = _violation(request, found, open_)
        if of_two != ((1, found[0], found[2]) if found[0] > 0.0 else (-1, 0.0, None)):
            broken = f"beside a line item that is worth nothing it is {of_two}"
        if broken:
            self.outcome.broke(f"{found}, open {open_}: {broken}: {request['imp']!r:.1500}", repr(request))
        if as_bytes and not broken:
            written = json.dumps(request).encode()
            of_bytes = self.scorer.decide_deal_json(written, self.line)
            if of_bytes != found:
                self.outcome.broke(f"the request says {found}, its bytes {of_bytes}", written)


def _violation(request: Any, found: Any, open_: tuple[float, int]) -> str | None:
    bid, reason, deal = found
    if type(bid) is not float or type(reason) is not int or not (deal is None or deal in DEALS):
        return "a decision is a float, an int and a deal of the line item"
    if open_[1] == 0 and reason != 0:
        return "no bid, though the open auction has one"
    if reason != 0:
        return None if bid == 0.0 and deal is None and 0 < reason < len(NoBidReason) else "a no-bid is 0.0"
    if not 0.0 < bid <= min(CAP_CPM, VALUE_CPM):
        return "a bid outside cap and value"
    if deal is None:
        return None if (bid, reason) == open_ else "not the bid of the open auction"
    if not any(_allows(offer, deal, bid) for offer in _offers(request)):
        return "a bid for a deal that nobody offers at it"
    return None


def _offers(request: Any) -> Iterator[tuple[Any, float, float]]:
    """(id, floor in CPM, auction type) of each of the first deals that has valid terms."""
    open_reason, _, of_request = terms_of({**request, "imp": [{}]}, 0, "USD", RATES, 1)
    if open_reason is NoBidReason.UNKNOWN_CURRENCY:
        return
    impression = list.__getitem__(request["imp"], 0)
    pmp = dict.get(impression, "pmp")
    listed = dict.get(pmp, "deals") if isinstance(pmp, dict) else None
    for deal in list.__getitem__(listed, slice(MAX_DEALS)) if isinstance(listed, list) else ():
        if not isinstance(deal, dict):
            continue
        as_imp = {key: dict.__getitem__(deal, key) for key in ("bidfloor", "bidfloorcur") if key in deal}
        reason, floor, _ = terms_of({"imp": [as_imp]}, 0, "USD", RATES, 1)
        kind = number(dict.get(deal, "at"))
        if math.isnan(kind):
            kind = of_request if open_reason is NoBidReason.BID else 0
        if reason is NoBidReason.BID and kind in (1.0, 2.0, 3.0):
            yield text(dict.get(deal, "id")), floor, kind


def _allows(offer: tuple[Any, float, float], deal: str, bid: float) -> bool:
    name, floor, kind = offer
    return name == deal and (bid == floor if kind == 3.0 else bid >= floor)
