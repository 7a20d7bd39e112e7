"""Metrics: their identities, scikit-learn as the second opinion, and small probabilities."""

from __future__ import annotations

import doctest
from decimal import Decimal, getcontext

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from bidml import metrics
from bidml.errors import DataError

RNG_SEEDS = st.integers(0, 2**32 - 1)


def test_docstring_examples() -> None:
    """They are true, and there are some."""
    found = doctest.testmod(metrics)
    assert found.attempted >= 9
    assert found.failed == 0


@st.composite
def outcomes_and_scores(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Both outcomes; scores with ties."""
    n = draw(st.integers(2, 60))
    y = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=float)
    y[:2] = 0.0, 1.0
    tick = draw(st.sampled_from([1.0, 0.25, 1e-3]))
    score = np.array(draw(st.lists(st.integers(1, 20), min_size=n, max_size=n))) * tick
    return y, score


@given(outcomes_and_scores())
def test_ranking_metrics_equal_scikit_learns(sample: tuple[np.ndarray, np.ndarray]) -> None:
    y, score = sample
    assert metrics.auc(y, score) == pytest.approx(sk.roc_auc_score(y, score), abs=1e-12)
    assert metrics.pr_auc(y, score) == pytest.approx(sk.average_precision_score(y, score), abs=1e-12)


@given(outcomes_and_scores())
def test_auc_is_kept_by_increasing_maps_and_reversed_by_decreasing_ones(
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    y, score = sample
    assert metrics.auc(y, np.exp(score / 10.0)) == metrics.auc(y, score)
    assert metrics.auc(y, -score) == pytest.approx(1.0 - metrics.auc(y, score), abs=1e-12)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=20), RNG_SEEDS)
def test_log_loss_of_log_odds_equals_that_of_exact_probabilities(s: list[float], seed: int) -> None:
    """Against 50-digit arithmetic: relative error 1e-12 even where 1 − p rounds to 1."""
    getcontext().prec = 50
    y = np.random.default_rng(seed).integers(0, 2, len(s))
    one = Decimal(1)
    exact = sum(
        ((one + (-Decimal(x) if k else Decimal(x)).exp()).ln() for x, k in zip(s, y, strict=True)), Decimal(0)
    )
    found = metrics.log_loss_from_log_odds(y, s)
    assert found == pytest.approx(float(exact / len(s)), rel=1e-12)


def test_log_loss_equals_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p, w = rng.uniform(0.01, 0.99, 500), rng.uniform(0, 3, 500)
    y = rng.random(500) < p
    assert metrics.log_loss(y, p, sample_weight=w) == pytest.approx(
        sk.log_loss(y, p, sample_weight=w), rel=1e-12
    )


def test_certainty_that_was_wrong_costs_infinity_and_that_was_right_nothing() -> None:
    assert metrics.log_loss([1.0], [0.0]) == np.inf
    assert metrics.log_loss([1.0, 0.0], [1.0, 0.0]) == 0.0


@given(st.integers(1, 30), st.integers(1, 300))
def test_the_base_rate_has_normalized_entropy_one(events: int, others: int) -> None:
    y = np.r_[np.ones(events), np.zeros(others)]
    p = np.full(len(y), y.mean())
    assert metrics.normalized_entropy(y, p) == pytest.approx(1.0, rel=1e-12)
    log_odds = np.full(len(y), np.log(events / others))
    assert metrics.normalized_entropy_from_log_odds(y, log_odds) == pytest.approx(1.0, rel=1e-12)
    assert metrics.relative_information_gain(y, p) == pytest.approx(0.0, abs=1e-12)
    assert metrics.calibration_ratio(y, p) == pytest.approx(1.0, rel=1e-12)


def test_the_truth_has_the_least_log_loss_in_expectation() -> None:
    """With outcomes replaced by their expectation, every distortion of p costs."""
    p = np.random.default_rng(1).beta(1, 50, 2_000)
    best = metrics.log_loss(p, p)
    assert all(metrics.log_loss(p, np.clip(p * f, 0, 1)) > best for f in (0.5, 0.9, 1.1, 2.0))


@given(RNG_SEEDS)
def test_a_weight_counts_as_repetition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, p, w = rng.integers(0, 2, 20), rng.uniform(0.01, 0.99, 20), rng.integers(0, 4, 20)
    y[:2], w[:2] = (0, 1), 1
    repeated_y, repeated_p = np.repeat(y, w), np.repeat(p, w)
    for metric in (metrics.log_loss, metrics.normalized_entropy, metrics.calibration_ratio):
        assert metric(y, p, sample_weight=w) == pytest.approx(metric(repeated_y, repeated_p), rel=1e-9)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """2,000 samples of 1,000 rows at p = 2 %: about 95 % of the ratio's intervals hold 1 (exact ones: a little more);
    AUC intervals hold the AUC of the population."""
    rng = np.random.default_rng(2)
    p = np.full(1_000, 0.02)
    held = [1.0 in metrics.calibration_ratio_interval(rng.random(1_000) < p, p) for _ in range(2_000)]
    assert 0.94 < np.mean(held) < 0.985
    truth = float(stats.norm.cdf(1.0 / np.sqrt(2.0)))
    y = np.r_[np.ones(60), np.zeros(400)]
    held = [truth in metrics.auc_interval(y, rng.normal(y, 1.0)) for _ in range(800)]
    assert 0.92 < np.mean(held) < 0.98


def test_without_an_event_the_ratio_is_unbounded() -> None:
    found = metrics.calibration_ratio_interval(np.zeros(100), np.full(100, 0.01))
    assert (found.value, found.high) == (np.inf, np.inf)
    assert found.low == pytest.approx(1.0 / 3.6888794541, rel=1e-9)  # −ln 0.025


def test_calibration_error_sees_a_shift_and_not_a_permutation_within_bins() -> None:
    rng = np.random.default_rng(3)
    p = rng.beta(2, 60, 200_000)
    y = rng.random(len(p)) < p
    assert metrics.expected_calibration_error(y, p) < 0.08
    assert metrics.expected_calibration_error(y, 1.5 * p) == pytest.approx(0.5, abs=0.06)
    assert metrics.expected_calibration_error(p, p) == pytest.approx(0.0, abs=1e-12)
    field = rng.integers(0, 10, len(p))
    wrong = np.where(field == 3, 2.0 * p, p)
    share = p[field == 3].sum() / p.sum()
    assert metrics.field_calibration_error(p, wrong, field) == pytest.approx(share, rel=1e-9)


def test_the_costliest_segment_comes_first_with_its_money() -> None:
    """Segment b is predicted 30 % too high at 3.00 a click; a is right; nulls are a segment of their own."""
    rng = np.random.default_rng(4)
    n = 60_000
    segment = pd.Series(rng.choice(["a", "b", None], n), dtype=object)
    p_true = np.full(n, 0.05)
    y = rng.random(n) < p_true
    p = np.where(segment == "b", 1.3 * p_true, p_true)
    table = metrics.calibration_by_segment(y, p, segment, value_per_event=np.where(segment == "b", 3.0, 1.0))
    assert table.index[0] == "b"
    assert len(table) == 3
    assert table["n_rows"].sum() == n
    assert table.loc["b", "is_off"]
    assert table["is_off"].sum() == 1
    b = (segment == "b").to_numpy()
    assert table.loc["b", "misvalued"] == pytest.approx(3.0 * (p[b].sum() - y[b].sum()), rel=1e-12)
    assert table.loc["b", "misvalued_low"] < table.loc["b", "misvalued"] < table.loc["b", "misvalued_high"]
    assert (table["low"] < table["calibration_ratio"]).all()


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda: metrics.log_loss([0, 1], [0.5]), "one length"),
        (lambda: metrics.log_loss([], []), "n > 0"),
        (lambda: metrics.log_loss([0, np.nan], [0.5, 0.5]), "outcomes are numbers"),
        (lambda: metrics.log_loss([0, 1], [0.5, np.nan]), "predictions are numbers"),
        (lambda: metrics.log_loss([0, 1], [-4.0, 0.5]), "predictions are numbers from 0 to 1"),
        (lambda: metrics.log_loss([0, 2], [0.5, 0.5]), "outcomes are numbers from 0 to 1"),
        (lambda: metrics.log_loss(["a"], [0.5]), "outcomes are numbers"),
        (lambda: metrics.log_loss([0, 1], [0.5, 0.5], sample_weight=[0, 0]), "positive, finite sum"),
        (lambda: metrics.normalized_entropy([1, 1], [0.5, 0.5]), "base rate between 0 and 1"),
        (lambda: metrics.auc([1, 1], [0.5, 0.5]), "events and non-events"),
        (lambda: metrics.auc([0.5, 1], [0.5, 0.5]), "outcomes are 0 or 1"),
        (lambda: metrics.pr_auc([0, 0], [0.5, 0.5]), "relative to the events"),
        (lambda: metrics.calibration_by_segment([1], [0.5], ["a", "b"]), "one segment per row"),
    ],
)
def test_bad_input_is_refused_by_its_rule(call: object, rule: str) -> None:
    with pytest.raises(DataError, match=rule):
        call()  # type: ignore[operator]
