"""The offline encoder and oracle: text and numbers as the bidder sees them, trees exactly."""

from __future__ import annotations

import math
from array import array

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import LIGHTGBM_ZERO, Column, Head, Lookup, NodeMode, Rewrite, Trees
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import SpecError
from bidml.features import UNMATCHABLE, encode, margins, raw_columns, rewritten, tree_sums

NAN = float("nan")


def spec_of(**kinds: str) -> FeatureSpec:
    return FeatureSpec(
        tuple(Feature(name, FeatureKind(kind), f"ext.log.{name}") for name, kind in kinds.items())
    )


def test_integers_become_decimal_text_and_nulls_empty() -> None:
    """A category column of any table type reads as the text the bidder would see."""
    log = pd.DataFrame(
        {
            "ints": [7, -3, 0],
            "floats": [7.0, None, 0.0],
            "nullable": pd.array([2**62, None, 0], dtype="Int64"),
            "texts": pd.Series(["a", None, ""], dtype="str"),
            "mixed": pd.Series(["a", 12, True], dtype=object),
            "levels": pd.Categorical(["x", None, "y"]),
        }
    )
    raw = raw_columns(log, spec_of(**dict.fromkeys(log.columns, "category")))
    assert {name: list(cells) for name, cells in raw.items()} == {
        "ints": ["7", "-3", "0"],
        "floats": ["7", "", "0"],
        "nullable": [str(2**62), "", "0"],
        "texts": ["a", "", ""],
        "mixed": ["a", "12", ""],
        "levels": ["x", "", "y"],
    }


def test_text_that_no_key_can_equal_is_unmatchable() -> None:
    """Lone surrogates and endless text read as the native extractor reads them; NUL is ordinary text."""
    log = pd.DataFrame({"x": pd.Series(["\ud800", "a" * 1025, "a\0b", "é"], dtype=object)})
    assert list(raw_columns(log, spec_of(x="category"))["x"]) == [UNMATCHABLE, UNMATCHABLE, "a\0b", "é"]


def test_numbers_are_finite_or_nan() -> None:
    """±inf, bool, null and text cells of a number column are missing."""
    log = pd.DataFrame(
        {
            "doubles": [1.5, np.inf, -np.inf],
            "ints": [1, 2, 3],
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "flags": [True, False, True],
            "mixed": pd.Series([2.5, "1.5", True], dtype=object),
        }
    )
    raw = raw_columns(log, spec_of(**dict.fromkeys(log.columns, "number")))
    expected = {
        "doubles": [1.5, NAN, NAN],
        "ints": [1, 2, 3],
        "nullable": [1, NAN, 3],
        "flags": [NAN] * 3,
        "mixed": [2.5, NAN, NAN],
    }
    for name, cells in expected.items():
        assert raw[name].dtype == np.float64
        np.testing.assert_array_equal(raw[name], cells)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [([0.5], "category"), ([2.0**60], "category"), ([2**64], "category"), (["1.5", "2"], "number")],
)
def test_a_column_of_the_wrong_kind_is_refused(cells: list[object], kind: str) -> None:
    """What would silently become always-missing or never-equal is an error."""
    with pytest.raises(SpecError, match="x holds"):
        raw_columns(pd.DataFrame({"x": cells}), spec_of(x=kind))


def test_a_missing_column_is_refused() -> None:
    """The spec and the log must agree on names."""
    with pytest.raises(SpecError, match="a column for every feature"):
        raw_columns(pd.DataFrame({"y": [1]}), spec_of(x="number"))


CATEGORY_CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.text(max_size=5),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from(["a" * 1024, "a" * 1025, "é" * 514, "é" * 515, "é" * 516, "\U0001f600" * 258, "a\0b"]),
)
NUMBER_CELLS = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.just(10**400), st.text(max_size=2)
)


@given(st.lists(st.tuples(CATEGORY_CELLS, NUMBER_CELLS), max_size=6))
def test_a_table_and_a_request_read_the_same(rows: list[tuple[object, object]]) -> None:
    """No skew between training and serving: raw_columns agrees with the bidder's extractor on every cell."""
    from bidml.score import RawExtractor

    rows = [*rows, ("", 1.0)]
    spec = spec_of(c="category", x="number")
    log = pd.DataFrame(
        {name: pd.Series([row[i] for row in rows], dtype=object) for i, name in enumerate("cx")}
    )
    requests = [{"imp": [{}], "ext": {"log": {"c": c, "x": x}}} for c, x in rows]
    served = RawExtractor(spec).columns(requests, [{}] * len(rows))
    raw = raw_columns(log, spec)
    assert raw["c"].tolist() == served["c"]
    np.testing.assert_array_equal(raw["x"], np.array(served["x"]))


