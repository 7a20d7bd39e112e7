"""Crosses in the engine: two numbers are the key of a pair, and every number of a hostile one is checked again."""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from bidml.blueprint import CrossLookup, Head, Lookup, Vocabulary
from bidml.contract import MAX_CROSSES
from bidml.score._native import Engine, isa_available

ISAS = [isa for isa in ("scalar", "avx2", "avx512") if isa_available(isa)]
SLOTS = {"x": (False, 0), "a": (True, 0), "b": (True, 1), "c": (True, 2)}
A, B, C = (Vocabulary(name, keys) for name, keys in (("a", ("", "p", "q")), ("b", ("p",)), ("c", ("q", "r"))))
PAIRS = CrossLookup(A, B, array("d", [0.0, 3.0, 6.0, 7.0]), array("d", [1.0, 2.0, 4.0, 8.0]), 0.5)
NONE = np.zeros(1)


def engine(*terms: Any, isa: str = "best", n_heads: int = 1) -> Engine:
    return Engine([Head((), None, terms)] * n_heads, SLOTS, 1, 3, isa)


def by_hand(cross: CrossLookup, first: str, second: str) -> float:
    one, other = (
        side.keys.index(text) if text in side.keys else len(side.keys)
        for side, text in zip(cross.sides, (first, second), strict=True)
    )
    known = dict(zip(cross.codes, cross.values, strict=True))
    return known.get(float(one * cross.second.n_numbers + other), cross.default)


@pytest.mark.parametrize("isa", ISAS)
def test_a_pair_is_found_by_the_numbers_of_its_texts(isa: str) -> None:
    """Known, unknown on either side, missing: by hand, and by the engine's oracle; beside a term of the same slot."""
    term = Lookup("a", ("q", "z"), array("d", [0.25, 0.125]), 0.0)
    turned = CrossLookup(C, A, array("d", [1.0, 11.0]), array("d", [16.0, 32.0]), -1.0)
    scored = engine(term, PAIRS, turned, isa=isa)
    for a, b, c in product(("", "p", "q", "z", "?"), ("", "p", "?"), ("q", "r", "")):
        wanted = dict(zip(term.keys, term.values, strict=True)).get(a, 0.0)
        wanted += by_hand(PAIRS, a, b) + by_hand(turned, c, a)
        assert scored.margins(NONE, [a, b, c]) == (wanted,)
        assert scored.margins_reference(NONE, [a, b, c]) == (wanted,)
        for split in range(4):
            assert scored.margins_of_sides(NONE, [a, b, c], 0, split) == (wanted,)
            assert scored.margins_of_sides(NONE, [a, b, c], 0, split, merged=True) == (wanted,)


def test_a_row_without_texts_has_the_pair_of_missing_ones() -> None:
    """A cleared row is whole: the lean entry sets numbers alone."""
    scored = engine(PAIRS)
    assert scored.score_vector(NONE) == scored.margins(NONE, ["", "", ""])[0] == by_hand(PAIRS, "", "")
    assert by_hand(PAIRS, "", "") != 0.0


def test_thousands_of_pairs_are_told_apart() -> None:
    """Every second pair of 120 times 120 texts, and the others' default."""
    keys = tuple(sorted(f"key {i}" for i in range(120)))
    first, second = Vocabulary("a", keys), Vocabulary("b", keys)
    codes = np.arange(0.0, 121.0 * 121.0, 2.0)
    values = np.random.default_rng(0).normal(size=len(codes))
    cross = CrossLookup(first, second, array("d", codes), array("d", values), 0.25)
    texts = [cell for pair in product((*keys, "?"), (*keys, "")) for cell in (*pair, "")]
    for isa in ISAS:
        out = np.empty((121 * 121, 1))
        engine(cross, isa=isa).margins_many(np.zeros((len(out), 1)), texts, out)
        assert np.array_equal(out[::2, 0], values)
        assert (out[1::2, 0] == 0.25).all()


def test_lookups_of_one_pair_of_vocabularies_share_a_table() -> None:
    """A hundred terms and eight heads of one cross are one cross; equal vocabularies need not be one object."""
    copies = [replace(PAIRS, first=replace(A), second=replace(B)) for _ in range(MAX_CROSSES // 2)]
    scored = engine(*copies, *[PAIRS] * 40, n_heads=8)
    assert scored.margins(NONE, ["p", "?", ""]) == (2.0 * (MAX_CROSSES // 2 + 40),) * 8


def many(n: int) -> list[CrossLookup]:
    return [replace(PAIRS, first=replace(A, keys=("", "p", f"z{i}"))) for i in range(n)]


@pytest.mark.parametrize(
    ("terms", "rule"),
    [
        (
            [replace(PAIRS, codes=array("d", [0.0, 3.0, 3.0, 7.0]))],
            "codes of a cross are distinct and ascending",
        ),
        (
            [replace(PAIRS, codes=array("d", [3.0, 0.0, 6.0, 7.0]))],
            "codes of a cross are distinct and ascending",
        ),
        ([replace(PAIRS, codes=array("d", [0.0, 3.0, 6.0, 8.0]))], "integer in range"),
        ([replace(PAIRS, codes=array("d", [-1.0, 3.0, 6.0, 7.0]))], "integer in range"),
        ([replace(PAIRS, codes=array("d", [0.5, 3.0, 6.0, 7.0]))], "integer in range"),
        ([replace(PAIRS, codes=array("d", [float("nan"), 3.0, 6.0, 7.0]))], "integer in range"),
        ([replace(PAIRS, codes=array("d", [0.0, 3.0, 6.0]))], "one value per key"),
        ([replace(PAIRS, values=array("d", [1.0, 2.0, 4.0, float("nan")]))], "term is finite"),
        ([replace(PAIRS, default=1e7)], "term is finite"),
        ([replace(PAIRS, first=replace(A, keys=("p", "")))], "keys of a lookup are distinct and ascending"),
        ([replace(PAIRS, second=replace(B, keys=("p", "p")))], "keys of a lookup are distinct and ascending"),
        ([replace(PAIRS, second=replace(B, feature="x"))], "category"),
        (many(MAX_CROSSES + 1), f"at most {MAX_CROSSES} crosses"),
    ],
)
def test_a_hostile_cross_is_refused_with_rule_value_and_remedy(terms: list[CrossLookup], rule: str) -> None:
    """Before a table is built from it."""
    with pytest.raises(ValueError, match=rule) as refusal:
        engine(*terms)
    assert str(refusal.value).count("; ") >= 2


def test_as_many_crosses_as_are_allowed_run() -> None:
    """At the limit, one text pair in all of them."""
    scored = engine(*many(MAX_CROSSES))
    assert scored.margins(NONE, ["", "p", ""]) == (1.0 * MAX_CROSSES,)


def test_a_missing_vocabulary_keeps_its_name() -> None:
    """An object that is no cross says what it lacks."""

    class Broken:
        codes, values, default, first = PAIRS.codes, PAIRS.values, 0.0, A

    with pytest.raises(AttributeError, match="second"):
        engine(Broken())
