"""What the engine promises around its margins: refusals, reports, sharing, the lean entry."""

from __future__ import annotations

import dataclasses
import threading
from array import array

import numpy as np
import pytest
from ensembles import RandomShape, TreesBuilder, random_trees, stumps

from bidml import contract
from bidml.blueprint import Column, Head, Lookup, Trees
from bidml.score import _native
from bidml.score._native import Engine

SLOTS = {"x": (False, 0), "y": (False, 1), "text": (True, 0)}
N_NUMBERS, N_CATEGORIES = 2, 1
INF, NAN = float("inf"), float("nan")


def two_trees() -> Trees:
    """x <= 1 over (y <= 2), and y in {3}."""
    builder = TreesBuilder()
    top, low = builder.node(0, 1.0, missing_true=False), builder.node(1, 2.0, missing_true=True)
    builder.root(top)
    builder.link(top, True, low, is_leaf=False)
    builder.link(top, False, builder.leaf(10.0), is_leaf=True)
    builder.link(low, True, builder.leaf(1.0), is_leaf=True)
    builder.link(low, False, builder.leaf(2.0), is_leaf=True)
    member = builder.member(1, [3.0], missing_true=False)
    builder.root(member)
    builder.link(member, True, builder.leaf(100.0), is_leaf=True)
    builder.link(member, False, builder.leaf(200.0), is_leaf=True)
    return builder.trees


def head(**changes: object) -> Head:
    columns = (Column("x"), Column("y"))
    term = Lookup("text", ("a", "b"), array("d", [0.25, 0.5]), 0.125)
    return dataclasses.replace(Head(columns, two_trees(), (term,), intercept=1000.0), **changes)


def engine(*heads: Head, isa: str = "best") -> Engine:
    return Engine(list(heads), SLOTS, N_NUMBERS, N_CATEGORIES, isa)


def test_a_margin_is_trees_then_intercept_then_terms() -> None:
    """Σ trees / divisor · scale + intercept + Σ terms, by hand."""
    nan = float("nan")
    scored = engine(head(), head(divisor=2.0, scale=10.0, trees=two_trees(), terms=()))
    assert scored.margins(array("d", [1.0, 3.0]), ["a"]) == (
        2.0 + 100.0 + 1000.0 + 0.25,
        (2.0 + 100.0) / 2 * 10 + 1000.0,
    )
    assert scored.margins(array("d", [nan, nan]), ["unseen"])[0] == 10.0 + 200.0 + 1000.0 + 0.125
    assert scored.margins(array("d", [-5.0, nan]), [b"b"])[0] == 1.0 + 200.0 + 1000.0 + 0.5


def changed(name: str, index: int, value: float) -> Trees:
    trees = two_trees()
    getattr(trees, name)[index] = value
    return trees


def cut(name: str) -> Trees:
    trees = two_trees()
    getattr(trees, name).pop()
    return trees


def with_a_shared_child() -> Trees:
    trees = changed("false_child", 0, 1)
    trees.false_is_leaf[0] = 0
    return trees


def with_a_set_after_its_end() -> Trees:
    trees = changed("membership", 0, NAN)
    trees.membership[1] = 3.0
    return trees


def chain(depth: int) -> Trees:
    """One tree of `depth` nodes in a row."""
    builder = TreesBuilder()
    leaf = builder.leaf(1.0)
    for i in range(depth):
        node = builder.node(0, float(i), missing_true=False)
        builder.link(node, False, leaf, is_leaf=True)
        builder.link(node, True, leaf if i == depth - 1 else node + 1, is_leaf=i == depth - 1)
    builder.root(0)
    return builder.trees