def test_hour_and_weekday_come_from_the_users_clock() -> None:
    """2013-10-20 was a Sunday (6); 480 minutes east it was already 01:30."""
    spec = FeatureSpec(
        (
            Feature("hour", FeatureKind.NUMBER, "derived.hour_of_day"),
            Feature("day", FeatureKind.NUMBER, "derived.weekday"),
        )
    )
    times = pd.to_datetime(
        ["2013-10-19T17:30:00Z", "2013-10-19T17:30:00Z", None, "1969-12-31T23:00:00Z"], utc=True
    )
    log = pd.DataFrame({"timestamp": times, "utc_offset_minutes": [480.0, NAN, 0.0, 9999.0]})
    raw = raw_columns(log, spec)
    np.testing.assert_array_equal(raw["hour"], [1, 17, NAN, 23])
    np.testing.assert_array_equal(raw["day"], [6, 5, NAN, 2])
    np.testing.assert_array_equal(raw_columns(log.assign(hour=[5, 5, 5, 5]), spec)["hour"], [5] * 4)


def test_unseen_text_takes_the_lookup_default() -> None:
    """Category columns go through their lookup, numbers through none, both then through the rewrite."""
    head = Head(
        (
            Column("c", Lookup("c", ("a", "b"), array("d", [1.5, 0.0]), NAN), Rewrite.ZERO_IS_MISSING),
            Column("x", None, Rewrite.TRUNCATE),
        ),
        None,
    )
    columns = {"c": np.array(["b", "a", "z", ""], dtype=object), "x": np.array([-1.7, 2.9, NAN, np.inf])}
    np.testing.assert_array_equal(encode(columns, head), [[NAN, -1], [1.5, 2], [NAN, NAN], [NAN, np.inf]])


def test_a_head_and_its_columns_must_match() -> None:
    """Text where a number is wanted, numbers where text is wanted, and absent features are refused."""
    lookup = Lookup("c", ("a",), array("d", [1.0]), 0.0)
    columns = {"c": np.array(["a"], dtype=object), "x": np.array([1.0])}
    for column in (Column("c"), Column("x", Lookup("x", (), array("d"), 0.0)), Column("absent", None)):
        with pytest.raises(SpecError):
            encode(columns, Head((column,), None))
    with pytest.raises(SpecError, match="one length"):
        encode({**columns, "y": np.zeros(2)}, Head((Column("c", lookup),), None))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_rewrites_are_lightgbms(x: float) -> None:
    """Zero means |x| up to float32(1e-35) as a double; truncation is C's cast to integer."""
    zero = rewritten(np.array([x]), Rewrite.ZERO_IS_MISSING)[0]
    assert math.isnan(zero) if math.isnan(x) or abs(x) <= LIGHTGBM_ZERO else zero == x
    truncated = rewritten(np.array([x]), Rewrite.TRUNCATE)[0]
    assert (truncated == int(x)) if math.isfinite(x) else str(truncated) == str(x)


THRESHOLDS = (-1.0, 0.0, 0.5, 1.0, 3.0)
EDGES = [edge for t in THRESHOLDS for edge in (t, math.nextafter(t, -9), math.nextafter(t, 9))]
VALUES = st.sampled_from([*EDGES, -0.0, 2.0, 7.0, NAN, math.inf, -math.inf])


@st.composite
def forests(draw: st.DrawFn) -> Trees:
    """Small trees of every node kind over 3 columns; also the tree that is only a leaf."""
    trees = Trees(*(array(code) for code in "qqBdqqqqqdd"))
    for _ in range(draw(st.integers(1, 4))):
        trees.roots.append(trees.n_nodes)
        _grow(draw, trees, depth=draw(st.integers(0, 4)))
    return trees


