"""Laws of hostile objects: whatever is passed as a request, nothing raises, nothing leaks, the guard holds."""

from __future__ import annotations

import gc
import itertools
import math
import sys
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from artifacts import complete_blueprint
from decisions import RATES, artifact_of, assert_guarded, model_of_requests, terms_of
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.contract import NoBidReason
from bidml.score import LineItem, Scorer

REQUEST: dict[str, Any] = {
    "id": "r",
    "at": 1,
    "cur": ["EUR", "USD"],
    "imp": [
        {
            "bidfloor": 0.02,
            "bidfloorcur": "EUR",
            "tagid": "t",
            "instl": 1,
            "banner": {"w": 320, "h": 50, "pos": 1},
        }
    ],
    "device": {
        "os": "Ελλάδα",
        "osv": "17.1",
        "make": "Apple",
        "w": 414,
        "geo": {"country": "DEU", "lat": 52.5},
    },
    "app": {"bundle": "com.example", "publisher": {"id": "p"}},
    "ext": {"timestamp": 1_750_000_000_000, "exchange": "x"},
}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    """Reads some thirty fields of a request."""
    return Scorer(artifact_of(model_of_requests([REQUEST], seed=1)), rates=RATES)


@pytest.fixture(scope="module")
def line(scorer: Scorer) -> LineItem:
    return scorer.line_item(creative="a", age_days=1, value_per_click=50.0, cap_cpm=20.0)


def boom(*_: object) -> Any:
    raise RuntimeError("foreign code ran and raised")


EVIL = dict.fromkeys(
    ["__eq__", "__hash__", "__float__", "__int__", "__index__", "__str__", "__bool__", "__len__", "__iter__",
     "__getitem__", "__contains__", "__lt__", "__getattr__", "keys", "get", "items"],
    boom,
)  # fmt: skip


def evil(base: type, *arguments: Any) -> Any:
    """An instance of a subclass of `base` every method of which raises."""
    found = type(f"Evil{base.__name__}", (base,), EVIL)
    return found(*arguments)


class Collides:
    """Hashes as `text` does, and once armed runs `then` when compared."""

    def __init__(self, text: str, then: Callable[[], Any]) -> None:
        self._hash, self._then = hash(text), then
        self.armed = False

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self.armed:
            self._then()
        return False


def hostile_objects() -> list[Any]:
    """Objects that no JSON decoder makes."""
    return [
        evil(object), evil(dict), evil(list), evil(str, "DEU"), evil(int, 7), evil(float, 1.5), evil(tuple),
        evil(dict, [("imp", [{}])]), evil(list, [{}]), 1j, b"bytes", bytearray(b"x"), memoryview(b"x"), object(),
        type, boom, range(3), iter([1]), frozenset({1}), {1, 2}, ..., NotImplemented, Exception("x"), sys,
        math.nan, -math.inf, 10**400, -(10**400), 2**63, True, "\ud800", "\0", "x" * 100_000, "é" * 1024,
        "\U0001f600" * 1024, OrderedDict(a=1), defaultdict(boom), complex, -0.0, 5e-324, "", (), {}, [], None,
    ]  # fmt: skip


