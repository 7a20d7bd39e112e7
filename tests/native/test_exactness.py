"""Laws of the fast paths: every tree's leaf is the one the double walk finds, on every instruction set."""

from __future__ import annotations

from array import array

import lightgbm as lgb
import numpy as np
import pytest
from ensembles import RandomShape, TreesBuilder, random_trees, stumps, trap_numbers, trees_of_booster
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bidml.blueprint import Column, CrossLookup, Head, Lookup, Rewrite, Trees, Vocabulary
from bidml.score._native import Engine, isa_available

ISAS = [isa for isa in ("scalar", "avx2", "avx512") if isa_available(isa)]
N_ROWS = 100_000
TOLERANCE = 1e-12  # on margins of order 1: only the order of the sum may differ


def number_slots(n: int) -> dict[str, tuple[bool, int]]:
    return {f"n{i}": (False, i) for i in range(n)}


def number_head(trees: Trees, n_columns: int) -> Head:
    return Head(columns=tuple(Column(f"n{i}") for i in range(n_columns)), trees=trees)


def margins(engine: Engine, numbers: NDArray[np.float64], texts: list[str], *, reference: bool = False):
    """(n_rows, n_heads) margins."""
    out = np.empty((len(numbers), len(engine.info())))
    (engine.margins_many_reference if reference else engine.margins_many)(numbers, texts, out)
    return out


def assert_exact(heads: list[Head], slots, numbers: NDArray[np.float64], texts: list[str]) -> list[str]:
    """Every path equals the oracle, and each other to the last bit; returns the best set's paths."""
    n_numbers = numbers.shape[1]
    engines = [Engine(heads, slots, n_numbers, len(slots) - n_numbers, isa) for isa in ISAS]
    oracle = margins(engines[0], numbers, texts, reference=True)
    results = [margins(engine, numbers, texts) for engine in engines]
    for isa, result in zip(ISAS, results, strict=True):
        difference = np.abs(result - oracle)
        wrong = int((difference > TOLERANCE).sum())
        assert wrong == 0, f"{isa}: {wrong} of {result.size} margins differ, by up to {difference.max()}"
        assert np.array_equal(result, results[0]), f"{isa} and {ISAS[0]} differ in the last bits"
    return [head["path"] for head in engines[-1].info()]


