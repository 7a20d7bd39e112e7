"""Laws of reading a dict in place: however a dict came to be, the decision is that of the same keys and values."""

from __future__ import annotations

import gc
import json
import random
import sys
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from request_corpus import BASE, captured, line_of, scorer_of, texts_of

from bidml.score import Scorer


@cache
def scorer() -> Scorer:
    return scorer_of(texts_of([BASE]))


def decide(request: Any, imp: int = 0) -> tuple[float, int]:
    return scorer().decide(request, line_of(scorer()), imp)


def fresh() -> dict[str, Any]:
    """Decoded anew: no key is interned."""
    return json.loads(json.dumps(BASE))


def rebuilt(value: Any, make: Any) -> Any:
    """The same, every dict made by `make` from its items."""
    if isinstance(value, dict):
        return make([(key, rebuilt(inner, make)) for key, inner in value.items()])
    if isinstance(value, list):
        return [rebuilt(inner, make) for inner in value]
    return value


def shuffled(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(random.Random(len(items)).sample(items, len(items)))


def with_holes(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Deleted entries before, among and after."""
    found: dict[str, Any] = {"gone": 1}
    for i, (key, value) in enumerate(items):
        found[key] = value
        found[f"gone {i}"] = value
    for key in [key for key in found if key.startswith("gone")]:
        del found[key]
    return found


def with_other_keys(items: list[tuple[str, Any]]) -> dict[Any, Any]:
    """A table that also has keys that are not text, between the others."""
    found: dict[Any, Any] = {7: "x"}
    for i, (key, value) in enumerate(items):
        found[i + 0.5] = value
        found[key] = value
    return found


def no_longer_with_other_keys(items: list[tuple[str, Any]]) -> dict[Any, Any]:
    found = with_other_keys(items)
    for key in [key for key in found if not isinstance(key, str)]:
        del found[key]
    return found


def large(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Hundreds of keys: the index has cells of two bytes."""
    return {f"other {i}": i for i in range(400)} | dict(items) | {f"another {i}": i for i in range(400)}


class Text(str):
    """A key that is text but not exactly."""


class Holder:
    pass


def split_table(items: list[tuple[str, Any]]) -> dict[str, Any]:
    holder = Holder()
    for key, value in items:
        setattr(holder, key, value)
    return holder.__dict__


class Subclass(dict):  # type: ignore[type-arg]
    """Its own lookups are not asked: what counts is what the dict holds."""

    def __getitem__(self, key: object) -> Any:
        raise AssertionError

    get = __getitem__


MAKERS = {
    "literal": dict,
    "interned": lambda items: {sys.intern(key): value for key, value in items},
    "reversed": lambda items: dict(items[::-1]),
    "shuffled": shuffled,
    "holes": with_holes,
    "other keys": with_other_keys,
    "no longer other keys": no_longer_with_other_keys,
    "large": large,
    "large, other keys": lambda items: large(items) | {7: 7},
    "keys of a subclass": lambda items: {Text(key): value for key, value in items},
    "split table": split_table,
    "subclass": Subclass,
    "copied": lambda items: dict(items).copy(),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_dict_is_read_alike(kind: str) -> None:
    """Tables of text keys, of any keys, with holes, shared, large, of subclasses: for each impression."""
    expected = [decide(fresh(), imp) for imp in range(3)]
    assert expected[0][0] != expected[1][0] > 0.0
    for _ in range(3):  # places remembered from the others must not matter, nor those of this one
        request = rebuilt(fresh(), MAKERS[kind])
        assert [decide(request, imp) for imp in range(3)] == expected
        assert [decide(fresh(), imp) for imp in range(3)] == expected


@given(st.lists(st.tuples(st.sampled_from(sorted(MAKERS)), st.integers(0, 2)), min_size=1, max_size=12))
@settings(max_examples=60)
def test_kinds_of_dict_may_alternate(kinds: list[tuple[str, int]]) -> None:
    """Remembered places are hints: no order of requests changes a decision."""
    expected = [decide(fresh(), imp) for imp in range(3)]
    for kind, imp in kinds:
        assert decide(rebuilt(fresh(), MAKERS[kind]), imp) == expected[imp]


def test_orders_of_keys_of_real_requests_do_not_matter(shared_data: Any) -> None:
    """Captured requests and fixtures one after the other, then with their keys in other orders."""
    requests = captured(shared_data)[::5]
    of_real = scorer_of(texts_of(requests))
    line = line_of(of_real)
    expected = [of_real.decide(request, line) for request in requests]
    for kind in ("reversed", "other keys", "holes"):
        assert [of_real.decide(rebuilt(r, MAKERS[kind]), line) for r in requests] == expected


class Hostile:
    """A key with the hash of a wanted one that does harm when compared."""

    def __init__(self, key: str, harm: Any) -> None:
        self.hash = hash(key)
        self.harm = harm

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return bool(self.harm())


def test_a_key_that_raises_is_a_key_that_is_not_there() -> None:
    """And leaves no error behind."""

    def harm() -> bool:
        raise RuntimeError("compared")

    request = fresh()
    request["device"] = {Hostile("devicetype", harm): 1, Hostile("ua", harm): 2}
    without = fresh() | {"device": {}}
    assert decide(request) == decide(without)


def test_a_key_that_destroys_the_request_while_it_is_read_does_no_harm() -> None:
    """What has been read is held."""
    request = fresh()

    def harm() -> bool:
        request.clear()
        gc.collect()
        return False

    request["device"] = {Hostile("devicetype", harm): 1, **fresh()["device"]}
    for _ in range(2):
        bid, reason = decide(request)
        assert reason in (0, 1)
        assert bid >= 0.0


def test_values_of_every_type_are_read_strictly() -> None:
    """A number is an int or a finite float, a bool neither; an int is text too; subclasses count as their base."""

    class Number(float):
        pass

    class Integer(int):
        pass

    def with_width(width: object) -> tuple[float, int]:
        request = fresh()
        request["device"]["w"] = width
        return decide(request)

    absent = fresh()
    del absent["device"]["w"]
    for missing in (
        None,
        True,
        False,
        "414",
        float("nan"),
        float("inf"),
        [414],
        {"w": 414},
        10**400,
        414j,
        b"414",
    ):
        assert with_width(missing) == decide(absent)
    for same in (414.0, Number(414.0), Integer(414)):
        assert with_width(same) == with_width(414)
    assert with_width(10**30) == with_width(1e30)
    for width in (0, -1, 2**30 - 1, 2**30, -(2**30), 2**60, -(2**60), 2**62, 2**63, -(2**63), 2**64):
        assert with_width(width) == with_width(float(width))


def test_a_key_is_compared_to_its_end() -> None:
    """Where a key was last, another one of the same length stands that begins with the same eight letters."""

    def with_currency(key: str, code: str) -> dict[str, Any]:
        request = fresh()
        request["imp"] = [{"bidfloor": 0.5, key: code}]
        return request

    for _ in range(10):
        wanted = decide(with_currency("bidfloorcur", "USD"))
    assert wanted[0] > 0.0
    assert decide(with_currency("bidfloorcux", "XXX")) == wanted
    assert decide(with_currency("bidfloorcur", "XXX")) != wanted
