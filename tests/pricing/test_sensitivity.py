"""The formulas of SCIENCE.md 3.3, with a Dagum exponent, against differences of the solver itself."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.special import expit, logit, ndtr

from bidml.blueprint import WinFamily
from bidml.pricing import (
    WinCurve,
    explore,
    first_price_optimum_cpm,
    optimal_bid_cpm,
    sensitivity,
    surplus_cpm,
    uncertain_curve,
)

N = 500
STEP = 1e-5


@pytest.fixture(scope="module", params=list(product(WinFamily, [1.0, 0.5, 3.0])), ids=str)
def auctions(request) -> tuple[np.ndarray, WinCurve]:
    rng = np.random.default_rng(41)
    family, gamma = request.param
    spread = 1.0 if family is WinFamily.LOG_LOGISTIC else np.pi / np.sqrt(3.0)  # of ln price, at one shape
    curve = WinCurve(rng.uniform(-2.0, 2.0, N), rng.uniform(0.8, 8.0, N) / spread, gamma, family)
    return np.exp(curve.location + rng.normal(0.4, 0.8, N)), curve


def slope(bid_of) -> np.ndarray:
    """The derivative of ln bid at 0."""
    return (np.log(bid_of(STEP)) - np.log(bid_of(-STEP))) / (2.0 * STEP)


def test_the_derivatives_of_the_bid(auctions):
    value, curve = auctions
    m, k, gamma, family = curve.location, curve.shape, curve.gamma, curve.family
    found = sensitivity(value, curve)
    bid = first_price_optimum_cpm(value, curve)
    np.testing.assert_allclose(found.shading_factor, bid / value, rtol=1e-10)
    moved = {
        "by_location": lambda e: first_price_optimum_cpm(value, WinCurve(m + e, k, gamma, family)),
        "by_log_shape": lambda e: first_price_optimum_cpm(value, WinCurve(m, k * np.exp(e), gamma, family)),
        "by_log_value": lambda e: first_price_optimum_cpm(value * np.exp(e), curve),
    }
    for name, bid_of in moved.items():
        np.testing.assert_allclose(getattr(found, name), slope(bid_of), rtol=1e-6, atol=1e-8, err_msg=name)


def test_curvature_is_the_second_derivative_of_the_log_surplus(auctions):
    value, curve = auctions
    bid = first_price_optimum_cpm(value, curve)

    def log_surplus(error):
        b = bid * np.exp(error)
        return np.log(value - b) + curve.log_win_rate(b)

    step = 1e-3 * (1.0 - bid / value)
    second = (log_surplus(step) - 2.0 * log_surplus(0.0) + log_surplus(-step)) / step**2
    np.testing.assert_allclose(sensitivity(value, curve).curvature, -second, rtol=1e-3)


def test_for_a_plain_curve_the_formulas_are_the_published_ones():
    curve = WinCurve(np.zeros(50), np.linspace(0.8, 8.0, 50))
    found = sensitivity(2.0, curve)
    k, rate = curve.shape, curve.win_rate(first_price_optimum_cpm(2.0, curve))
    np.testing.assert_allclose(found.shading_factor, k * (1.0 - rate) / (1.0 + k * (1.0 - rate)), rtol=1e-12)
    np.testing.assert_allclose(found.curvature, k * (k + 1.0) * (1.0 - rate), rtol=1e-12)
    np.testing.assert_allclose(found.by_location, k * rate / (k + 1.0), rtol=1e-12)
    np.testing.assert_allclose(found.by_log_shape, (1.0 - rate * logit(rate)) / (k + 1.0), rtol=1e-10)
    np.testing.assert_allclose(found.by_log_value, 1.0 - k * rate / (k + 1.0), rtol=1e-12)


@pytest.mark.parametrize("error", [{"location": 0.1}, {"log_shape": 0.2}, {"log_value": -0.1}])
def test_the_predicted_loss_is_the_real_one(auctions, error):
    value, curve = auctions
    wrong = WinCurve(
        curve.location + error.get("location", 0.0),
        curve.shape * np.exp(error.get("log_shape", 0.0)),
        curve.gamma,
        curve.family,
    )

    def earned(bid):
        return surplus_cpm(value, bid, curve.win_rate(bid)).sum()

    best = first_price_optimum_cpm(value, curve)
    bid = first_price_optimum_cpm(value * np.exp(error.get("log_value", 0.0)), wrong)
    real = earned(best) - earned(bid)
    surplus = surplus_cpm(value, best, curve.win_rate(best))
    predicted = (sensitivity(value, curve).relative_loss(**error) * surplus).sum()
    assert real > 0.0
    assert predicted == pytest.approx(real, rel=0.25)


def test_random_errors_and_exploration_cost_what_is_said(auctions):
    value, curve = auctions
    found = sensitivity(value, curve)
    np.testing.assert_allclose(
        found.expected_loss(sd_location=0.1), found.relative_loss(location=0.1), rtol=1e-12
    )
    rng, sigma = np.random.default_rng(5), 0.1
    best = np.tile(first_price_optimum_cpm(value, curve), 40)
    wide, values = (
        WinCurve(*(np.tile(x, 40) for x in (curve.location, curve.shape, curve.gamma)), curve.family),
        np.tile(value, 40),
    )
    bids, _ = explore(best, rng, sigma, 0.5)
    surplus = surplus_cpm(values, best, wide.win_rate(best))
    real = surplus.sum() - surplus_cpm(values, bids, wide.win_rate(bids)).sum()
    predicted = (np.tile(found.exploration_loss(sigma, 0.5), 40) * surplus).sum()
    assert predicted == pytest.approx(real, rel=0.25)


@pytest.mark.parametrize(
    ("family", "cdf", "unit"), [("log_logistic", expit, 1.0), ("log_normal", ndtr, (np.pi / 8.0) ** 0.5)]
)
def test_an_uncertain_curve_is_the_mean_curve(family, cdf, unit):
    """`unit`: of z, what moves the log-odds at the median by 1."""
    rng, tau = np.random.default_rng(6), 0.8
    curve = WinCurve(0.0, 3.0, family=family)
    noise = tau * unit * rng.normal(size=400_000)
    for bid in (0.5, 1.0, 2.0):
        mean = cdf(3.0 * np.log(bid) + noise).mean()
        assert uncertain_curve(curve, tau).win_rate(bid)[0] == pytest.approx(mean, abs=0.005)
    assert uncertain_curve(curve, 0.0).shape == curve.shape
    assert optimal_bid_cpm(2.0, uncertain_curve(curve, 3.0)) != optimal_bid_cpm(2.0, curve)
