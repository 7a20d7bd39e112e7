"""The truth of a simulation is the law of its outcomes, and its oracle cannot be beaten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import expit

from bidml.pricing import value_cpm
from bidml.simulate import Feedback, Market, Simulation, one_exchange, simulate
from bidml.simulate.truth import Truth

SHAPES = ["log_logistic", "log_normal", "gumbel", "mixture", "empirical"]
HISTOGRAMS = "ipinyou_price_histograms_9campaigns.csv.gz"
N_SIGMA = 5.0


@pytest.fixture(scope="module", params=SHAPES)
def simulation(request: pytest.FixtureRequest, shared_data: Path) -> Simulation:
    """Exchanges of every kind, for each shape of the price."""
    market = Market(shape=request.param, histograms=shared_data / HISTOGRAMS)
    return simulate(15_000, rng=np.random.default_rng(21), market=market)


@pytest.fixture(scope="module")
def explored() -> Simulation:
    market = Market(exploration=0.3, exploration_sigma=0.5, bid_noise=0.2)
    return simulate(150_000, rng=np.random.default_rng(22), market=market)


def values_of(simulation: Simulation) -> np.ndarray:
    return value_cpm(simulation.truth.pctr, simulation.log["value_per_click"].to_numpy())


def assert_calibrated(outcome: np.ndarray, probability: np.ndarray, groups: np.ndarray) -> None:
    """Outcomes of every group are as many as expected, within `N_SIGMA` binomial errors."""
    for group in np.unique(groups):
        here = groups == group
        expected = probability[here].sum()
        error = np.sqrt((probability[here] * (1.0 - probability[here])).sum())
        assert abs(outcome[here].sum() - expected) < N_SIGMA * error + 1e-9, (group, expected, error)


def deciles(numbers: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(numbers, np.linspace(0.1, 0.9, 9)), numbers)


def test_random_bids_win_as_often_as_the_win_rate_says(simulation):
    rng = np.random.default_rng(1)
    bid = np.exp(simulation.truth.location + rng.normal(0.0, 0.6, len(simulation)))
    rate = simulation.truth.win_rate(bid)
    wins = bid >= simulation.truth.market_price_cpm
    assert_calibrated(wins, rate, deciles(rate))
    for name in ("country", "exchange", "banner_size", "hour_of_day"):
        assert_calibrated(wins, rate, simulation.log[name].to_numpy())
    assert 0.2 < wins.mean() < 0.6


def test_logged_bids_win_as_the_market_says_though_they_are_confounded(simulation):
    log, truth = simulation.log, simulation.truth
    rate = truth.win_rate(log["bid_cpm"].to_numpy()) * (1.0 - truth.non_price_losses)
    assert_calibrated(log["won"].to_numpy(), rate, deciles(rate))
    assert 0.2 < log["won"].mean() < 0.5
    assert np.corrcoef(np.log(log["bid_cpm"]), truth.location)[0, 1] > 0.2


@pytest.mark.parametrize("base_ctr", [0.002, 0.01, 0.08])
def test_clicks_are_calibrated_at_every_base_rate(base_ctr):
    simulation = simulate(60_000, rng=np.random.default_rng(23), market=Market(base_ctr=base_ctr))
    log, pctr = simulation.log, simulation.truth.pctr
    shown = log["won"].to_numpy()
    assert pctr.mean() == pytest.approx(base_ctr, rel=0.05)
    assert_calibrated(log["clicked"].to_numpy()[shown], pctr[shown], deciles(pctr[shown]))
    assert_calibrated(log["clicked"].to_numpy()[shown], pctr[shown], log["os"].to_numpy()[shown])
    assert values_of(simulation).mean() == pytest.approx(2.5, rel=0.4)


def test_the_expected_surplus_is_the_mean_of_the_realised(simulation):
    truth, value = simulation.truth, values_of(simulation)
    bid = np.maximum(0.8 * value, truth.floor_cpm)
    won = bid >= truth.market_price_cpm
    price = np.where(truth.auction_type == 2, truth.market_price_cpm, bid)
    realised = (value - price) * won
    expected = truth.expected_surplus_cpm(value, bid)
    for kind in (1, 2):
        here = truth.auction_type == kind
        error = (realised - expected)[here].std() / np.sqrt(here.sum())
        assert abs((realised - expected)[here].mean()) < N_SIGMA * error


def test_no_shading_of_the_value_beats_the_oracle(simulation):
    truth, value = simulation.truth, values_of(simulation)
    oracle = truth.oracle_surplus_cpm(value)
    bid = truth.optimal_bid_cpm(value)
    assert np.all((bid == 0.0) | ((bid >= truth.floor_cpm) & (bid <= value)))
    assert np.array_equal(bid > 0.0, value > truth.floor_cpm)
    for shade in np.concatenate([np.linspace(0.02, 1.0, 25), [0.97, 1.03, 1.1]]):
        other = truth.expected_surplus_cpm(value, np.maximum(shade * value, truth.floor_cpm))
        assert np.all(other <= oracle + 1e-7 * value), shade


def test_the_oracle_respects_the_cap_and_ignores_nonsense(simulation):
    truth, value = simulation.truth, values_of(simulation)
    bid = truth.optimal_bid_cpm(value, cap_cpm=1.0)
    assert bid.max() <= 1.0
    assert np.all(bid[truth.floor_cpm > 1.0] == 0.0)
    for nonsense in (0.0, -1.0, np.nan, np.inf):
        assert not truth.optimal_bid_cpm(nonsense).any()


def test_the_search_finds_the_closed_form():
    simulation = simulate(3_000, rng=np.random.default_rng(24), market=Market(exchanges=one_exchange()))
    truth, value = simulation.truth, values_of(simulation)
    closed = truth.optimal_bid_cpm(value)
    bidding = closed > 0.0
    found = truth[bidding]._searched_bid_cpm(value[bidding], value[bidding])
    np.testing.assert_allclose(found, closed[bidding], rtol=2e-3)
    earned = truth[bidding].expected_surplus_cpm(value[bidding], found)
    np.testing.assert_allclose(earned, truth[bidding].oracle_surplus_cpm(value[bidding]), rtol=1e-6)


def test_second_price_surplus_is_the_integral_and_truth_telling_is_best():
    market = Market(exchanges=one_exchange(Feedback.CLEARING, 2))
    simulation = simulate(3_000, rng=np.random.default_rng(25), market=market)
    truth, value = simulation.truth, values_of(simulation)
    told = truth.expected_surplus_cpm(value, np.where(value > truth.floor_cpm, value, 0.0))
    np.testing.assert_array_equal(truth.optimal_bid_cpm(value), np.where(value > truth.floor_cpm, value, 0.0))
    for factor in (0.7, 0.95, 1.05, 1.5):
        bid = np.maximum(factor * value, truth.floor_cpm)
        assert np.all(truth.expected_surplus_cpm(value, bid) <= told + 1e-7 * value)
    for row in range(20):
        m, s, v, r = truth.location[row], truth.scale[row], value[row], truth.floor_cpm[row]
        if v > r:
            integral, _ = quad(
                lambda z, m=m, s=s: expit((np.log(z) - m) / s) if z > 0.0 else 0.0, r, v, limit=200
            )
            assert told[row] == pytest.approx(integral, rel=1e-6)


def test_density_is_the_slope_of_the_win_rate():
    for shape in SHAPES[:-1]:
        truth = simulate(
            500, rng=np.random.default_rng(26), market=Market(shape=shape, floor_share=0.0)
        ).truth
        bid = np.exp(truth.location) * np.linspace(0.5, 2.0, len(truth))
        step = 1e-6 * bid
        slope = (truth.win_rate(bid + step) - truth.win_rate(bid - step)) / (2.0 * step)
        np.testing.assert_allclose(truth.density(bid), slope, rtol=1e-5, atol=1e-9)


def test_propensity_is_the_density_of_the_logged_bid(explored):
    """Reweighting the log to a policy with a density of its own integrates to 1, floors included."""
    log, truth = explored.log, explored.truth
    ln_bid = np.log(log["bid_cpm"].to_numpy())
    with np.errstate(divide="ignore"):
        lowest = np.log(np.maximum(truth.floor_cpm, 0.8 * values_of(explored)))
    for width in (0.2, 0.6):
        target = np.where((ln_bid >= lowest) & (ln_bid < lowest + width), 1.0 / width, 0.0)
        weights = target / log["propensity"].to_numpy()
        error = weights.std() / np.sqrt(len(weights))
        assert error < 0.05
        assert abs(weights.mean() - 1.0) < N_SIGMA * error


def test_without_noise_only_the_explored_share_has_a_propensity():
    market = Market(exploration=0.1, bid_noise=0.0)
    log = simulate(20_000, rng=np.random.default_rng(27), market=market).log
    assert log["propensity"].notna().mean() == pytest.approx(0.1, abs=0.01)
    assert simulate(100, rng=np.random.default_rng(1)).log["propensity"].isna().all()


def test_drift_moves_the_price():
    market = Market(price_drift_per_day=0.1)
    simulation = simulate(40_000, rng=np.random.default_rng(28), market=market)
    day = (simulation.log["timestamp"] - market.start).dt.total_seconds() / 86_400.0
    slope = np.polyfit(day, np.log(simulation.truth.market_price_cpm), 1)[0]
    assert slope == pytest.approx(0.1, abs=0.02)


def test_a_part_of_the_truth_is_the_truth_of_the_part(explored):
    rows = np.array([5, 3, 1000])
    part: Truth = explored[rows].truth
    np.testing.assert_array_equal(part.win_rate(1.0), explored.truth.win_rate(1.0)[rows])
    np.testing.assert_array_equal(explored[rows].log["true_pctr"], part.pctr)
