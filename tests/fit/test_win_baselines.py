"""The baselines are what they claim to be: textbook estimators in the interface of the win model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from bidml.blueprint import Blueprint
from bidml.errors import ConfigError, DataError
from bidml.export import write_artifact
from bidml.features import Doubles
from bidml.fit import MarketPriceObservations
from bidml.fit.win_baselines import EmpiricalWinRate, LogisticWinRate, MonotoneWinRate, grid_bid_cpm
from bidml.pricing import optimal_bid_cpm
from tests.fit.win_world import SPEC, World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(6_000, seed=11)


def closed(world: World) -> MarketPriceObservations:
    return MarketPriceObservations.from_log(world.log())


def test_kaplan_meier_is_the_product_limit() -> None:
    """Six rows by hand, four times: S = Π (1 − d/n) at the prices; a loss leaves after the price it ties with."""
    price = np.array([1.0, 2.0, 2.0, np.inf, 3.0, np.inf] * 4)
    bid = np.array([5.0, 5.0, 5.0, 2.0, 5.0, 4.0] * 4)
    seen = np.minimum(price, bid)
    won = price <= bid
    n = np.ones(24)
    y = MarketPriceObservations(seen, np.where(won, seen, np.inf), 0.0 * n, bid, won, n)
    X = pd.DataFrame({name: ["a"] * 24 for name in ("site", "geo", "device")} | {"hour": n, "viewability": n})
    model = EmpiricalWinRate(SPEC).fit(X, y)
    survival = [1.0, 5 / 6, 5 / 6 * 3 / 5, 5 / 6 * 3 / 5 * 1 / 2]
    rates = model.predict_win_rate(X.head(5), np.array([0.5, 1.0, 2.5, 3.0, 100.0]))
    np.testing.assert_allclose(rates, 1.0 - np.array([*survival, survival[-1]]))


def test_kaplan_meier_without_censoring_is_the_empirical_distribution(world: World) -> None:
    """Exact prices everywhere."""
    y = MarketPriceObservations.from_log(world.log("both"))
    model = EmpiricalWinRate(SPEC).fit(world.X, y)
    for bid in (0.5, 1.5, 4.0):
        expected = (world.market_price_cpm <= bid).mean()
        assert model.predict_win_rate(world.X.head(1), bid)[0] == pytest.approx(expected, abs=1e-12)


def test_closed_logs_give_the_isotonic_likelihood_maximum(world: World) -> None:
    """No step function that rises has a greater likelihood: random perturbations, made monotone, lose."""
    y = closed(world)
    model = EmpiricalWinRate(SPEC).fit(world.X, y)
    order = np.argsort(world.bid_cpm)
    won = y.won[order]
    best = np.clip(model.predict_win_rate(world.X, world.bid_cpm)[order], 1e-12, 1.0 - 1e-12)

    def likelihood(rates: Doubles) -> float:
        return float(np.where(won, np.log(rates), np.log1p(-rates)).sum())

    rng = np.random.default_rng(0)
    for scale in (0.003, 0.03):
        other = np.maximum.accumulate(np.clip(best + scale * rng.normal(size=len(best)), 1e-12, 1.0 - 1e-12))
        assert likelihood(other) < likelihood(best)


def test_segments_have_their_own_function(world: World) -> None:
    """A frequent value differs from all, a rare or unseen one does not; rates rise with the bid."""
    model = EmpiricalWinRate(SPEC, segment="site", min_rows=300).fit(world.X, closed(world))
    counts = world.X["site"].value_counts()
    X = pd.DataFrame({"site": [counts.index[0], counts.index[-1], "unseen.example"]})
    bids = np.linspace(0.5, 4.0, 8)
    rates = np.array([model.predict_win_rate(X, bid) for bid in bids])
    everything = EmpiricalWinRate(SPEC).fit(world.X, closed(world))
    overall = np.array([everything.predict_win_rate(X, bid)[0] for bid in bids])
    assert np.abs(rates[:, 0] - overall).max() > 0.02
    np.testing.assert_array_equal(rates[:, 1], overall)
    np.testing.assert_array_equal(rates[:, 2], overall)
    assert (np.diff(rates, axis=0) >= 0.0).all()
    with pytest.raises(ConfigError, match="segment"):
        EmpiricalWinRate(SPEC, segment="hour").fit(world.X, closed(world))


def test_logistic_regression_exports_and_earns(world: World, tmp_path: Path) -> None:
    """Certified as an artifact; far better than one curve for all, from wins and losses alone."""
    model = LogisticWinRate(SPEC).fit(world.X, MarketPriceObservations.from_log(world.log("both")))
    np.testing.assert_array_equal(
        model.predict_curve(world.X).shape,
        LogisticWinRate(SPEC).fit(world.X, closed(world)).predict_curve(world.X).shape,
    )
    write_artifact(
        Blueprint(spec=SPEC, ctr=None, win=model.to_blueprint(), currency="USD"), tmp_path / "logistic.onnx"
    )
    test = make_world(10_000, seed=12)
    assert test.surplus_of_oracle(model.predict_curve(test.X))[0] > 0.93
    assert clone(model).get_params() == model.get_params()


def test_the_monotone_classifier_rises_with_the_bid(world: World) -> None:
    """For every auction, and it follows the truth."""
    model = MonotoneWinRate(SPEC, n_trees=60, n_jobs=1).fit(world.X, closed(world))
    X = world.X.head(300)
    rates = np.array([model.predict_win_rate(X, bid) for bid in np.geomspace(0.1, 20.0, 15)])
    assert (np.diff(rates, axis=0) >= 0.0).all()
    true = world.truth.win_rate(world.bid_cpm)
    error = model.predict_win_rate(world.X, world.bid_cpm) - true
    assert np.sqrt((error**2).mean()) < 0.55 * true.std()


def test_the_grid_finds_the_closed_form_bid(world: World) -> None:
    """Nearly the surplus of the exact optimum; the same rules for floors, caps and no bid."""
    X, value = world.X.head(400), world.value_cpm[:400].copy()
    model = LogisticWinRate(SPEC).fit(world.X, closed(world))
    curve = model.predict_curve(X)
    floor = np.where(np.arange(400) % 3 == 0, 1.2, 0.0)
    cap = np.where(np.arange(400) % 5 == 0, 1.5, np.inf)
    exact = optimal_bid_cpm(value, curve, floor_cpm=floor, cap_cpm=cap)
    grid = grid_bid_cpm(model, X, value, floor_cpm=floor, cap_cpm=cap)
    np.testing.assert_array_equal(grid == 0.0, exact == 0.0)
    assert ((grid >= floor) & (grid <= np.minimum(cap, value)))[grid > 0.0].all()

    def surplus(bid: Doubles) -> Doubles:
        return (value - bid) * curve.win_rate(bid)

    assert (surplus(grid) >= 0.998 * surplus(exact)).all()
    assert (surplus(grid) <= surplus(exact) * (1.0 + 1e-12)).all()


@pytest.mark.parametrize("model", [EmpiricalWinRate(SPEC), LogisticWinRate(SPEC), MonotoneWinRate(SPEC)])
def test_baselines_refuse_what_teaches_nothing(world: World, model: LogisticWinRate) -> None:
    """All won, and too few rows."""
    log = world.log().assign(won=True)
    with pytest.raises(DataError, match="above something"):
        model.fit(world.X, MarketPriceObservations.from_log(log))
    with pytest.raises(DataError, match="20 auctions"):
        model.fit(world.X.head(5), MarketPriceObservations.from_log(world.log().head(5)))
