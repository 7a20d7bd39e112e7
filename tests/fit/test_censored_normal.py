"""The log-normal likelihood: SciPy's probabilities, identities, derivatives against finite differences, far tails."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from bidml.blueprint import WinFamily
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations, censored
from bidml.fit.censored import PRIOR_LOG_SLOPE, CensoredLikelihood, global_curve
from bidml.fit.censored_normal import moves_between, nll_between
from bidml.fit.dagum import curve_nll, fit_dagum
from tests.fit.test_censored import REFERENCE, ROWS, observed

NORMAL = WinFamily.LOG_NORMAL
WIDE = [*ROWS, (1.0, 1.01, 0.0), (1.0, 1.2, 0.0), (0.1, 9.0, 0.0)]
parameters = {"beta": st.floats(-4.0, 4.0), "a": st.floats(-1.0, 2.0), "bid": st.floats(0.05, 20.0)}


def likelihood_of(y: MarketPriceObservations) -> CensoredLikelihood:
    return CensoredLikelihood(y, reference_log_bid_cpm=REFERENCE, family=NORMAL)


def nll(row: tuple[float, float, float], beta: float, a: float) -> float:
    """`beta` in units of the slope, so that every slope is tried where neither side is certain."""
    return float(likelihood_of(observed(row)).nll(np.array([beta * np.exp(-a)]), np.array([a]))[0])


def random_rows(seed: int, sd_beta: float, sd_a: float) -> tuple[MarketPriceObservations, Doubles, Doubles]:
    """Every kind of row, weighted, with heads (β, a)."""
    rng = np.random.default_rng(seed)
    y = observed(*WIDE * 40)
    weight = rng.uniform(0.5, 3.0, len(y))
    y = MarketPriceObservations(y.lower_cpm, y.upper_cpm, y.truncation_cpm, y.bid_cpm, y.won, weight)
    return y, rng.normal(0.0, sd_beta, len(y)), rng.normal(0.5, sd_a, len(y))


@given(**parameters, width=st.floats(1.05, 5.0))
def test_every_kind_of_row_has_scipy_s_probability(beta: float, a: float, bid: float, width: float) -> None:
    """Win, loss, interval, exact price, and each given a price above a floor."""
    k = np.exp(a)
    log_price = stats.norm(loc=REFERENCE - beta / k, scale=1.0 / k)
    low, high, r = np.log(bid), np.log(bid * width), np.log(0.7 * bid)
    above = log_price.logsf(r)
    for row, wanted in (
        ((0.0, bid, 0.0), log_price.logcdf(low)),
        ((bid, np.inf, 0.0), log_price.logsf(low)),
        ((bid, bid, 0.0), log_price.logpdf(low) - low),
        ((bid, np.inf, 0.7 * bid), log_price.logsf(low) - above),
        ((bid, bid, 0.7 * bid), log_price.logpdf(low) - low - above),
    ):
        assert nll(row, beta, a) == pytest.approx(-wanted, rel=1e-9, abs=1e-9)
    mass = np.exp(-nll((bid, bid * width, 0.0), beta, a))
    by_scipy = (
        log_price.cdf(high) - log_price.cdf(low)
        if low < log_price.mean()
        else log_price.sf(low) - log_price.sf(high)
    )
    assert mass == pytest.approx(by_scipy, rel=1e-9, abs=1e-300)


@given(**parameters)
def test_win_and_loss_are_complementary(beta: float, a: float, bid: float) -> None:
    """P(M ≤ b) + P(M > b) = 1."""
    total = np.exp(-nll((0.0, bid, 0.0), beta, a)) + np.exp(-nll((bid, np.inf, 0.0), beta, a))
    assert total == pytest.approx(1.0, abs=1e-12)


@given(**parameters)
def test_a_narrow_interval_is_an_exact_price(beta: float, a: float, bid: float) -> None:
    """P(p − t < M ≤ p) → t f(p), in value, gradient and curvature."""
    tick = 1e-7 * bid
    narrow, exact = (bid - tick, bid, 0.0), (bid, bid, 0.0)
    assert nll(narrow, beta, a) == pytest.approx(nll(exact, beta, a) - np.log(tick), abs=1e-4)
    b, a_ = np.array([beta * np.exp(-a)]), np.array([a])
    of_narrow, of_exact = (likelihood_of(observed(row)).derivatives(b, a_) for row in (narrow, exact))
    for have, want in zip(of_narrow, of_exact, strict=True):
        assert have[0] == pytest.approx(want[0], rel=1e-4, abs=1e-4)


@given(middle=st.floats(-30.0, 30.0))
def test_narrow_and_wide_intervals_meet(middle: float) -> None:
    """At the width where the density's series hands over to the difference of Φ, nothing jumps."""
    at, width = np.array([middle]), np.array([1e-2 / max(abs(middle), 1.0)])
    narrow, wide = 0.999 * width, 1.001 * width
    per_width = nll_between(at, narrow) + np.log(narrow), nll_between(at, wide) + np.log(wide)
    assert per_width[0] == pytest.approx(per_width[1], abs=1e-6)
    for have, want in zip(moves_between(at, narrow), moves_between(at, wide), strict=True):
        assert have[0] == pytest.approx(want[0], rel=1e-3, abs=1e-4)


