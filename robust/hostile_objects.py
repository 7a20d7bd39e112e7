"""Requests of foreign objects: keys whose comparison runs code, dicts and lists that lie, threads that change them.

Held: no exception; a bid is inside floor and cap, whatever the foreign code does; borrowed references are given back.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from robust.bidder import Bidder
from robust.models import CAP_CPM
from robust.outcome import Effort, Outcome
from robust.wrong_values import Foreign, LyingDict, Text, nested, wrong_values


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    sys.set_int_max_str_digits(0)  # findings are told with all their digits
    gc.disable()
    outcome = Outcome()
    bidder = Bidder(outcome)
    _whole_requests(bidder)
    _foreign_code(bidder)
    _threads(bidder, effort.of(short=3_000, ci=60_000, quick=300_000, long=20_000_000))
    outcome.note(f"{bidder.n_bids:,} bids")
    return outcome


def _whole_requests(bidder: Bidder) -> None:
    many = {"imp": [{"bidfloor": i * 1e-3} for i in range(10_000)]}
    for imp in (0, 1, 9_999, 10_000, -1, -(2**63), 2**63 - 1):
        bidder.decide(many, imp, what=lambda i=imp: f"impression {i} of 10,000")
    for value in wrong_values():
        bidder.decide(value, what=lambda v=value: f"{v!r:.100} as a request")
        bidder.decide({"imp": value}, what=lambda v=value: f"{v!r:.100} as imp")
        bidder.decide({"imp": [value]}, what=lambda v=value: f"{v!r:.100} as an impression")
        bidder.decide({"imp": [{}], "cur": [value] * 70}, what=lambda v=value: f"{v!r:.100} as currencies")
    huge = "x" * (16 << 20)
    deep = nested(1_000_000, in_dicts=True), nested(1_000_000, in_dicts=False)
    for value in (huge, "é" * (8 << 20), *deep):
        for request in (
            {
                "imp": [{"tagid": value, "bidfloorcur": value}],
                "device": {"geo": {"country": value}, "osv": value},
            },
            {"imp": [{}], "device": value, "app": {"bundle": value}, "cur": value},
            {"imp": value, value if isinstance(value, str) else "x": 1},
        ):
            bidder.decide(request, what=lambda: "huge or deep")
    for size in (1, 5, 6, 100, 10_000):  # dicts of every index width, with deletions before and after
        padded = (
            {f"k{i}": i for i in range(size)}
            | {"imp": [{"bidfloor": 0.1}]}
            | {f"l{i}": i for i in range(size)}
        )
        bidder.decide(padded, what=lambda s=size: f"{s} other keys")
        for i in range(0, size, 2):
            del padded[f"k{i}"]
            bidder.decide(padded, what=lambda s=size: f"{s} other keys, some deleted")
        padded[7] = 1  # no longer only text
        bidder.decide(padded, what=lambda s=size: f"{s} other keys, one a number")
        bidder.decide(LyingDict(padded), what=lambda s=size: f"{s} other keys in a subclass")
        bidder.decide(OrderedDict(padded), what=lambda s=size: f"{s} other keys in order")

    class Attributes:
        def __init__(self) -> None:
            self.imp = [vars(_Banner())]
            self.at = 1

    class _Banner:
        def __init__(self) -> None:
            self.bidfloor = 0.1
            self.banner = {"w": 320, "h": 50}

    attributes = vars(Attributes())
    kept = [attributes["imp"], attributes["imp"][0], attributes["imp"][0]["banner"]]
    counts = list(map(sys.getrefcount, kept))
    for _ in range(100):
        bidder.decide(attributes, what=lambda: "the attributes of an object: keys shared by a class")
    if list(map(sys.getrefcount, kept)) != counts:
        bidder.outcome.broke("references to the attributes of an object are not given back")


def _foreign_code(bidder: Bidder) -> None:
    """Keys whose comparison raises, re-enters the scorer, or changes the request while it is read."""

    armed = False  # dicts are filled in peace

    def key(name: str, act: Callable[[], Any]) -> Any:
        class Key:
            def __hash__(self) -> int:
                return hash(name)

            def __eq__(self, other: object) -> bool:
                if armed:
                    act()
                return NotImplemented

        return Key()

    class Texts(str):  # a str for the dict, not exactly one
        def __eq__(self, other: object) -> bool:
            if armed:
                raise RuntimeError("compared")
            return str.__eq__(self, other)

        def __hash__(self) -> int:
            return str.__hash__(self)

    names = (
        "imp",
        "at",
        "cur",
        "device",
        "geo",
        "country",
        "app",
        "bundle",
        "bidfloor",
        "bidfloorcur",
        "banner",
        "w",
        "pmp",
        "deals",
        "id",
    )
    outer: dict[Any, Any] = {}

    def act_raise() -> None:
        raise RuntimeError("compared")

    def act_again() -> None:
        inner = {"imp": [{"bidfloor": 0.1}], "device": {"geo": {"country": "USA"}}}
        assert bidder.scorer.bid(inner, bidder.line) >= 0.0

    def act_clear() -> None:
        for found in list(outer.values()):
            if isinstance(found, dict | list):
                found.clear()
        outer.clear()

    def act_grow() -> None:
        for i in range(200):
            outer[f"new {i}"] = i

    def act_swap() -> None:
        outer["imp"] = [{"bidfloor": 0.2}]
        outer["device"] = {}

    for act in (act_raise, act_again, act_clear, act_grow, act_swap):
        for name in names:
            for depth in range(5):
                armed = False
                foreign = key(name, act)
                geo = {foreign: 1, "country": "USA"} if depth == 2 else {"country": "USA"}
                device = {foreign: 2, "geo": geo, "os": "iOS"} if depth == 1 else {"geo": geo, "os": "iOS"}
                deal = {"id": "d1", "at": 3, "bidfloor": 0.3}
                pmp: dict[Any, Any] = {"deals": [{foreign: 5, **deal} if depth == 3 else deal, deal]}
                pmp = {foreign: 6, **pmp} if depth == 4 else pmp
                imp = {foreign: 3, "bidfloor": 0.1, "banner": {"w": 320, "h": 50}, "pmp": pmp}
                outer.clear()
                if depth == 0:
                    outer[foreign] = 4
                outer.update({"imp": [imp], "device": device, "app": {"bundle": "com.example.app"}, "at": 1})
                armed = True
                bidder.survive(outer, what=f"{act.__name__} in the comparison with {name}, depth {depth}")
    bidder.survive({Texts("imp"): 1, "at": 1, Texts("at2"): 2}, what="a key of a subclass of str")
    bidder.survive({"imp": [{Texts("bidfloor"): 1.0}]}, what="a key of a subclass of str, below")
    for hostile in (Foreign, Text):
        holder: dict[Any, Any] = {"imp": [{"bidfloor": 0.1}]}
        try:
            holder[hostile()] = 1
        except RuntimeError:
            bidder.survive(holder, what="a key that cannot be hashed")


def _threads(bidder: Bidder, n: int) -> None:
    """Two threads change the request that another one bids on."""
    request: dict[str, Any] = {
        "imp": [{"bidfloor": 0.1, "banner": {}}],
        "device": {"geo": {"country": "USA"}},
    }
    stop = threading.Event()

    def change() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            request["device"] = {"geo": {"country": f"{i}"}, f"k{i % 7}": i}
            request.pop(f"x{(i * 7) % 50}", None)
            request[f"x{i % 50}"] = [i]
            if i % 3 == 0:
                request["imp"] = [{"bidfloor": 0.1, "banner": {"w": i, "h": 50}}]
            request.setdefault("imp", []).append({})
            if i % 11 == 0:
                request.clear()

    switch = sys.getswitchinterval()
    threads = [threading.Thread(target=change) for _ in range(2)]
    sys.setswitchinterval(1e-5)
    for thread in threads:
        thread.start()
    for _ in range(n):
        bidder.outcome.trials += 1
        try:
            bid, reason = bidder.scorer.decide(request, bidder.line)
        except BaseException as error:
            bidder.outcome.broke(f"a request that another thread changes: {error!r}")
            break
        if not (0.1 <= bid <= CAP_CPM if reason == 0 else bid == 0.0):
            bidder.outcome.demand(
                reason == 0 and 0.0 < bid <= CAP_CPM, f"({bid!r}, {reason}) between threads"
            )
    stop.set()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(switch)
