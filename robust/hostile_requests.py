"""Requests as Python objects: every field of every request gone or wrong, in ones and twos; foreign code; threads.

Held: no exception; a decision is what the second reading of the request (`terms`) says; a bid is inside floor, cap and
value; the batch gives the same bid; every reference that was borrowed is given back.
"""

from __future__ import annotations

import gc
import sys
import threading
from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from bidml.contract import PRICE_INPUTS, FeatureKind
from bidml.score import RawExtractor
from robust.corpus import requests
from robust.models import CAP_CPM, RATES, VALUE_PER_CLICK, line_of, scorer_of, wide_blueprint
from robust.outcome import Effort, Outcome
from robust.terms import terms_of, violation

VALUE_CPM = 1000.0 * VALUE_PER_CLICK


class _Text(str):
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("a text that cannot be compared")

    def __hash__(self) -> int:
        raise RuntimeError("a text that cannot be hashed")


class _Int(int):
    def __index__(self) -> int:
        raise RuntimeError("an int that is no index")

    def __float__(self) -> float:
        raise RuntimeError("an int that is no float")


class _Float(float):
    def __float__(self) -> float:
        raise RuntimeError("a float that is no float")


class _Foreign:
    """Answers nothing."""

    def __float__(self) -> float:
        raise RuntimeError("no float")

    def __index__(self) -> int:
        raise RuntimeError("no index")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    def __hash__(self) -> int:
        raise RuntimeError("no hash")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no attribute")


class _Dict(dict):  # type: ignore[type-arg]
    """Its methods lie; its contents count."""

    def get(self, key: object, default: object = None) -> Any:
        raise RuntimeError("no get")

    def __getitem__(self, key: object) -> Any:
        raise RuntimeError("no item")

    def __missing__(self, key: object) -> Any:
        raise RuntimeError("nothing is missing")


class _List(list):  # type: ignore[type-arg]
    def __getitem__(self, index: object) -> Any:
        raise RuntimeError("no item")

    def __len__(self) -> int:
        return 1 << 40


def _nested(depth: int, *, in_dicts: bool) -> Any:
    found: Any = 1
    for _ in range(depth):
        found = {"geo": found} if in_dicts else [found]
    return found


def wrong_values() -> list[Any]:
    """What may stand in any field."""
    return [
        *(
            None,
            True,
            False,
            "",
            "1.5",
            "1e999",
            "nan",
            "\0",
            "\ud800",
            "é" * 1024,
            "Ω" * 1025,
            "\U0001f600" * 300,
        ),
        *(
            "x" * 1024,
            "x" * 1025,
            b"1",
            0,
            -1,
            1,
            2,
            3,
            2**31,
            2**53 + 1,
            2**62,
            2**63 - 1,
            2**63,
            -(2**63),
            2**64,
        ),
        *(
            10**308,
            10**309,
            10**4999,
            0.0,
            -0.0,
            0.5,
            1.0,
            2.0,
            -1.5,
            5e-324,
            1.7e308,
            float("inf"),
            float("-inf"),
        ),
        *(float("nan"), [], [None], [{}], [1, 2], {}, (), (1,), {"w": 1}, Decimal("1.5"), Fraction(1, 2), 1j),
        *(np.float64(0.25), np.float64("nan"), np.int64(1), np.str_("USA"), np.array([1.0]), object, len),
        *(_Text("USA"), _Int(1), _Float(0.25), _Foreign(), _Dict(w=320, h=50), _List([{}]), OrderedDict(w=1)),
        *(defaultdict(dict), _nested(100, in_dicts=True), _nested(100, in_dicts=False), range(3), iter(())),
    ]


