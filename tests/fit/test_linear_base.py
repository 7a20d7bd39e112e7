"""Category weights: recovered, shrunk by what the data say, and never told a row's own outcome."""

from __future__ import annotations

import numpy as np
import pytest

from bidml.features import Doubles
from bidml.fit import MarketPriceObservations
from bidml.fit.censored import CensoredLikelihood
from bidml.fit.encoding import Categories, Indices, OtherFolds
from bidml.fit.linear_base import LinearBase, fit_linear_base


def closed(bid: Doubles, price: Doubles) -> CensoredLikelihood:
    won, n = bid >= price, np.ones(len(bid))
    y = MarketPriceObservations(np.where(won, 0.0, bid), np.where(won, bid, np.inf), 0.0 * n, bid, won, n)
    return CensoredLikelihood(y, reference_log_bid_cpm=0.0)


def fitted(
    likelihood: CensoredLikelihood,
    *codes: Indices,
    folds: Indices,
    bid: Doubles | None = None,
    slopes_differ: bool = False,
) -> LinearBase:
    features = [
        Categories.of(f"f{i}", np.array([f"c{c:04d}" for c in column], dtype=object), min_count=1)
        for i, column in enumerate(codes)
    ]
    log_bid = None if bid is None else np.log(bid)
    return fit_linear_base(
        likelihood,
        features,
        visibility=OtherFolds(folds),
        log_bid_cpm=log_bid,
        slopes_differ=slopes_differ,
    )


def test_effects_are_recovered_given_the_bid() -> None:
    """Two features whose categories attract different bids: the weights are the location's, not the win rate's."""
    rng = np.random.default_rng(0)
    n = 60_000
    site, geo = rng.integers(0, 40, n), rng.integers(0, 8, n)
    of_site, of_geo = rng.normal(0.0, 0.5, 40), rng.normal(0.0, 0.3, 8)
    location = of_site[site] + of_geo[geo]
    price = np.exp(location + rng.logistic(size=n) / 2.0)
    bid = np.exp(1.2 * of_site[site] + rng.normal(0.0, 0.6, n))  # we bid more where prices are higher
    base = fitted(closed(bid, price), site, geo, folds=rng.integers(0, 5, n))
    assert base.log_slope == pytest.approx(np.log(2.0), abs=0.05)
    for effect, truth in zip(base.effects, (of_site, of_geo), strict=True):
        weights = np.array(effect.lookup.values)
        slope = np.polyfit(-(truth - truth.mean()), weights - weights.mean(), 1)[0]
        assert slope == pytest.approx(1.0, abs=0.08)
    won = bid >= price
    naive = np.array([won[site == i].mean() for i in range(40)])
    assert (
        np.corrcoef(naive, of_site)[0, 1] > -0.5 > np.corrcoef(base.effects[0].lookup.values, of_site)[0, 1]
    )


def test_noise_has_no_weight() -> None:
    """Categories without any effect are shrunk to nothing, and the training rows see nothing of their outcomes."""
    rng = np.random.default_rng(1)
    n = 8_000
    bid, price = np.exp(rng.normal(0.0, 0.6, n)), np.exp(rng.logistic(size=n) / 2.0)
    base = fitted(closed(bid, price), rng.integers(0, 2_000, n), folds=rng.integers(0, 5, n))
    assert np.std(base.effects[0].lookup.values) < 0.15
    assert abs(np.corrcoef(base.training_margin, bid >= price)[0, 1]) < 0.04


def test_a_training_row_sees_other_folds_only() -> None:
    """A category with rows in one fold is the prior there; turning its outcomes around changes no row's value."""
    rng = np.random.default_rng(2)
    n = 4_000
    codes, folds = rng.integers(0, 30, n), rng.integers(0, 5, n)
    codes[:6], folds[:6] = 99, 3
    bid, price = np.exp(rng.normal(0.0, 0.6, n)), np.exp(0.1 * codes + rng.logistic(size=n) / 2.0)
    for lost in (False, True):
        price[:6] = bid[:6] * (10.0 if lost else 0.1)
        base = fitted(closed(bid, price), codes, folds=folds)
        served = base.effects[0].lookup.values[base.effects[0].lookup.keys.index("c0099")]
        assert (served < 0.0) == lost
        np.testing.assert_allclose(base.effects[0].values[:6], 0.0, atol=0.02)


def test_the_level_of_our_bids_tells_of_rare_categories() -> None:
    """Where bids follow prices, a site of five rows is known by them; where they do not, nothing is made of it."""
    rng = np.random.default_rng(4)
    n, n_sites = 20_000, 3_000
    site = rng.integers(0, n_sites, n)
    of_site = rng.normal(0.0, 0.6, n_sites)
    price = np.exp(of_site[site] + rng.logistic(size=n) / 2.5)
    folds = rng.integers(0, 8, n)
    for follows in (True, False):
        level = of_site if follows else rng.normal(0.0, 0.6, n_sites)
        bid = np.exp(level[site] + rng.normal(0.0, 0.3, n))
        found = []
        for base in (fitted(closed(bid, price), site, folds=folds, bid=b) for b in (bid, None)):
            known = [int(key[1:]) for key in base.effects[0].lookup.keys]
            slope = np.exp(base.log_slope)
            error = np.array(base.effects[0].lookup.values) + of_site[known]
            found.append((np.std(error), abs(slope - 2.5)))
        (with_bids, slope_error), (without, slope_error_without) = found
        if follows:
            assert with_bids < 0.85 * without
            assert slope_error < slope_error_without
        else:
            assert with_bids == pytest.approx(without, rel=0.03)


def test_slopes_are_recovered_where_they_differ_and_only_there() -> None:
    """ln k is a sum of one feature's effects; the other feature moves the price alone."""
    rng = np.random.default_rng(5)
    n = 60_000
    site, geo = rng.integers(0, 40, n), rng.integers(0, 20, n)
    of_site, of_geo = rng.normal(0.0, 0.5, 40), rng.normal(0.0, 0.25, 20)
    price = np.exp(of_site[site] + rng.logistic(size=n) / (2.5 * np.exp(of_geo[geo])))
    bid = np.exp(rng.normal(0.0, 0.6, n))
    base = fitted(closed(bid, price), site, geo, folds=rng.integers(0, 5, n), slopes_differ=True)
    (slopes,) = base.slope_terms
    assert slopes.feature == "f1"
    assert np.corrcoef(slopes.values, of_geo)[0, 1] > 0.9
    assert np.std(np.array(slopes.values) - of_geo + of_geo.mean()) < 0.12
    one = fitted(closed(bid, price), site, geo, folds=rng.integers(0, 5, n))
    assert one.slope_terms == ()


def test_without_categories_there_are_two_constants() -> None:
    """And no terms."""
    rng = np.random.default_rng(3)
    base = fit_linear_base(
        closed(np.exp(rng.normal(size=500)), np.exp(rng.logistic(size=500) / 3.0)),
        [],
        visibility=OtherFolds(np.zeros(500, dtype=np.intp)),
        log_bid_cpm=None,
        slopes_differ=True,
    )
    assert base.terms == base.slope_terms == ()
    assert base.training_margin.shape == (500,)
    assert base.log_slope == pytest.approx(np.log(3.0), abs=0.3)
