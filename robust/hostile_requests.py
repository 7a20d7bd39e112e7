"""Requests as Python objects: every request of the shared data, each of its fields gone or wrong, in ones and twos.

Held: no exception; a decision is what the second reading of the request (`terms`) says; a bid is inside floor, cap and
value; the batch gives the same bid; every reference that was borrowed is given back.

Singles: every field of every request, deleted or replaced by the FOURTEEN, and on a part of the requests by everything
else of `wrong_values`. Terms: every request under floors around the cap in every kind of currency, and each auction
type. Pairs: of the fields whose names the model or the terms read, for others change nothing; all of them in the long
lane, a random part otherwise.
"""

from __future__ import annotations

import gc
import sys
from array import array
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np

from bidml.contract import GOAL_INPUTS, PRICE_INPUTS, FeatureKind
from bidml.score import RawExtractor
from robust.bidder import Bidder
from robust.corpus import requests
from robust.models import CAP_CPM, GOALS, RATES, wide_blueprint
from robust.outcome import WHOLE, Effort, Outcome, Share
from robust.terms import terms_of
from robust.wrong_values import FOURTEEN, GONE, places, wrong_values

# What the terms and the derived features read, besides the sources of the model.
_READ = (
    *("imp", "cur", "at", "bidfloor", "bidfloorcur", "pmp", "private_auction", "ext", "timestamp", "w", "h"),
    *("device", "geo", "utcoffset", "osv", "app", "site", "bundle", "domain"),
    *("banner", "format", "video", "audio", "native"),
)


def attack(effort: Effort, rng: np.random.Generator, share: Share = WHOLE) -> Outcome:
    sys.set_int_max_str_digits(0)  # findings are told with all their digits
    gc.disable()  # a million nested dicts would be looked at again and again
    outcome = Outcome()
    bidder = Bidder(outcome)
    step = effort.of(short=80, ci=1, quick=1, long=1)
    corpus = [request for i, request in enumerate(requests()[::step]) if share.has(i)]
    _singles(bidder, corpus, [*FOURTEEN, GONE])
    outcome.note(f"{len(corpus):,} requests, {outcome.trials:,} singles")
    _singles(bidder, corpus[:: effort.of(short=1, ci=60, quick=15, long=1)], wrong_values())
    _terms(bidder, corpus)
    before = outcome.trials
    if effort is Effort.LONG:
        _all_pairs(bidder, corpus)
    else:
        _some_pairs(
            bidder, corpus, rng, effort.of(short=20_000, ci=300_000, quick=1_500_000, long=0) // share.of
        )
    outcome.note(f"{outcome.trials - before:,} pairs")
    _batches(bidder, corpus, rng, effort.of(short=200, ci=2_000, quick=4_000, long=200_000))
    outcome.note(f"{bidder.n_bids:,} bids, {bidder.n_explored:,} of them explored")
    return outcome


def _singles(bidder: Bidder, corpus: list[Any], values: list[Any]) -> None:
    before = [sys.getrefcount(value) for value in values]
    for request in corpus:
        # Small ints, None and texts of a letter belong to everybody.
        kept = [c[k] for c, k in places(request) if isinstance(c[k], dict | list | float)]
        counts = list(map(sys.getrefcount, kept))
        for container, key in list(places(request)):
            old = container[key]
            for i, value in enumerate(values):
                _put(container, key, value)
                bidder.decide(
                    request, what=lambda k=key, v=i, r=request: f"{k!r} = wrong value {v} in {r!r:.300}"
                )
            container[key] = old
        old = container = None
        if list(map(sys.getrefcount, kept)) != counts:
            bidder.outcome.broke(f"references to parts of {request!r:.300} are not given back")
    value = None
    after = [sys.getrefcount(value) for value in values]
    for wrong, old, new in zip(values, before, after, strict=True):
        if old < 10_000 and new - old not in (0, 1) and not isinstance(wrong, bool | int | None):
            bidder.outcome.broke(
                f"{new - old} references to {type(wrong).__name__} {wrong!r:.50} are not given back"
            )


def _terms(bidder: Bidder, corpus: list[Any]) -> None:
    for request in corpus:
        imps = request.get("imp")
        if not (isinstance(imps, list) and imps and isinstance(imps[0], dict)):
            continue
        kept, at = imps[0], request.get("at", GONE)
        for currency in ("USD", "EUR", "CNY", "KWD", "XXX", GONE):
            for floor in (0.0, 0.5, 2.7, 4.0, 8.9, 9.1, 60.0):
                imps[0] = {**kept, "bidfloor": floor, "bidfloorcur": currency}
                if currency is GONE:
                    del imps[0]["bidfloorcur"]
                for request["at"] in (1, 2, 3):
                    bidder.decide(
                        request, what=lambda r=request, f=floor, c=currency: f"floor {f} {c}: {r!r:.300}"
                    )
        imps[0] = kept
        _put(request, "at", at)