@given(seed=st.integers(0, 10_000), sd_beta=st.floats(0.1, 2.5), sd_a=st.floats(0.1, 0.8))
def test_gradients_are_those_of_finite_differences(seed: int, sd_beta: float, sd_a: float) -> None:
    """In β and a."""
    y, beta, a = random_rows(seed, sd_beta, sd_a)
    likelihood = likelihood_of(y)
    d = likelihood.derivatives(beta, a)
    h = 1e-6
    for found, db, da in ((d.gradient_location, h, 0.0), (d.gradient_slope, 0.0, h)):
        numeric = (
            y.weight * (likelihood.nll(beta + db, a + da) - likelihood.nll(beta - db, a - da)) / (2.0 * h)
        )
        np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-5)


def test_the_curvature_in_location_is_that_of_finite_differences() -> None:
    """Exact, but where it is held positive."""
    y, beta, a = random_rows(3, 1.0, 0.4)
    likelihood = likelihood_of(y)
    h = 1e-6
    up, down = (likelihood.derivatives(beta + step, a).gradient_location for step in (h, -h))
    found = likelihood.derivatives(beta, a).hessian_location
    np.testing.assert_allclose(found, np.maximum((up - down) / (2.0 * h), 0.0), rtol=1e-4, atol=1e-4)


def test_curvatures_in_slope_are_positive_and_right_on_average() -> None:
    """Of exact prices their mean is the information on ln scale, 2."""
    rng = np.random.default_rng(4)
    price = np.exp(0.3 + rng.normal(size=100_000) / 1.7)
    n = np.ones(len(price))
    y = MarketPriceObservations(price, price, 0.0 * n, price, n == 1.0, n)
    d = likelihood_of(y).derivatives((REFERENCE - 0.3) * n, np.log(1.7) * n)
    assert d.hessian_slope.mean() == pytest.approx(2.0, rel=0.02)
    assert d.gradient_slope.mean() == pytest.approx(0.0, abs=0.02)
    assert d.cross.mean() == pytest.approx(0.0, abs=0.02)
    y, beta, a = random_rows(5, 3.0, 1.0)
    assert np.all(likelihood_of(y).derivatives(beta, a).hessian_slope > 0.0)


def test_far_tails_stay_finite_and_true() -> None:
    """η from −3,000 to 3,000: no NaN, no infinity, and a sure outcome costs nothing."""
    y = observed(*WIDE * 9)
    beta = np.repeat([-60.0, -20.0, -5.0, -1.0, 0.0, 1.0, 5.0, 20.0, 60.0], len(WIDE))
    for log_slope in (-3.0, 0.0, 2.0, 4.0):
        a = np.full(len(y), log_slope)
        likelihood = likelihood_of(y)
        for numbers in (likelihood.nll(beta, a), *likelihood.derivatives(beta, a)):
            assert np.isfinite(numbers).all()
    sure = likelihood_of(observed((0.0, 1.7, 0.0))).nll(np.array([60.0]), np.array([2.0]))
    assert sure[0] == 0.0


