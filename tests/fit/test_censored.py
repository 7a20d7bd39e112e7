"""The unified likelihood: its identities, and its derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from bidml.contract import MAX_LOG_SLOPE, MIN_LOG_SLOPE
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations, censored
from bidml.fit.censored import PRIOR_LOG_SLOPE, CensoredLikelihood, global_curve
from bidml.fit.dagum import curve_nll

REFERENCE = 0.4
parameters = {
    "beta": st.floats(-4.0, 4.0),
    "a": st.floats(-1.0, 2.0),
    "bid": st.floats(0.05, 20.0),
}


def observed(*rows: tuple[float, float, float]) -> MarketPriceObservations:
    """(lower, upper, truncation) each."""
    lower, upper, below = np.array(rows).T
    n = len(rows)
    return MarketPriceObservations(lower, upper, below, np.ones(n), np.ones(n, dtype=bool), np.ones(n))


def nll(row: tuple[float, float, float], beta: float, a: float) -> float:
    """`beta` in log-odds of the reference bid here, so that every slope is tried where neither side is certain."""
    likelihood = CensoredLikelihood(observed(row), reference_log_bid_cpm=REFERENCE)
    return float(likelihood.nll(np.array([beta * np.exp(-a)]), np.array([a]))[0])


@given(**parameters)
def test_an_exact_price_is_a_win_a_loss_and_a_jacobian(beta: float, a: float, bid: float) -> None:
    """f(M) = F(M) (1 − F(M)) k / M."""
    parts = nll((0.0, bid, 0.0), beta, a) + nll((bid, np.inf, 0.0), beta, a) - a + np.log(bid)
    assert nll((bid, bid, 0.0), beta, a) == pytest.approx(parts, abs=1e-12)
    k = np.exp(a)
    distribution = stats.logistic(loc=REFERENCE - beta / k, scale=1.0 / k)
    assert nll((bid, bid, 0.0), beta, a) == pytest.approx(
        -distribution.logpdf(np.log(bid)) + np.log(bid), abs=1e-9
    )


@given(**parameters)
def test_win_and_loss_are_complementary(beta: float, a: float, bid: float) -> None:
    """P(M ≤ b) + P(M > b) = 1."""
    total = np.exp(-nll((0.0, bid, 0.0), beta, a)) + np.exp(-nll((bid, np.inf, 0.0), beta, a))
    assert total == pytest.approx(1.0, abs=1e-12)


@given(**parameters, width=st.floats(1.01, 5.0))
def test_an_interval_is_a_difference_of_wins(beta: float, a: float, bid: float, width: float) -> None:
    """P(l < M ≤ u) = F(u) − F(l)."""
    difference = np.exp(-nll((0.0, bid * width, 0.0), beta, a)) - np.exp(-nll((0.0, bid, 0.0), beta, a))
    assert np.exp(-nll((bid, bid * width, 0.0), beta, a)) == pytest.approx(difference, rel=1e-9, abs=1e-12)


@given(**parameters)
def test_a_narrow_interval_is_an_exact_price(beta: float, a: float, bid: float) -> None:
    """P(p − t < M ≤ p) → t f(p)."""
    tick = 1e-6 * bid
    assert nll((bid - tick, bid, 0.0), beta, a) == pytest.approx(
        nll((bid, bid, 0.0), beta, a) - np.log(tick), abs=1e-4
    )


@given(**parameters, depth=st.floats(0.05, 0.95))
def test_truncation_conditions_on_prices_above(beta: float, a: float, bid: float, depth: float) -> None:
    """A win says (F(b) − F(r)) / (1 − F(r)), a loss (1 − F(b)) / (1 − F(r)): they add to 1 again."""
    r = depth * bid
    below = np.exp(-nll((0.0, r, 0.0), beta, a))
    win, loss = np.exp(-nll((r, bid, r), beta, a)), np.exp(-nll((bid, np.inf, r), beta, a))
    assert loss == pytest.approx(np.exp(-nll((bid, np.inf, 0.0), beta, a)) / (1.0 - below), rel=1e-9)
    assert win + loss == pytest.approx(1.0, abs=1e-9)


ROWS = [
    (0.0, 1.7, 0.0),  # win
    (0.6, np.inf, 0.0),  # loss
    (2.2, 2.2, 0.0),  # exact
    (0.9, 1.4, 0.0),  # interval
    (1.0, 1.000001, 0.0),  # an interval as narrow as a price
    (0.3, 1.7, 0.3),  # truncated win
    (2.5, np.inf, 0.8),  # truncated loss
    (1.1, 1.1, 0.5),  # truncated price
    (0.9, 1.4, 0.4),  # truncated interval
    (0.0, np.inf, 0.0),  # nothing
]


def test_gradients_are_those_of_finite_differences() -> None:
    """In β and a, every kind of row, weighted."""
    y = observed(*ROWS * 6)
    rng = np.random.default_rng(0)
    y = MarketPriceObservations(
        y.lower_cpm, y.upper_cpm, y.truncation_cpm, y.bid_cpm, y.won, rng.uniform(0.5, 3.0, len(y))
    )
    likelihood = CensoredLikelihood(y, reference_log_bid_cpm=REFERENCE)
    beta, a = rng.normal(0.0, 1.5, len(y)), rng.normal(0.5, 0.6, len(y))
    d = likelihood.derivatives(beta, a)
    h = 1e-6
    for found, db, da in ((d.gradient_location, h, 0.0), (d.gradient_slope, 0.0, h)):
        numeric = (
            y.weight * (likelihood.nll(beta + db, a + da) - likelihood.nll(beta - db, a - da)) / (2.0 * h)
        )
        np.testing.assert_allclose(found, numeric, atol=2e-7)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 10**6])
def test_blocks_and_the_short_form_change_no_bit(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row gets what it gets alone, whatever rows stand beside it; and in β the whole derivatives'."""
    y = observed(*ROWS * 40)
    rng = np.random.default_rng(2)
    beta, a = rng.normal(0.0, 3.0, len(y)), rng.normal(0.5, 1.0, len(y))

    def found() -> tuple[Doubles, ...]:
        likelihood = CensoredLikelihood(y, reference_log_bid_cpm=REFERENCE)
        return (
            likelihood.nll(beta, a),
            *likelihood.derivatives(beta, a),
            *likelihood.location_derivatives(beta, a),
        )

    wanted = found()
    monkeypatch.setattr(censored, "_BLOCK_ROWS", block_rows)
    assert all(np.array_equal(have, want) for have, want in zip(found(), wanted, strict=True))
    assert np.array_equal(wanted[1], wanted[-2])
    assert np.array_equal(wanted[2], wanted[-1])


