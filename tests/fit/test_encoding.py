"""Encoders: nobody sees his own outcome, little evidence shrinks, and what is served is what was learnt."""

from __future__ import annotations

import time
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.blueprint import Blueprint, Column, CtrBlueprint, Head
from bidml.bounds import check_blueprint
from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, ExportError
from bidml.features import UNMATCHABLE
from bidml.fit.encoding import (
    MAX_SHRINKAGE,
    Categories,
    Earlier,
    OtherFolds,
    OutcomeEvidence,
    StepEvidence,
    effect_and_count_columns,
    effect_column,
    empirical_shrinkage,
    lookup_values,
    rank_column,
)
from bidml.metrics import auc


def texts(*cells: str) -> Any:
    return np.array(cells, dtype=object)


def of(cells: Any, **options: Any) -> Categories:
    return Categories.of("site", np.asarray(cells, dtype=object), **{"min_count": 1, **options})


def outcomes(y: Any) -> OutcomeEvidence:
    y = np.asarray(y, dtype=float)
    return OutcomeEvidence(y, np.full(len(y), 0.3))


@st.composite
def small_logs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes, times or folds with ties, outcomes)."""
    n = draw(st.integers(1, 40))
    column = lambda high: np.array(draw(st.lists(st.integers(0, high), min_size=n, max_size=n)))  # noqa: E731
    return column(4), column(6), column(1)


@given(small_logs())
def test_earlier_sums_equal_the_definition(log: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    codes, when, y = log
    quantities = np.column_stack((y, np.ones(len(y)))).astype(float)
    found = Earlier(when).sums(codes, 5, quantities)
    for i in range(len(y)):
        visible = (codes == codes[i]) & (when < when[i])
        assert (found[i] == quantities[visible].sum(axis=0)).all()


@given(small_logs())
def test_sums_of_other_folds_equal_the_definition(log: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    codes, folds, y = log
    quantities = np.column_stack((y, np.ones(len(y)))).astype(float)
    found = OtherFolds(folds).sums(codes, 5, quantities)
    for i in range(len(y)):
        visible = (codes == codes[i]) & (folds != folds[i])
        assert (found[i] == quantities[visible].sum(axis=0)).all()


@given(small_logs(), st.data())
def test_no_training_value_depends_on_its_own_or_a_later_outcome(
    log: tuple[np.ndarray, np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    """Flip one outcome: in time order only later values of its category move, out of fold only other folds'."""
    codes, when, y = log
    i = data.draw(st.integers(0, len(y) - 1))
    flipped = y.copy()
    flipped[i] = 1 - flipped[i]
    for visibility, blind in ((Earlier(when), when <= when[i]), (OtherFolds(when), when == when[i])):
        one, other = (
            effect_column(of(codes.astype(str)), outcomes(outcome), visibility, shrinkage=2.0).values
            for outcome in (y, flipped)
        )
        moved = one != other
        assert not (moved & blind).any()
        assert moved[(codes == codes[i]) & ~blind].all()


@pytest.mark.parametrize("with_time", [True, False])
def test_a_column_of_pure_noise_teaches_nothing(with_time: bool) -> None:
    """20,000 categories in 60,000 rows, outcomes independent of them. A booster that overfits freely on effect, count
    and rank has AUC 0.5 on new rows, while the same booster on in-sample means believes that it knows."""
    rng = np.random.default_rng(5)
    n = 60_000
    cells = np.array([f"c{i}" for i in range(20_000)], dtype=object)[rng.integers(0, 20_000, 2 * n)]
    y = (rng.random(2 * n) < 0.1).astype(float)
    train, new = slice(0, n), slice(n, 2 * n)
    visibility = Earlier(np.arange(n)) if with_time else OtherFolds.random(n, rng=rng)
    categories = of(cells[train])
    evidence = OutcomeEvidence(y[train], np.full(n, y[train].mean()))
    forced = effect_column(categories, evidence, visibility, shrinkage=5.0)
    columns = (forced, *effect_and_count_columns(categories, evidence, visibility), rank_column(categories))
    matrix = np.column_stack([column.values for column in columns])
    served = np.column_stack([lookup_values(column.lookup, cells[new]) for column in columns])
    parameters = {"objective": "binary", "verbose": -1, "num_leaves": 63, "num_threads": 2, "seed": 0}
    booster = lgb.train(parameters, lgb.Dataset(matrix, y[train]), 60)
    assert auc(y[new], booster.predict(served)) == pytest.approx(0.5, abs=0.02)
    in_sample = lookup_values(forced.lookup, cells[train])
    assert auc(y[train], in_sample) > 0.75  # what leaking would have looked like