@pytest.fixture(scope="module")
def training() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """20,000 rows of 12 columns with missing values, and 0/1 labels."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(20_000, 12)).round(3)
    x[:, 3] = rng.integers(0, 24, len(x))
    x[:, 4] = rng.beta(1, 30, len(x))
    x[rng.random(x.shape) < 0.04] = np.nan
    logit = np.nan_to_num(x[:, 0] * x[:, 1]) + np.sin(np.nan_to_num(x[:, 3])) + np.nan_to_num(x[:, 4]) * 9 - 2
    return x, (rng.random(len(x)) < 1 / (1 + np.exp(-logit))).astype(float)


BOOSTERS = {
    "depth 4": {"max_depth": 4, "num_leaves": 16, "n_trees": 100},
    "depth 5": {"max_depth": 5, "num_leaves": 32, "n_trees": 300},
    "31 leaves": {"num_leaves": 31, "n_trees": 100},
    "63 leaves": {"num_leaves": 63, "n_trees": 100},
    "127 leaves": {"num_leaves": 127, "n_trees": 20},
    "1000 bins": {"num_leaves": 127, "max_bin": 1000, "min_data_in_bin": 1, "n_trees": 60},
}
PATHS = {
    "depth 4": "complete depth 4",
    "depth 5": "complete depth 5",
    "31 leaves": "leafwise 32",
    "63 leaves": "leafwise 64",
    "127 leaves": "walk",
    "1000 bins": "wide walk",
}

WHY = {
    "depth 4": "",
    "depth 5": "",
    "31 leaves": "100 trees deeper than 6",
    "63 leaves": "100 trees deeper than 6",
    "127 leaves": "20 trees of over 64 leaves",
    "1000 bins": "thresholds of at most 254",
}


@pytest.mark.parametrize("kind", BOOSTERS)
def test_100_000_rows_on_thresholds_find_the_leaves_of_the_double_walk(kind, training) -> None:
    """0 of 100,000 rows differ per path; most values are on a threshold or one ulp beside it, NaN or ±inf."""
    parameters = dict(BOOSTERS[kind])
    n_trees = parameters.pop("n_trees")
    parameters |= {"objective": "binary", "verbose": -1, "num_threads": 1, "seed": 1, "min_data_in_leaf": 5}
    booster = lgb.train(parameters, lgb.Dataset(*training, params=parameters), n_trees)
    head = number_head(trees_of_booster(booster), 12)
    rng = np.random.default_rng(3)
    numbers = trap_numbers([head], N_ROWS, 12, rng)
    paths = assert_exact([head], number_slots(12), numbers, [])
    if ISAS[-1] == "avx512":
        assert PATHS[kind] in paths[0]

    finite = numbers[~np.isinf(numbers).any(axis=1)][:2_000]
    engine = Engine([head], number_slots(12), 12, 0)
    assert WHY[kind] in engine.info()[0]["why"]
    assert bool(WHY[kind]) == bool(engine.info()[0]["why"])
    oracle = margins(engine, finite, [], reference=True)[:, 0]
    assert np.array_equal(oracle, booster.predict(finite, raw_score=True, num_threads=1))


POOLS = {
    "few": np.array([-1.0, 0.0, 0.5, 2.0]),
    "infinite": np.array([-np.inf, -1.0, 0.0, 1.0, np.inf]),
    "zeros": np.array([0.0, -0.0, 1e-35, -1e-35, 5e-324, -5e-324, 1.7e308, -1.7976931348623157e308]),
    "integers": np.arange(-20.0, 21.0),
    "many": np.random.default_rng(0).normal(size=3_000).round(2),
    "more": np.random.default_rng(1).normal(size=60_000),
}


SIZES = [  # n_trees, max_depth, leaf_chance
    *[(0, 3, 0.1), (1, 0, 0.0), (3, 3, 0.2), (70, 4, 0.1), (40, 5, 0.0), (30, 6, 0.1), (30, 9, 0.4)],
    *[(20, 20, 0.42), (5, 200, 0.5), (4, 11, 0.1), (150, 7, 0.35)],
]


@st.composite
def shapes(draw: st.DrawFn, n_columns: int) -> RandomShape:
    """From a single leaf to chains, from 0 to 150 trees, with and without membership."""
    n_trees, max_depth, leaf_chance = draw(st.sampled_from(SIZES))
    return RandomShape(
        n_trees=n_trees,
        max_depth=max_depth,
        leaf_chance=leaf_chance,
        n_columns=n_columns,
        values=POOLS[draw(st.sampled_from(sorted(POOLS)))],
        member_chance=draw(st.sampled_from([0.0, 0.02, 0.5])),
        missing_chance=draw(st.sampled_from([0.0, 0.5, 1.0])),
        missing_by_sign=draw(st.booleans()),
    )


TEXTS = ["", "a", "zz", "é", "320x50", "\0", "a\0"]
TEXTS += ["k" * 15, "k" * 16, "k" * 17, "x" * 63, "x" * 64, "x" * 65, "y" * 300]


@st.composite
def lookups(draw: st.DrawFn, slot: int) -> Lookup:
    keys = sorted(draw(st.sets(st.sampled_from(TEXTS))), key=lambda text: text.encode())
    values = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.25, float("nan")])
    return Lookup(f"c{slot}", tuple(keys), array("d", [draw(values) for _ in keys]), draw(values))


@st.composite
def crosses(draw: st.DrawFn, vocabularies: list[Vocabulary]) -> CrossLookup:
    """Of a few vocabularies, so that heads share pairs of them, their columns and terms."""
    first, second = draw(st.permutations(vocabularies))[:2]
    codes = sorted(draw(st.sets(st.integers(0, first.n_numbers * second.n_numbers - 1), max_size=20)))
    values = [draw(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.25])) for _ in codes]
    return CrossLookup(
        first, second, array("d", codes), array("d", values), draw(st.sampled_from([0.0, 0.5]))
    )


@st.composite
def models(draw: st.DrawFn) -> tuple[list[Head], int, int, int]:
    """Heads over shared slots, the numbers of number and category slots, a seed for rows and trees."""
    n_numbers, n_categories = draw(st.integers(1, 70)), draw(st.integers(0, 4))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    vocabularies = [
        Vocabulary(f"c{slot}", tuple(sorted(draw(st.sets(st.sampled_from(TEXTS))), key=str.encode)))
        for slot in range(n_categories)
    ]
    heads = []
    for _ in range(draw(st.integers(1, 3))):
        columns = [
            Column(f"n{rng.integers(n_numbers)}", None, draw(st.sampled_from(Rewrite)))
            for _ in range(draw(st.sampled_from([1, 2, 8, 70, 140])))
        ]
        terms = []
        for slot in range(n_categories):
            columns.append(Column(f"c{slot}", draw(lookups(slot)), draw(st.sampled_from(Rewrite))))
            term = draw(lookups(slot))
            if draw(st.booleans()) and not np.isnan([*term.values, term.default]).any():
                terms.append(term)
        for _ in range(draw(st.integers(0, 3)) if n_categories > 1 else 0):
            cross = draw(crosses(vocabularies))
            columns.append(Column(cross.feature, cross, draw(st.sampled_from(Rewrite))))
            terms += [draw(crosses(vocabularies))] if draw(st.booleans()) else []
        trees = random_trees(draw(shapes(len(columns))), rng)
        heads.append(
            Head(
                tuple(columns),
                trees if draw(st.integers(0, 9)) else None,
                tuple(terms),
                intercept=draw(st.sampled_from([0.0, -3.5])),
                scale=draw(st.sampled_from([1.0, 0.7])),
                divisor=draw(st.sampled_from([1.0, 30.0])),
            )
        )
    return heads, n_numbers, n_categories, seed


def slots_of(n_numbers: int, n_categories: int) -> dict[str, tuple[bool, int]]:
    return number_slots(n_numbers) | {f"c{i}": (True, i) for i in range(n_categories)}


@given(models())
@settings(max_examples=120)
def test_any_ensemble_finds_the_leaves_of_the_double_walk(model) -> None:
    """Random heads, rewrites, lookups, membership and missing directions: every path equals the oracle."""
    heads, n_numbers, n_categories, seed = model
    rng = np.random.default_rng(seed)
    numbers = trap_numbers(heads, 64, n_numbers, rng)
    texts = rng.choice(np.array([*TEXTS, "unseen", "k" * 18], dtype=object), size=64 * n_categories).tolist()
    assert_exact(heads, slots_of(n_numbers, n_categories), numbers, texts)


@given(models(), st.data())
@settings(max_examples=40)
def test_a_row_in_two_sides_scores_as_the_whole_row(model, data) -> None:
    """Request and line item encoded apart and combined give the margins of one row, to the last bit."""
    heads, n_numbers, n_categories, seed = model
    rng = np.random.default_rng(seed)
    numbers = trap_numbers(heads, 1, n_numbers, rng)[0]
    texts = rng.choice(np.array([*TEXTS, "unseen"], dtype=object), size=n_categories).tolist()
    split = data.draw(st.integers(0, n_numbers)), data.draw(st.integers(0, n_categories))
    for isa in ISAS:
        engine = Engine(heads, slots_of(n_numbers, n_categories), n_numbers, n_categories, isa)
        whole = engine.margins(numbers, texts)
        assert engine.margins_of_sides(numbers, texts, *split) == whole
        assert engine.margins_of_sides(numbers, texts, *split, merged=True) == whole


@pytest.mark.parametrize("n_columns", [31, 32, 33, 64, 65, 128, 129])
def test_every_column_is_looked_at(n_columns: int) -> None:
    """Columns fill registers of 32, 64 and 128 lanes: a tree of one node for each column, as many rows that differ in
    one column alone."""
    head = number_head(stumps(n_columns, [0.5]), n_columns)
    numbers = np.concatenate([np.zeros((1, n_columns)), np.eye(n_columns)])
    assert_exact([head], number_slots(n_columns), numbers, [])


@pytest.mark.parametrize("n_nodes", [15, 16, 17, 31, 32, 33, 62, 63, 64, 65])
def test_trees_about_the_size_of_a_block_find_their_leaves(n_nodes: int) -> None:
    """4, 2 or 1 trees share a block of 64 nodes, larger ones are walked: chains, whose depth is their size."""
    builder = TreesBuilder()
    for _ in range(9):
        first = len(builder.trees.column)
        for i in range(n_nodes):
            node = builder.node(0, float(i), missing_true=bool(i % 2))
            last = i == n_nodes - 1
            builder.link(node, True, builder.leaf(float(i)), is_leaf=True)
            builder.link(node, False, builder.leaf(1000.0) if last else node + 1, is_leaf=last)
        builder.root(first)
    numbers = np.append(np.arange(-0.5, n_nodes + 1.0, 0.5), np.nan)[:, None]
    assert_exact([number_head(builder.trees, 1)], number_slots(1), numbers, [])


def test_numbers_on_every_threshold_of_thousands_find_their_place() -> None:
    """Beyond 4,096 breakpoints of a number, bisection finds the block: on the last of each, too."""
    thresholds = np.sort(np.random.default_rng(2).normal(size=4_500)).tolist()
    head = number_head(stumps(1, thresholds), 1)
    numbers = np.array(
        thresholds[::5] + thresholds[7::8] + [np.nextafter(x, np.inf) for x in thresholds[7::8]]
    )
    assert_exact([head], number_slots(1), numbers[:, None], [])


@given(st.integers(0, 2**32))
@settings(max_examples=5)
def test_thousands_of_keys_are_told_apart(seed: int) -> None:
    """Every key of a large table finds its own value, every near miss the default."""
    rng = np.random.default_rng(seed)
    words = {"".join(chr(97 + c) for c in rng.integers(0, 26, rng.integers(1, 40))) for _ in range(4_000)}
    keys = sorted(words)
    values = rng.normal(size=len(keys))
    head = Head((), None, (Lookup("c0", tuple(keys), array("d", values), 0.25),))
    near = [key + "x" for key in keys] + [key[:-1] for key in keys]
    for isa in ISAS:
        engine = Engine([head], {"c0": (True, 0)}, 0, 1, isa)
        none = np.empty((len(keys), 0))
        assert np.array_equal(margins(engine, none, keys)[:, 0], values)
        missed = margins(engine, np.empty((len(near), 0)), near)[:, 0]
        known = dict(zip(keys, values, strict=True))
        assert np.array_equal(missed, [known.get(text, 0.25) for text in near])


def test_a_long_row_in_two_sides_scores_as_the_whole_row() -> None:
    """Beyond 2,048 bytes sides are combined head by head; what is missing on both sides has its term's default."""
    n = 40
    terms = tuple(Lookup(f"c{i}", ("a",), array("d", [0.5 + i]), 0.25 * (i + 1)) for i in range(n))
    heads = [Head((), None, terms, float(h)) for h in range(8)]
    texts = ["a" if i % 3 else "unseen" for i in range(n)]
    for isa in ISAS:
        engine = Engine(heads, slots_of(0, n), 0, n, isa)
        whole = engine.margins(np.empty(0), texts)
        for split in (0, 7, n):
            assert engine.margins_of_sides(np.empty(0), texts, 0, split) == whole
