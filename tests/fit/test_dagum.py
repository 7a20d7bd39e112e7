"""The held-out correction: neutral where the family is right, found where it is not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bidml.features import Doubles
from bidml.fit import MarketPriceObservations
from bidml.fit.dagum import Dagum, dagum_nll, fit_dagum


def closed(bid: Doubles, price: Doubles) -> MarketPriceObservations:
    won, n = bid >= price, np.ones(len(bid))
    return MarketPriceObservations(np.where(won, 0.0, bid), np.where(won, bid, np.inf), 0.0 * n, bid, won, n)


def exact(price: Doubles) -> MarketPriceObservations:
    n = np.ones(len(price))
    return MarketPriceObservations(price, price, 0.0 * n, price, n == 1.0, n)


def test_a_right_curve_is_left_alone() -> None:
    """Log-logistic prices, true heads: (1, 0, 1) within noise."""
    rng = np.random.default_rng(0)
    m, k = rng.normal(0.0, 0.5, 40_000), np.exp(rng.normal(0.7, 0.2, 40_000))
    price = np.exp(m + rng.logistic(size=40_000) / k)
    found = fit_dagum(
        closed(np.exp(rng.normal(0.0, 0.7, 40_000)), price), -m, np.log(k), reference_log_bid_cpm=0.0
    )
    assert found.slope_scale == pytest.approx(1.0, abs=0.08)
    assert found.gamma == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("gamma", [0.5, 3.0])
def test_a_bent_shape_is_found(gamma: float) -> None:
    """Prices of a Dagum law with known exponents, exact feedback, heads that are off by a scale and a shift."""
    rng = np.random.default_rng(1)
    n = 20_000
    m, k = rng.normal(0.0, 0.5, n), 2.0
    price = np.exp(m) * stats.burr(c=k, d=gamma).rvs(n, random_state=rng)
    beta, a = -m + 0.4 / 1.6, np.full(n, np.log(1.6))
    found = fit_dagum(exact(price), beta, a, reference_log_bid_cpm=0.0)
    assert found.gamma == pytest.approx(gamma, rel=0.15)
    assert found.slope_scale * 1.6 == pytest.approx(k, rel=0.08)
    assert found.slope_scale * 0.4 + found.logit_shift == pytest.approx(0.0, abs=0.25)


def test_a_fit_never_loses_likelihood() -> None:
    """The posterior mode is at least as likely as no correction, on the rows it saw."""
    rng = np.random.default_rng(2)
    y = exact(np.exp(rng.normal(size=300)))
    beta, a = rng.normal(size=300), rng.normal(0.5, 0.2, 300)
    found = fit_dagum(y, beta, a, reference_log_bid_cpm=0.0)
    before, after = (dagum_nll(y, beta, a, d, reference_log_bid_cpm=0.0).mean() for d in (Dagum(), found))
    assert after < before