def test_an_effect_is_a_shrunk_shift_of_log_odds() -> None:
    """40 clicks in 100 rows where 10 were expected: towards ln(0.4/0.6) − ln(0.1/0.9), the nearer the less shrunk."""
    evidence = OutcomeEvidence(np.repeat([1.0, 0.0], [40, 60]), np.full(100, 0.1))
    categories = of(["a"] * 100)
    unshrunk = np.log(0.4 / 0.6) - np.log(0.1 / 0.9)
    found = [
        effect_column(categories, evidence, Earlier(np.zeros(100)), shrinkage=k).lookup.values[0]
        for k in (1e-9, 1.0, 100.0, 1e9)
    ]
    assert found[0] == pytest.approx(unshrunk, rel=1e-6)
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(0.0, abs=1e-6)


def test_rare_events_keep_their_effect_at_p_1e_minus_8() -> None:
    """Three clicks where 3e-7 were expected, at κ = 1: ln((3 + κ) / κ), to nine digits."""
    evidence = OutcomeEvidence(np.r_[np.ones(3), np.zeros(27)], np.full(30, 1e-8))
    found = effect_column(of(["a"] * 30), evidence, Earlier(np.zeros(30)), shrinkage=1.0)
    assert found.lookup.values[0] == pytest.approx(np.log(4.0), rel=1e-6)


def test_the_step_is_newtons() -> None:
    """ΣG / (ΣH + κ): for a logistic base model the same as the outcome effect, to first order."""
    rng = np.random.default_rng(6)
    n = 50_000
    p = rng.uniform(0.05, 0.3, n)
    cells = rng.integers(0, 50, n).astype(str)
    y = (rng.random(n) < p).astype(float)
    categories, visibility = of(cells), Earlier(np.arange(n))
    step = effect_column(categories, StepEvidence(y - p, p * (1.0 - p)), visibility, shrinkage=20.0)
    shift = effect_column(categories, OutcomeEvidence(y, p), visibility, shrinkage=20.0)
    first = categories.codes == 0
    by_hand = (y - p)[first].sum() / ((p * (1.0 - p))[first].sum() + 20.0)
    assert step.lookup.values[0] == pytest.approx(by_hand, rel=1e-12)
    assert np.allclose(step.lookup.values, shift.lookup.values, rtol=0.1, atol=0.003)


@pytest.mark.parametrize(("spread", "base_rate"), [(0.25, 0.2), (0.5, 0.02), (1.0, 0.002)])
def test_shrinkage_finds_the_spread_of_effects(spread: float, base_rate: float) -> None:
    """Rates p·Gamma(mean 1, relative sd `spread`), Zipf-like sizes: log-odds of variance (spread / (1 − p))²,
    and κ its inverse, within a third."""
    rng = np.random.default_rng(7)
    sizes = (2e5 / np.arange(1, 2_001) ** 0.7).astype(int)
    rates = base_rate * rng.gamma(1.0 / spread**2, spread**2, len(sizes))
    events = rng.poisson(sizes * rates)
    kappa = empirical_shrinkage(events - sizes * base_rate, sizes * base_rate * (1.0 - base_rate))
    assert kappa == pytest.approx(((1.0 - base_rate) / spread) ** 2, rel=0.34)


def test_no_effect_is_shrunk_to_nothing() -> None:
    """Outcomes independent of 3,000 categories of 33 rows: the effects spread over less than a tenth of what they
    would with κ = 1/2, and the pool's counts for nothing."""
    rng = np.random.default_rng(8)
    n = 100_000
    y = (rng.random(n) < 0.05).astype(float)
    evidence = OutcomeEvidence(y, np.full(n, y.mean()))
    categories = of(rng.integers(0, 3_000, n).astype(str))
    found, unshrunk = (
        effect_column(categories, evidence, Earlier(np.arange(n)), shrinkage=k).lookup.values
        for k in (None, 0.5)
    )
    assert np.std(found) < 0.1 * np.std(unshrunk)
    assert empirical_shrinkage(np.zeros(3), np.zeros(3)) == MAX_SHRINKAGE


def test_a_child_without_evidence_is_as_its_parent() -> None:
    """Expected rates that hold the parent's effect: an app like its parent stays near 0, a deviating one does not."""
    rng = np.random.default_rng(9)
    n = 40_000
    parent = rng.integers(0, 2, n)
    child = np.where(rng.random(n) < 0.1, "odd", np.char.add("child", parent.astype(str)))
    rate = np.where(parent == 1, 0.3, 0.05) * np.where(child == "odd", 2.0, 1.0)
    y = (rng.random(n) < rate).astype(float)
    expected = np.where(parent == 1, 0.3, 0.05)
    lookup = effect_column(of(child), OutcomeEvidence(y, expected), Earlier(np.arange(n))).lookup
    found = dict(zip(lookup.keys, lookup.values, strict=True))
    assert abs(found["child0"]) < 0.15
    assert abs(found["child1"]) < 0.15
    assert found["odd"] > 0.6
    assert lookup.default == 0.0