def test_curvature_is_exact_in_the_location_and_positive() -> None:
    """Against differences of the gradient where no truncation bends it; the floor elsewhere."""
    y = observed(*ROWS[:5] * 6)
    likelihood = CensoredLikelihood(y, reference_log_bid_cpm=REFERENCE)
    rng = np.random.default_rng(1)
    beta, a = rng.normal(0.0, 1.5, len(y)), rng.normal(0.5, 0.6, len(y))
    h = 1e-5

    def gradients(db: float, da: float) -> tuple[Doubles, Doubles]:
        d = likelihood.derivatives(beta + db, a + da)
        return d.gradient_location, d.gradient_slope

    d = likelihood.derivatives(beta, a)
    numeric = (gradients(h, 0.0)[0] - gradients(-h, 0.0)[0]) / (2.0 * h)
    np.testing.assert_allclose(d.hessian_location, np.maximum(numeric, 1e-6), atol=1e-8)
    everything = CensoredLikelihood(observed(*ROWS * 6), reference_log_bid_cpm=REFERENCE)
    beta, a = rng.normal(0.0, 3.0, 60), rng.normal(0.5, 1.0, 60)
    d = everything.derivatives(beta, a)
    assert (d.hessian_location > 0.0).all()
    assert (d.hessian_slope > 0.0).all()


def test_the_curve_likelihood_agrees_with_the_boosters() -> None:
    """F(b) = σ(k (ln b − m)) written either way; and γ ≠ 1 against SciPy's Burr III."""
    y = observed(*ROWS)
    beta, a = np.linspace(-2.0, 2.0, len(y)), np.linspace(-0.5, 1.5, len(y))
    k = np.exp(a)
    expected = CensoredLikelihood(y, reference_log_bid_cpm=REFERENCE).nll(beta, a)
    found = curve_nll(y, REFERENCE - beta, k, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    burr = stats.burr(c=2.5, d=1.7, scale=np.exp(0.3))
    rows = np.full(len(y), 0.3), np.full(len(y), 2.5)
    below = y.truncation_cpm
    mass = np.where(y.exact, burr.pdf(y.upper_cpm), burr.cdf(y.upper_cpm) - burr.cdf(y.lower_cpm)) / burr.sf(
        below
    )
    np.testing.assert_allclose(np.exp(-curve_nll(y, *rows, 1.7)), mass, rtol=1e-6)


@pytest.mark.parametrize("kind", ["closed", "exact", "mixed"])
def test_the_global_curve_is_the_maximum(kind: str) -> None:
    """Against SciPy on the same objective."""
    rng = np.random.default_rng(2)
    price, bid = np.exp(0.5 + rng.logistic(size=2000) / 1.8), np.exp(rng.normal(0.4, 0.8, 2000))
    lower, upper = np.where(bid < price, bid, 0.0), np.where(bid < price, np.inf, bid)
    if kind != "closed":
        told = np.arange(2000) % (1 if kind == "exact" else 3) == 0
        lower[told] = upper[told] = price[told]
    n = np.ones(2000)
    y = MarketPriceObservations(lower, upper, 0.0 * n, bid, bid >= price, n)
    likelihood = CensoredLikelihood(y, reference_log_bid_cpm=REFERENCE)

    def objective(theta: Doubles) -> float:
        return float(
            likelihood.nll(theta[0] * n, theta[1] * n).sum() + 0.5 * (theta[1] - PRIOR_LOG_SLOPE) ** 2
        )

    best = optimize.minimize(objective, [0.0, 0.0])
    np.testing.assert_allclose(global_curve(likelihood), best.x, atol=2e-4)
    assert abs(global_curve(likelihood)[1] - np.log(1.8)) < 0.1


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_separable_outcomes_stay_finite(sign: float) -> None:
    """All bids above some price win, all below lose; or, absurdly, the other way round."""
    bid = np.exp(np.linspace(-1.0, 1.0, 400))
    won = sign * np.log(bid) > 0.0
    n = np.ones(400)
    y = MarketPriceObservations(np.where(won, 0.0, bid), np.where(won, bid, np.inf), 0.0 * n, bid, won, n)
    b, a = global_curve(CensoredLikelihood(y, reference_log_bid_cpm=0.0))
    assert abs(b) < 20.0
    assert MIN_LOG_SLOPE <= a <= MAX_LOG_SLOPE
    assert (a > 2.0) == (sign > 0.0)
