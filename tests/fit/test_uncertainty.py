"""The uncertainty of a click model: what it says of the unseen, of the known, and against the truth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ctr import SPEC, click_log, fitted

from bidml.contract import MAX_VARIANCE, MIN_VARIANCE
from bidml.errors import ConfigError
from bidml.features import margins, raw_columns
from bidml.fit import ClickModel
from bidml.fit.encoding import Categories
from bidml.fit.uncertainty import effect_variance, effect_variances, fit_variance, pair_variance


def logit(p: Any) -> Any:
    return np.log(p) - np.log1p(-p)


@pytest.fixture(scope="module")
def log() -> pd.DataFrame:
    return click_log(40_000, seed=1)


@pytest.fixture(scope="module")
def model(log: pd.DataFrame) -> ClickModel:
    return fitted(log, uncertainty=True)


def test_predictions_are_those_of_a_model_without_uncertainty(log, model):
    """The option adds a head and touches nothing else; off, the blueprint is what it was."""
    plain = fitted(log)
    assert plain.to_blueprint() == replace(model.to_blueprint(), variance=None)
    assert plain.to_blueprint().variance is None
    with pytest.raises(ConfigError, match="uncertainty=True"):
        plain.predict_log_odds_sd(log)


def test_the_head_is_what_is_predicted(log, model):
    """sd² is the head's margin, inside the contract's range; fitted again it has the same bits."""
    sd = model.predict_log_odds_sd(log)
    head = model.to_blueprint().variance
    assert head is not None
    assert head.trees is None
    np.testing.assert_allclose(sd**2, margins(raw_columns(log, SPEC), head), rtol=1e-12)
    assert ((sd**2 >= MIN_VARIANCE) & (sd**2 <= MAX_VARIANCE)).all()
    assert fitted(log, uncertainty=True).to_blueprint() == model.to_blueprint()


def test_what_was_never_seen_is_least_certain(log, model):
    """An app of many rows, one of few, one of none; each more uncertain than the one before."""
    counts = log["app"].value_counts()
    row = log.iloc[[0, 0, 0]].reset_index(drop=True)
    row["app"] = [counts.index[0], counts.index[-20], "never"]
    sd = model.predict_log_odds_sd(row)
    assert sd[0] < sd[1] < sd[2]


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_as_large_as_it_says(seed):
    """z = (predicted − true log-odds) / sd spreads by about 1 on new rows, and the sd tells large errors from small."""
    train, test = click_log(30_000, seed=10 + seed), click_log(20_000, seed=20 + seed)
    model = fitted(train, uncertainty=True)
    error = model.predict_log_odds(test) - logit(test["true_pctr"].to_numpy())
    sd = model.predict_log_odds_sd(test)
    z = error / sd
    assert 0.7 < z.std() < 1.4
    low, high = np.array_split(np.argsort(sd), 4)[::3]
    assert error[high].std() > 1.2 * error[low].std()


def test_more_data_is_more_certain():
    """Ten times the rows of one world: the typical sd falls."""
    small, large = click_log(6_000, seed=3), click_log(60_000, seed=3)
    test = click_log(5_000, seed=4)
    sds = [np.median(fitted(log, uncertainty=True).predict_log_odds_sd(test)) for log in (small, large)]
    assert sds[1] < 0.75 * sds[0]


@given(prior=st.floats(1e-3, 3.0), information=st.lists(st.floats(0.0, 1e6), min_size=1, max_size=5))
def test_a_variance_lies_between_what_is_told_and_the_prior(prior, information):
    """Less than either the prior's or that of the rows alone, falling with evidence; the pool's is the prior."""
    h = np.array([*sorted(information), 9.0])
    v = effect_variances(prior, h)
    assert v[-1] == pytest.approx(prior)
    assert (v[:-1] <= prior * (1.0 + 1e-12)).all()
    assert (v[:-1] * h[:-1] <= 1.0 + 1e-12).all()
    assert (np.diff(v[:-1]) <= 0.0).all()


@pytest.mark.parametrize("truth", [0.02, 0.2, 0.6])
def test_the_spread_of_effects_is_found(truth):
    """Of 2,000 categories with some hundred clicks each, whatever was expected."""
    rng = np.random.default_rng(5)
    h = rng.uniform(50.0, 400.0, 2_000)
    score = rng.normal(0.0, np.sqrt(h + h * h * truth))
    for expected in (0.08, 0.5):
        assert effect_variance(score, h, expected=expected) == pytest.approx(truth, rel=0.25)


@given(
    score=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6),
    h=st.floats(0.0, 1e4),
    expected=st.floats(1e-3, 1.0),
)
def test_silence_leaves_the_prior_and_nothing_leaves_the_bounds(score, h, expected):
    g = np.array(score)
    found = effect_variance(g, np.full(len(g), h), expected=expected)
    assert 0.0 < found < np.inf
    assert effect_variance(g, np.zeros(len(g)), expected=expected) == pytest.approx(expected)


def test_few_clicks_do_not_claim_to_know():
    """Three clicks, all where they were expected: the moment is 0, the variance is not."""
    expected = 0.1
    assert effect_variance(np.zeros(5), np.full(5, 0.6), expected=expected) > 0.5 * expected


def test_pairs_are_uncertain_until_their_cells_are_known():
    """A quarter of the spread at first; rows that a hundred times more clicks speak for: far less."""
    rng = np.random.default_rng(3)
    texts = [rng.integers(0, 4, 4_000).astype(str).astype(object) for _ in range(3)]
    categories = [Categories.of(name, cells) for name, cells in zip("abc", texts, strict=True)]
    few, many = (pair_variance(categories, np.full(4_000, h)) for h in (1e-4, 1.0))
    assert few == pytest.approx(0.25, rel=0.05)
    assert many < 0.05 * few
    assert pair_variance(categories[:1], np.ones(4_000)) == 0.0


def test_weights_stand_for_rows(log):
    """A row of weight 2 tells what two rows tell."""
    some = log.iloc[:5_000]
    categories = [Categories.of(name, raw_columns(some, SPEC)[name]) for name in ("app", "slot")]
    y = some["clicked"].to_numpy(dtype=float)
    doubled = [Categories(each.feature, each.keys, np.repeat(each.codes, 2)) for each in categories]
    heads = [
        fit_variance(categories, y, np.full(5_000, 2.0)),
        fit_variance(doubled, np.repeat(y, 2), np.ones(10_000)),
    ]
    assert heads[0].intercept == pytest.approx(heads[1].intercept, rel=1e-9)
    for one, other in zip(heads[0].terms, heads[1].terms, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-9)


def test_a_model_without_categories_is_as_uncertain_as_its_level(log):
    """Numbers are taken for known: the head is the variance of the mean."""
    y = log["clicked"].to_numpy(dtype=float)
    head = fit_variance([], y, np.ones(len(y)))
    assert head.terms == ()
    assert head.intercept == pytest.approx(1.0 / (len(y) * y.mean() * (1.0 - y.mean())))


def test_an_uncertainty_is_of_one_machine(log):
    class Two:
        size = 2

    with pytest.raises(ConfigError, match="one machine"):
        ClickModel(SPEC, uncertainty=True).fit(log, log["clicked"], crew=Two())


def test_what_is_known_of_pairs_is_not_uncertain() -> None:
    """Down to a quarter of what was expected."""
    rng = np.random.default_rng(0)
    categories = [Categories.of(name, rng.integers(0, 9, 500).astype(str).astype(object)) for name in "ab"]
    none, some, much, all_of_it = (
        pair_variance(categories, np.full(500, 0.01), found=x) for x in (0.0, 0.1, 0.2, 9.0)
    )
    assert none > some > much == all_of_it > 0.0