def _put(container: Any, key: Any, value: Any) -> None:
    """An element of a list is not deleted but null: the others keep their places."""
    if value is not GONE:
        container[key] = value
    elif isinstance(container, dict):
        container.pop(key, None)
    else:
        container[key] = None


@cache
def _names_read() -> frozenset[str]:
    sources = [feature.source for feature in wide_blueprint().spec.features]
    return frozenset(name for source in sources for name in source.split(".")).union(_READ)


def _read_places(request: Any) -> list[tuple[Any, Any]]:
    return [(c, key) for c, key in places(request) if not isinstance(key, str) or key in _names_read()]


def _some_pairs(bidder: Bidder, corpus: list[Any], rng: np.random.Generator, n: int) -> None:
    values = [*FOURTEEN, GONE]
    at_once = 500
    for _ in range(n // at_once):
        request = corpus[rng.integers(len(corpus))]
        found = _read_places(request)
        if len(found) < 2:
            continue
        pairs = rng.integers(len(found), size=(at_once, 2)).tolist()
        chosen = rng.integers(len(values), size=(at_once, 2)).tolist()
        for (i, j), (v, w) in zip(pairs, chosen, strict=True):
            _pair(bidder, request, found[i], found[j], values[v], values[w])


def _all_pairs(bidder: Bidder, corpus: list[Any]) -> None:
    values = [*FOURTEEN, GONE]
    for request in corpus:
        for one, other in combinations(_read_places(request), 2):
            for v in values:
                for w in values:
                    _pair(bidder, request, one, other, v, w)


def _pair(bidder: Bidder, request: Any, one: tuple[Any, Any], other: tuple[Any, Any], v: Any, w: Any) -> None:
    (a, key_a), (b, key_b) = one, other
    old_a, old_b = a[key_a], b[key_b]
    _put(b, key_b, w)
    _put(a, key_a, v)
    bidder.decide(request, what=lambda: f"{key_a!r} = {v!r:.40}, {key_b!r} = {w!r:.40}: {request!r:.300}")
    a[key_a], b[key_b] = old_a, old_b


def _batches(bidder: Bidder, corpus: list[Any], rng: np.random.Generator, n: int) -> None:
    """The batch on what the extractor reads gives the bid of the hot path, to the last bit."""
    spec = wide_blueprint().spec
    extractor = RawExtractor(spec)
    decoded = (type(None), bool, str, int, float, list, dict)  # the extractor's own lists do not lie
    values = [value for value in wrong_values() if type(value) in decoded]
    rows, wanted, prices = [], [], []
    for i in rng.integers(len(corpus), size=n):
        request = corpus[i]
        found = list(places(request))
        if not found or not isinstance(request.get("imp"), list):
            continue
        container, key = found[rng.integers(len(found))]
        old = container[key]
        container[key] = values[rng.integers(len(values))]
        if "ext" not in request or not isinstance(request["ext"], dict):
            request = {**request, "ext": {}}
        request["ext"]["timestamp"] = 1_700_000_000_000 + int(i) * 3_600_000
        reason, floor, kind = terms_of(request, 0, "USD", RATES, 1)
        if reason == 0:
            rows.append(extractor(request, {"creative": "320x50"}))
            wanted.append(bidder.scorer.bid(request, bidder.line))
            prices.append((GOALS["value_per_click"], floor, CAP_CPM, 1.0, float(kind)))
        container[key] = old
    columns: dict[str, Any] = {
        f.name: [row[f.name] for row in rows]
        if f.kind is FeatureKind.CATEGORY
        else array("d", [row[f.name] for row in rows])
        for f in spec.features
    }
    columns |= {name: array("d", [price[i] for price in prices]) for i, name in enumerate(PRICE_INPUTS)}
    columns |= {name: GOALS[name] for name in GOAL_INPUTS}
    out = array("d", bytes(8 * len(rows)))
    bidder.scorer.bid_many(columns, out=out)
    bidder.outcome.trials += len(rows)
    for i, (want, have) in enumerate(zip(wanted, out, strict=True)):
        bidder.outcome.demand(
            want == have, f"the hot path bids {want!r}, the batch {have!r}: {rows[i]!r:.500}"
        )