def _grow(draw: st.DrawFn, trees: Trees, *, depth: int) -> int:
    node = trees.n_nodes
    is_member = draw(st.booleans())
    trees.column.append(draw(st.integers(0, 2)))
    trees.mode.append(NodeMode.MEMBER if is_member else NodeMode.LEQ)
    trees.threshold.append(0.0 if is_member else draw(st.sampled_from(THRESHOLDS)))
    trees.missing_true.append(draw(st.integers(0, 1)))
    if is_member:
        trees.membership.extend([*draw(st.lists(st.sampled_from([0.0, 1.0, 3.0, 7.0]), unique=True)), NAN])
    for child, is_leaf in (
        (trees.true_child, trees.true_is_leaf),
        (trees.false_child, trees.false_is_leaf),
    ):
        child.append(0)
        is_leaf.append(int(depth == 0 or draw(st.booleans())))
    for child, is_leaf in (
        (trees.true_child, trees.true_is_leaf),
        (trees.false_child, trees.false_is_leaf),
    ):
        if is_leaf[node]:
            child[node] = len(trees.leaf)
            trees.leaf.append(draw(st.floats(-1, 1)))
        else:
            child[node] = _grow(draw, trees, depth=depth - 1)
    return node


def walk(trees: Trees, row: list[float]) -> float:
    """One row, one node at a time: the definition."""
    sets: list[set[float]] = [set()]
    for value in trees.membership:
        if math.isnan(value):
            sets.append(set())
        else:
            sets[-1].add(value)
    set_of = dict(
        zip((i for i, mode in enumerate(trees.mode) if mode == NodeMode.MEMBER), sets, strict=False)
    )
    total = 0.0
    for root in trees.roots:
        node, at_leaf = root, False
        while not at_leaf:
            x = row[trees.column[node]]
            if math.isnan(x):
                goes_true = trees.missing_true[node] == 1
            elif node in set_of:
                goes_true = x in set_of[node]
            else:
                goes_true = x <= trees.threshold[node]
            at_leaf = (trees.true_is_leaf if goes_true else trees.false_is_leaf)[node] == 1
            node = (trees.true_child if goes_true else trees.false_child)[node]
        total += trees.leaf[node]
    return total


@given(forests(), st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=8))
def test_vectorised_walk_is_the_definition(trees: Trees, rows: list[tuple[float, float, float]]) -> None:
    """Same leaf in every tree, ties and missing values included; sums bit-equal."""
    matrix = np.array(rows, dtype=np.float64).reshape(len(rows), 3)
    assert tree_sums(matrix, trees).tolist() == [walk(trees, list(row)) for row in rows]


@given(forests(), st.floats(0.5, 2), st.integers(1, 9), st.floats(-1, 1), st.permutations(range(6)))
def test_margin_is_trees_then_intercept_then_terms(
    trees: Trees, scale: float, divisor: int, intercept: float, order: list[int]
) -> None:
    """margin = Σ/divisor·scale + intercept + terms, from left to right, and rows do not see each other."""
    lookups = [
        Lookup("c", ("a", "b"), array("d", [0.1, 0.2]), -0.3),
        Lookup("c", ("b",), array("d", [0.7]), 0.0),
    ]
    head = Head(
        (Column("x"), Column("y"), Column("x")), trees, tuple(lookups), intercept, scale, float(divisor)
    )
    columns = {
        "x": np.array([0.5, -1.0, NAN, 3.0, 7.0, 0.0]),
        "y": np.array([1.0, NAN, 0.0, 9.0, -9.0, 0.5]),
        "c": np.array(["a", "b", "", "z", "a", "b"], dtype=object),
    }
    expected = []
    for x, y, c in zip(columns["x"], columns["y"], columns["c"], strict=True):
        margin = walk(trees, [x, y, x]) / divisor * scale + intercept
        for lookup in lookups:
            margin += dict(zip(lookup.keys, lookup.values, strict=True)).get(c, lookup.default)
        expected.append(margin)
    found = margins(columns, head)
    assert found.tolist() == expected
    shuffled = {name: cells[order] for name, cells in columns.items()}
    assert margins(shuffled, head).tolist() == found[order].tolist()


def test_a_head_without_trees_is_its_linear_part() -> None:
    """No trees: the intercept and the terms alone."""
    head = Head((), None, (Lookup("c", ("a",), array("d", [2.0]), 0.0),), intercept=-1.0)
    assert margins({"c": np.array(["a", "b"], dtype=object)}, head).tolist() == [1.0, -1.0]