def places(found: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of every field below a request."""
    open_ = [found]
    while open_:
        container = open_.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            yield container, key
            if type(container[key]) in (dict, list):
                open_.append(container[key])


class Bidder:
    """A scorer under attack and the contract it is held to."""

    def __init__(self, outcome: Outcome, isa: str = "best") -> None:
        self.outcome = outcome
        self.scorer = scorer_of(wide_blueprint(), isa=isa)
        self.line = line_of(self.scorer)
        self.n_bids = 0

    def decide(self, request: Any, imp: int = 0, *, what: Callable[[], str]) -> None:
        """One trial on what plain dict look-ups can read."""
        self.outcome.trials += 1
        try:
            decision = self.scorer.decide(request, self.line, imp)
            self.n_bids += decision[0] > 0.0
        except BaseException as error:
            self.outcome.broke(f"{what()}: {error!r}")
            return
        terms = terms_of(request, imp, "USD", RATES, 1)
        broken = violation(decision, terms, cap_cpm=CAP_CPM, value_cpm=VALUE_CPM)
        if broken:
            self.outcome.broke(f"{what()}: {broken}")

    def survive(self, request: Any, imp: int = 0, *, what: str) -> None:
        """One trial on what foreign code decides: no exception, and nothing outside cap."""
        self.outcome.trials += 1
        try:
            for bid in (
                self.scorer.bid(request, self.line, imp),
                self.scorer.decide(request, self.line, imp)[0],
                self.scorer.best(request, [self.line], imp)[1],
            ):
                if not 0.0 <= bid <= CAP_CPM:
                    self.outcome.broke(f"{what}: a bid of {bid!r}")
        except BaseException as error:
            self.outcome.broke(f"{what}: {error!r}")


def attack(effort: Effort, rng: np.random.Generator) -> Outcome:
    sys.set_int_max_str_digits(0)  # findings are told with all their digits
    gc.disable()  # a million nested dicts would be looked at again and again
    outcome = Outcome()
    bidder = Bidder(outcome)
    corpus = requests()
    n = min(len(corpus), effort.of(twin=40, quick=4_000, long=4_000))
    chosen = [corpus[i] for i in rng.permutation(len(corpus))[:n]]
    _fields(bidder, chosen)
    _pairs(bidder, corpus, rng, effort.of(twin=2_000, quick=1_000_000, long=60_000_000))
    _whole_requests(bidder)
    _foreign_code(bidder)
    _threads(bidder, effort.of(twin=2_000, quick=60_000, long=5_000_000))
    _batches(bidder, corpus, rng, effort.of(twin=200, quick=4_000, long=200_000))
    outcome.note(f"{bidder.n_bids:,} bids")
    return outcome


def _fields(bidder: Bidder, corpus: list[Any]) -> None:
    values = wrong_values()
    before = [sys.getrefcount(value) for value in values]
    for request in corpus:
        # Small ints, None and texts of a letter belong to everybody.
        kept = [c[k] for c, k in places(request) if isinstance(c[k], dict | list | float)]
        counts = list(map(sys.getrefcount, kept))
        for container, key in list(places(request)):
            old = container[key]
            for i, value in enumerate(values):
                container[key] = value
                bidder.decide(
                    request, what=lambda k=key, v=i, r=request: f"{k!r} = wrong value {v} in {r!r:.300}"
                )
            if isinstance(container, dict):
                del container[key]
                bidder.decide(request, what=lambda k=key, r=request: f"without {k!r}: {r!r:.300}")
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


def _pairs(bidder: Bidder, corpus: list[Any], rng: np.random.Generator, n: int) -> None:
    values = wrong_values()
    at_once = 500
    for _ in range(n // at_once):
        request = corpus[rng.integers(len(corpus))]
        found = list(places(request))
        if not found:
            continue
        pairs = rng.integers(len(found), size=(at_once, 2)).tolist()
        chosen = rng.integers(len(values), size=(at_once, 2)).tolist()
        for (i, j), (v, w) in zip(pairs, chosen, strict=True):
            (a, key_a), (b, key_b) = found[i], found[j]
            old_a, old_b = a[key_a], b[key_b]
            b[key_b] = values[w]
            a[key_a] = values[v]
            bidder.decide(
                request, what=lambda k=(key_a, key_b), x=(v, w), r=request: f"{k} = wrong {x}: {r!r:.300}"
            )
            a[key_a], b[key_b] = old_a, old_b


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
    deep = _nested(1_000_000, in_dicts=True), _nested(1_000_000, in_dicts=False)
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
        bidder.decide(_Dict(padded), what=lambda s=size: f"{s} other keys in a subclass")
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
            for depth in range(3):
                armed = False
                foreign = key(name, act)
                geo = {foreign: 1, "country": "USA"} if depth == 2 else {"country": "USA"}
                device = {foreign: 2, "geo": geo, "os": "iOS"} if depth == 1 else {"geo": geo, "os": "iOS"}
                imp = {foreign: 3, "bidfloor": 0.1, "banner": {"w": 320, "h": 50}}
                outer.clear()
                if depth == 0:
                    outer[foreign] = 4
                outer.update({"imp": [imp], "device": device, "app": {"bundle": "com.example.app"}, "at": 1})
                armed = True
                bidder.survive(outer, what=f"{act.__name__} in the comparison with {name}, depth {depth}")
    bidder.survive({Texts("imp"): 1, "at": 1, Texts("at2"): 2}, what="a key of a subclass of str")
    bidder.survive({"imp": [{Texts("bidfloor"): 1.0}]}, what="a key of a subclass of str, below")
    for hostile in (_Foreign, _Text):
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
            prices.append((VALUE_PER_CLICK, floor, CAP_CPM, 1.0, float(kind)))
        container[key] = old
    columns: dict[str, Any] = {
        f.name: [row[f.name] for row in rows]
        if f.kind is FeatureKind.CATEGORY
        else array("d", [row[f.name] for row in rows])
        for f in spec.features
    }
    columns |= {name: array("d", [price[i] for price in prices]) for i, name in enumerate(PRICE_INPUTS)}
    out = array("d", bytes(8 * len(rows)))
    bidder.scorer.bid_many(columns, out=out)
    bidder.outcome.trials += len(rows)
    for i, (want, have) in enumerate(zip(wanted, out, strict=True)):
        bidder.outcome.demand(
            want == have, f"the hot path bids {want!r}, the batch {have!r}: {rows[i]!r:.500}"
        )