def everywhere(request: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Each (container, key) of a request, itself included as (None, None)."""
    yield None, None
    stack: list[Any] = [request]
    while stack:
        node = stack.pop()
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield node, key
            if isinstance(value, dict | list):
                stack.append(value)


def copied(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: copied(value) for key, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def test_a_hostile_object_in_any_place_is_missing_or_a_no_bid(scorer: Scorer, line: LineItem) -> None:
    """Nothing raises, no error is left pending, none of their code can stop the auction."""
    request = copied(REQUEST)
    assert scorer.bid(request, line) > 0.0
    objects = hostile_objects()
    for node, key in everywhere(request):
        kept = None if node is None else node[key]
        for value in objects:
            if node is not None:
                node[key] = value
            bid_cpm = scorer.bid(value if node is None else request, line)
            assert type(bid_cpm) is float
            assert 0.0 <= bid_cpm <= 20.0
            assert scorer.best(value if node is None else request, [line])[1] == bid_cpm
        if node is not None:
            node[key] = kept
    assert request == REQUEST


@pytest.mark.parametrize(
    "path", [(), ("imp", 0), ("device",), ("device", "geo"), ("app",), ("imp", 0, "banner"), ("ext",)]
)
def test_keys_that_raise_or_change_their_dict_are_survived(
    scorer: Scorer, line: LineItem, path: tuple[Any, ...]
) -> None:
    """A lookup may run foreign code: it raises, empties the container it is in, or drops the last reference to it."""

    def node_of(request: Any) -> dict[Any, Any]:
        for step in path:
            request = request[step]
        found: dict[Any, Any] = request
        return found

    # bid often finds its keys without asking theirs; explain holds and asks
    calls: list[Any] = [scorer.bid, lambda request, line: scorer.explain(request, line).bid_cpm]
    n_ran = 0
    for name, call in itertools.product(list(node_of(copied(REQUEST))), calls):
        for kind in ("raises", "empties", "drops"):
            request = copied(REQUEST)
            node = node_of(request)
            others = {key: value for key, value in node.items() if key != name}
            value = node[name]

            def then(
                kind: str = kind, node: dict[Any, Any] = node, request: dict[str, Any] = request
            ) -> None:
                nonlocal n_ran
                n_ran += 1
                if kind == "raises":
                    boom()
                if kind == "empties":
                    node.clear()
                else:
                    request.clear()
                    gc.collect(0)

            trap = Collides(name, then)
            node.clear()
            node[trap] = 1
            node[name] = value
            node |= others
            trap.armed = True
            assert 0.0 <= call(request, line) <= 20.0
    assert n_ran >= 3


def test_a_subclass_of_dict_is_read_as_a_dict(scorer: Scorer, line: LineItem) -> None:
    """As its storage says: no `__getitem__`, no `__missing__`, no `get` of its own."""

    class Lies(dict[str, Any]):
        __getitem__ = get = __missing__ = __contains__ = boom

    lies = Lies({key: Lies(value) if isinstance(value, dict) else value for key, value in REQUEST.items()})
    assert scorer.bid(lies, line) == scorer.bid(REQUEST, line)
    missing = defaultdict(boom, REQUEST)
    assert scorer.bid(missing, line) == scorer.bid(REQUEST, line)
    assert set(missing) == set(REQUEST)


def test_subclasses_of_str_int_and_float_are_their_values(scorer: Scorer, line: LineItem) -> None:
    """Decoders with their own number types exist; bool is the one that is refused."""
    for base, path in (
        (str, ("device", "make")),
        (int, ("imp", 0, "instl")),
        (float, ("imp", 0, "bidfloor")),
    ):
        request = copied(REQUEST)
        node = request
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = type("Own", (base,), {})(node[path[-1]])
        assert scorer.bid(request, line) == scorer.bid(REQUEST, line)


def test_a_request_that_contains_itself_is_read_once(scorer: Scorer, line: LineItem) -> None:
    """No recursion anywhere; nor does depth matter."""
    request = copied(REQUEST)
    request["device"]["geo"] = request["ext"] = request["app"] = request
    request["imp"].append(request["imp"])
    assert 0.0 <= scorer.bid(request, line) <= 20.0
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"geo": deep, "device": deep}
    assert 0.0 <= scorer.bid(REQUEST | {"device": deep}, line) <= 20.0
    while deep:  # freed from the top, one level at a time
        deep = deep.pop("geo", {})


_keys = st.sampled_from(
    [
        *REQUEST,
        *REQUEST["imp"][0],
        *REQUEST["device"],
        *REQUEST["ext"],
        "pmp",
        "private_auction",
        "format",
        "site",
        "video",
    ]
)
_plain = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
    | st.binary(max_size=4) | st.sampled_from([1, 2, "EUR", "USD", "DEU", 0.5, 10**400])
)  # fmt: skip


_HOSTILE = hostile_objects()
_hostile = st.integers(0, len(_HOSTILE) - 1).map(_HOSTILE.__getitem__)  # sampled_from would run their code


def requests_of(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Garbage that often looks like a request."""
    garbage = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(_keys, inner, max_size=8)
            | st.dictionaries(_keys | st.integers() | st.none() | st.binary(max_size=2), inner, max_size=4)
            | st.tuples(inner, inner)
        ),
        max_leaves=12,
    )
    return garbage | st.fixed_dictionaries(
        {"imp": st.lists(st.dictionaries(_keys, garbage, max_size=8) | garbage, max_size=3)},
        optional={key: garbage for key in (*REQUEST, "site", "user") if key != "imp"},
    )