HOSTILE = {
    "root out of range": ({"trees": changed("roots", 0, 99)}, "a root is a node"),
    "negative root": ({"trees": changed("roots", 0, -1)}, "a root is a node"),
    "root below a root": ({"trees": changed("roots", 1, 1)}, "one tree"),
    "column out of range": ({"trees": changed("column", 1, 2)}, "column is in"),
    "negative column": ({"trees": changed("column", 1, -1)}, "column is in"),
    "unknown mode": ({"trees": changed("mode", 0, 1)}, "mode is 0 or 6"),
    "NaN threshold": ({"trees": changed("threshold", 0, NAN)}, "threshold is a number"),
    "child is parent": ({"trees": changed("true_child", 0, 0)}, "after its parent"),
    "child out of range": ({"trees": changed("true_child", 0, 3)}, "after its parent"),
    "child of another tree": ({"trees": changed("true_child", 0, 2)}, "one tree"),
    "child of two nodes": ({"trees": with_a_shared_child()}, "one tree"),
    "leaf out of range": ({"trees": changed("false_child", 0, 5)}, "leaf index"),
    "negative leaf": ({"trees": changed("false_child", 0, -1)}, "leaf index"),
    "flag of 2": ({"trees": changed("false_is_leaf", 0, 2)}, "is_leaf is 0 or 1"),
    "missing of 2": ({"trees": changed("missing_true", 0, 2)}, "missing_true is 0 or 1"),
    "infinite leaf": ({"trees": changed("leaf", 0, INF)}, "leaf is finite"),
    "NaN leaf": ({"trees": changed("leaf", 0, NAN)}, "leaf is finite"),
    "huge leaf": ({"trees": changed("leaf", 0, 1e7)}, "leaf is finite"),
    "set after its end": ({"trees": with_a_set_after_its_end()}, "closed by NaN"),
    "unclosed set": ({"trees": cut("membership")}, "closed by NaN"),
    "short array": ({"trees": cut("threshold")}, "same length"),
    "too deep": ({"trees": chain(contract.MAX_DEPTH + 1)}, "deep"),
    "infinite intercept": ({"intercept": INF}, "intercept is finite"),
    "NaN scale": ({"scale": NAN}, "scale is finite"),
    "zero divisor": ({"divisor": 0.0}, "divisor is positive"),
    "unsorted keys": ({"terms": (Lookup("text", ("b", "a"), array("d", [0.0, 0.0]), 0.0),)}, "ascending"),
    "repeated keys": ({"terms": (Lookup("text", ("a", "a"), array("d", [0.0, 0.0]), 0.0),)}, "ascending"),
    "missing value": ({"terms": (Lookup("text", ("a", "b"), array("d", [0.0]), 0.0),)}, "one value per key"),
    "NaN term": ({"terms": (Lookup("text", ("a",), array("d", [NAN]), 0.0),)}, "term is finite"),
    "number with a lookup": ({"terms": (Lookup("x", ("a",), array("d", [0.0]), 0.0),)}, "category"),
    "category without": ({"columns": (Column("text"), Column("y"))}, "category"),
    "wrong typecode": (
        {"trees": dataclasses.replace(two_trees(), leaf=array("f", [0.0] * 5))},
        "array of type",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_blueprint_is_refused_with_rule_value_and_remedy(case: str) -> None:
    """Each index and number is checked again before any table is built."""
    changes, rule = HOSTILE[case]
    with pytest.raises(ValueError, match=rule) as refusal:
        engine(head(**changes))
    assert str(refusal.value).count("; ") >= 2


def test_the_deepest_allowed_tree_runs() -> None:
    """512 nodes in a row: the path of every length is found."""
    deepest = Head((Column("x"),), chain(contract.MAX_DEPTH))
    assert engine(deepest).margins(array("d", [-1.0, 0.0]), [""]) == (1.0,)


def test_limits_are_those_of_the_contract() -> None:
    """The compiled constants and bidml.contract never drift apart."""
    assert _native.engine_limits() == {name: getattr(contract, name) for name in _native.engine_limits()}


def test_slots_out_of_range_are_refused() -> None:
    """A slot that the engine does not have is an error of the caller."""
    with pytest.raises(ValueError, match="number slot is in"):
        Engine([head()], SLOTS, 1, 1)
    with pytest.raises(ValueError, match="category slot is in"):
        Engine([head()], SLOTS, 2, 0)
    with pytest.raises(ValueError, match="1 to 8 heads"):
        Engine([], SLOTS, 2, 1)
    with pytest.raises(ValueError, match="at most 256 features"):
        Engine([head()], SLOTS, 200, 100)


def test_info_says_which_path_runs_and_why() -> None:
    """The fast path names itself; the wide one says what did not fit."""
    rng = np.random.default_rng(0)
    columns = tuple(Column("x") for _ in range(200))
    crowded = Head(columns, random_trees(RandomShape(40, 5, 0.0, 200, rng.normal(size=50)), rng))
    fast, wide = engine(head(), crowded, isa="scalar").info()
    assert (fast["path"], fast["why"]) == ("scalar complete depth 3", "")
    assert wide["path"] == "scalar wide walk"
    assert "lanes of at most 128" in wide["why"]
    assert (wide["n_trees"], wide["n_columns"]) == (40, 200)
    assert engine(head()).bytes >= sum(entry["bytes"] for entry in engine(head()).info()) > 0


def test_a_byte_holds_254_thresholds_and_two_registers_128_columns() -> None:
    """At the limit the fast path, one beyond it the wide one, and why."""
    whys = [
        engine(Head((Column("x"),) * n_columns, stumps(n_columns, range(n_thresholds)))).info()[0]["why"]
        for n_columns, n_thresholds in ((1, 254), (1, 255), (128, 1), (129, 1))
    ]
    assert whys == ["", "a column has 255 thresholds of at most 254", "", "129 lanes of at most 128"]


def test_the_environment_chooses_the_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """BIDML_ISA wins over the argument; a name that does not exist is refused."""
    monkeypatch.setenv("BIDML_ISA", "scalar")
    assert engine(head()).isa == "scalar"
    monkeypatch.setenv("BIDML_ISA", "mmx")
    with pytest.raises(ValueError, match="BIDML_ISA"):
        engine(head())
    monkeypatch.delenv("BIDML_ISA")
    with pytest.raises(ValueError, match="instruction set"):
        engine(head(), isa="mmx")


def test_score_vector_is_the_margin_of_head_0() -> None:
    """The lean entry agrees with margins and refuses vectors of another length."""
    scored = engine(head(), head(intercept=0.0))
    vector = array("d", [1.0, 3.0])
    assert (
        scored.score_vector(vector)
        == scored.score_vector(np.array(vector))
        == scored.margins(vector, [""])[0]
    )
    with pytest.raises(ValueError, match="2 doubles"):
        scored.score_vector(array("d", [1.0]))
    with pytest.raises(TypeError):
        scored.score_vector([1.0, 3.0])


def test_buffers_of_another_type_or_size_are_refused() -> None:
    """float32, short rows and missing texts are errors, not guesses."""
    scored = engine(head())
    out = np.empty((2, 1))
    with pytest.raises(ValueError, match="pass float64"):
        scored.margins_many(np.zeros((2, 2), np.float32), ["", ""], out)
    with pytest.raises(ValueError, match="numbers has 4 doubles"):
        scored.margins_many(np.zeros((2, 3)), ["", ""], out)
    with pytest.raises(ValueError, match="one text per category slot and row"):
        scored.margins_many(np.zeros((2, 2)), [""], out)
    out.flags.writeable = False
    with pytest.raises((ValueError, BufferError)):
        scored.margins_many(np.zeros((2, 2)), ["", ""], out)


def test_threads_share_one_engine() -> None:
    """Four threads over one engine, without the GIL, get what one thread gets."""
    rng = np.random.default_rng(2)
    forest = random_trees(RandomShape(100, 8, 0.2, 2, rng.normal(size=100)), rng)
    shared = engine(Head((Column("x"), Column("y")), forest), head())
    numbers, texts = rng.normal(size=(2_000, 2)), ["a", "b"] * 1_000
    expected = np.empty((2_000, 2))
    shared.margins_many(numbers, texts, expected)
    results = [np.empty((2_000, 2)) for _ in range(4)]
    threads = [threading.Thread(target=shared.margins_many, args=(numbers, texts, out)) for out in results]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(out, expected) for out in results)