@given(
    st.lists(st.text(max_size=4) | st.just(UNMATCHABLE), min_size=1, max_size=60),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_any_text_gives_a_lookup_that_the_artifact_takes(
    cells: list[str], max_keys: int, min_count: int
) -> None:
    """Keys sorted, distinct, bounded, none that the bidder cannot match; serving pools as training did."""
    column = np.array([c.encode(errors="ignore").decode() for c in cells], dtype=object)
    categories = Categories.of("site", column, max_keys=max_keys, min_count=min_count)
    effect, count = effect_and_count_columns(
        categories, outcomes(np.zeros(len(cells))), Earlier(np.arange(len(cells)))
    )
    spec = FeatureSpec((Feature("site", FeatureKind.CATEGORY, "site.domain"),))
    head = Head((), None, terms=(effect.lookup, count.lookup, rank_column(categories).lookup))
    check_blueprint(Blueprint(spec, CtrBlueprint(head), None, "USD"), error=ExportError)
    assert len(categories.keys) <= max_keys
    assert UNMATCHABLE not in categories.keys
    rank = rank_column(categories)
    assert (lookup_values(rank.lookup, column) == rank.values).all()
    assert Column("site", effect.lookup).feature == "site"


def test_ranks_go_by_frequency() -> None:
    column = rank_column(of(texts("b", "a", "b", "c", "b", "c"), min_count=2))
    assert dict(zip(column.lookup.keys, column.lookup.values, strict=True)) == {"b": 0.0, "c": 1.0}
    assert column.lookup.default == 2.0
    assert column.values.tolist() == [0, 2, 0, 1, 0, 1]


def test_the_pool_speaks_for_the_unseen() -> None:
    """Categories seen once click more than others: so will, on this evidence, the ones never seen."""
    cells = np.r_[np.repeat("known", 1_000), np.char.add("rare", np.arange(500).astype(str))]
    y = np.r_[np.zeros(1_000), np.tile([1.0, 0.0], 250)]
    evidence = OutcomeEvidence(y, np.full(1_500, y.mean()))
    effect, count = effect_and_count_columns(of(cells, min_count=2), evidence, Earlier(np.arange(1_500)))
    assert effect.lookup.keys == ("known",)
    assert effect.lookup.default > 0.1 > effect.lookup.values[0]
    assert count.lookup.default == 0.0
    assert count.lookup.values[0] == np.log(1_001.0)


def test_a_million_distinct_values_stay_within_bounds_and_time() -> None:
    """10⁶ rows: 30 features of such in 30 s on one core leave a second each. Here 10⁶ different texts, and 3,000."""
    n = 1_000_000
    distinct = np.array([f"user-{i:07d}" for i in range(n)], dtype=object)
    rng = np.random.default_rng(10)
    y = (rng.random(n) < 0.01).astype(float)
    evidence, visibility = OutcomeEvidence(y, np.full(n, 0.01)), Earlier(np.arange(n))
    begun = time.process_time()
    all_different = Categories.of("site", distinct)
    some = Categories.of("site", distinct[rng.integers(0, 3_000, n)])
    for categories in (all_different, some):
        effect_and_count_columns(categories, evidence, visibility)
    assert len(all_different.keys) == 1
    assert len(some.keys) == 3_000
    assert time.process_time() - begun < 6.0  # measured: 2.4 s; a busy machine is slower


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: of(["a"], max_keys=0), ConfigError),
        (lambda: effect_column(of(["a"]), outcomes([np.nan]), Earlier([0])), DataError),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


@given(
    n_folds=st.integers(2, 6),
    per_fold=st.integers(1, 5),
    clicks=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=3),
)
def test_a_part_of_the_rows_stands_for_all_of_them(n_folds, per_fold, clicks):
    """Where each fold holds the same of a category, its training rows are given what the bidder finds."""
    cells = [f"k{i}" for i in range(len(clicks)) for _ in range(n_folds * per_fold)]
    y = np.repeat(clicks, n_folds * per_fold)
    folds = OtherFolds(np.tile(np.arange(n_folds), len(clicks) * per_fold))
    evidence = OutcomeEvidence(y, np.full(len(y), 0.3))
    for column in effect_and_count_columns(of(cells), evidence, folds, shrinkage=2.0):
        np.testing.assert_allclose(
            column.values, lookup_values(column.lookup, np.array(cells, dtype=object)), rtol=1e-9
        )