@given(request=requests_of(_plain | _hostile), imp=st.integers(-2, 3))
@settings(max_examples=200)
def test_garbage_keeps_the_guard(scorer: Scorer, line: LineItem, request: Any, imp: int) -> None:
    """Any Python object: a bid inside its bounds or none, the same from decide, explain and best."""
    bid_cpm = scorer.bid(request, line, imp)
    decided, reason = scorer.decide(request, line, imp)
    assert bid_cpm == decided
    assert (bid_cpm > 0.0) == (reason == 0)
    assert 0.0 <= bid_cpm <= line.cap_cpm
    assert scorer.best(request, [line], imp) == ((0, bid_cpm) if bid_cpm > 0.0 else (-1, 0.0))
    why = scorer.explain(request, line, imp)
    assert (why.bid_cpm, int(why.reason)) == (bid_cpm, reason)
    assert str(why)


@given(request=requests_of(_plain))
@settings(max_examples=100)
def test_garbage_is_judged_as_by_the_independent_reading(
    scorer: Scorer, line: LineItem, request: Any
) -> None:
    """The reason is that of the terms as plain Python reads them; a bid is at or above that floor, below its value."""
    bid_cpm, reason = scorer.decide(request, line)
    assert_guarded(scorer, request, line, bid_cpm)
    wanted = terms_of(request)[0]
    assert reason == wanted or (wanted is NoBidReason.BID and reason in (0, 7, 8, 9))


# ---- lifetimes -------------------------------------------------------------------------------------------------


def objects_of(node: Any) -> Iterator[Any]:
    """Every object of a request, keys included."""
    yield node
    for part in node.items() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ():
        yield from objects_of(part)


def fresh_request() -> dict[str, Any]:
    """Like REQUEST, of objects that nothing else shares."""

    def fresh(node: Any) -> Any:
        if isinstance(node, dict):
            return {"".join(list(key)): fresh(value) for key, value in node.items()}
        if isinstance(node, list):
            return [fresh(value) for value in node]
        return (
            node + 1000 - 1000
            if isinstance(node, int)
            else node + 0.0
            if isinstance(node, float)
            else node[:1] + node[1:]
        )

    found: dict[str, Any] = fresh(REQUEST)
    return found


@pytest.mark.parametrize("call", ["bid", "decide", "best", "explain"])
def test_reference_counts_are_exact_after_10_000_calls(scorer: Scorer, call: str) -> None:
    """Of each object of a good request, of bad ones, of the line items and of the scorer."""
    line = scorer.line_item(creative="a", age_days=1, value_per_click=50.0, cap_cpm=20.0)
    bad = fresh_request()
    bad["imp"][0]["bidfloor"] = "".join(["1", ".5"])
    requests = [
        fresh_request(),
        bad,
        {"imp": [{"pmp": {"private_auction": 1}}]},
        {"imp": []},
        {"cur": ["JPY"], "imp": [{}]},
    ]
    lines = [line, line]
    watched = [x for request in requests for x in objects_of(request) if not isinstance(x, tuple)]
    watched += [line, lines, scorer, line.fields]
    method = getattr(scorer, call)
    last = lines if call == "best" else line
    for request in requests:
        method(request, last)

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(x) for x in watched]

    before = counts()
    for _ in range(2_000):
        for request in requests:
            method(request, last)
    after = counts()
    shared = [n >= 1_000 for n in before]  # None, small integers, known keys: other threads hold them, too
    leaks = [b - a for a, b, is_shared in zip(before, after, shared, strict=True) if is_shared]
    assert max(map(abs, leaks), default=0) < 100, (
        "one of 10,000 calls in a hundred keeps or drops a reference"
    )
    before, after = (
        [n for n, is_shared in zip(c, shared, strict=True) if not is_shared] for c in (before, after)
    )
    assert after == before


def test_a_scorer_is_freed_before_its_line_items() -> None:
    """By its last reference; a line item keeps only the weights alive, and pacing still works."""
    scorer = Scorer(artifact_of(complete_blueprint()))
    line = scorer.line_item(creative="320x50", value_per_click=1.0, cap_cpm=2.0)
    wanted, gone = scorer.bid(REQUEST, line), weakref.ref(scorer)
    assert wanted > 0.0
    del scorer
    gc.collect()
    assert gone() is None
    line.pacing_multiplier = 0.5
    assert (line.cap_cpm, line.pacing_multiplier) == (2.0, 0.5)
    other = Scorer(artifact_of(complete_blueprint()))
    with pytest.raises(TypeError, match="belongs to the scorer"):
        other.bid(REQUEST, line)