@pytest.mark.parametrize("block_rows", [1, 7, 10**6])
def test_blocks_and_the_short_form_change_no_bit(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row gets what it gets alone; and in β the whole derivatives'."""
    y, beta, a = random_rows(2, 2.0, 0.8)

    def found() -> tuple[Doubles, ...]:
        likelihood = likelihood_of(y)
        whole, short = likelihood.derivatives(beta, a), likelihood.location_derivatives(beta, a)
        np.testing.assert_array_equal(short[0], whole.gradient_location)
        np.testing.assert_array_equal(short[1], whole.hessian_location)
        return (likelihood.nll(beta, a), *whole)

    wanted = found()
    monkeypatch.setattr(censored, "_BLOCK_ROWS", block_rows)
    for have, want in zip(found(), wanted, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-14)  # NumPy's vector loops differ by rows' places


def test_the_likelihood_is_the_curve_s() -> None:
    """Two independent spellings agree; with γ it is that of SciPy's power-normal law."""
    y, beta, a = random_rows(6, 1.0, 0.4)
    found = likelihood_of(y).nll(beta, a)
    k = np.exp(a)
    np.testing.assert_allclose(found, curve_nll(y, REFERENCE - beta, k, 1.0, NORMAL), rtol=1e-7, atol=1e-7)
    exact = observed((1.4, 1.4, 0.0), (0.0, 1.4, 0.0), (1.4, np.inf, 0.0))
    n = np.ones(3)
    z, gamma = 2.5 * (np.log(1.4) - 0.3), 1.7
    density = gamma * stats.norm.cdf(z) ** (gamma - 1.0) * stats.norm.pdf(z) * 2.5 / 1.4
    win = stats.norm.cdf(z) ** gamma
    wanted = -np.log([density, win, 1.0 - win])
    np.testing.assert_allclose(curve_nll(exact, 0.3 * n, 2.5 * n, gamma, NORMAL), wanted, rtol=1e-12)


@pytest.mark.parametrize("kind", ["closed", "exact", "mixed"])
def test_the_global_curve_is_the_maximum(kind: str) -> None:
    """Against SciPy on the same objective; the truth is near."""
    rng = np.random.default_rng(2)
    price, bid = np.exp(0.5 + rng.normal(size=2000) / 1.8), np.exp(rng.normal(0.4, 0.8, 2000))
    lower, upper = np.where(bid < price, bid, 0.0), np.where(bid < price, np.inf, bid)
    if kind != "closed":
        told = np.arange(2000) % (1 if kind == "exact" else 3) == 0
        lower[told] = upper[told] = price[told]
    n = np.ones(2000)
    likelihood = likelihood_of(MarketPriceObservations(lower, upper, 0.0 * n, bid, bid >= price, n))

    def objective(theta: Doubles) -> float:
        return float(
            likelihood.nll(theta[0] * n, theta[1] * n).sum() + 0.5 * (theta[1] - PRIOR_LOG_SLOPE) ** 2
        )

    best = optimize.minimize(objective, [0.0, 0.0])
    found = global_curve(likelihood)
    np.testing.assert_allclose(found, best.x, atol=2e-4)
    assert REFERENCE - found[0] == pytest.approx(0.5, abs=0.1)
    assert found[1] == pytest.approx(np.log(1.8), abs=0.1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_a_bent_shape_is_found(gamma: float) -> None:
    """Prices of Φ(z)^γ, heads that are right: the held-out numbers find γ."""
    rng = np.random.default_rng(1)
    n = np.ones(20_000)
    price = np.exp(0.2 + stats.norm.ppf(rng.random(20_000) ** (1.0 / gamma)) / 2.0)
    y = MarketPriceObservations(price, price, 0.0 * n, price, n == 1.0, n)
    found = fit_dagum(y, -0.2 * n, np.log(2.0) * n, reference_log_bid_cpm=0.0, family=NORMAL)
    assert found.gamma == pytest.approx(gamma, rel=0.25)
    before = curve_nll(y, 0.2 * n, 2.0 * n, 1.0, NORMAL).mean()
    after = curve_nll(
        y,
        0.2 * n - found.logit_shift / (found.slope_scale * 2.0),
        found.slope_scale * 2.0 * n,
        found.gamma,
        NORMAL,
    ).mean()
    assert after <= before
