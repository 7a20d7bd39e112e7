"""Where prices are log-normal, the log-normal curve is the truer one; and it goes the whole way to the artifact."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from bidml.blueprint import Blueprint, WinFamily
from bidml.export import write_artifact
from bidml.features import raw_columns
from bidml.fit import MarketPriceObservations, WinRateModel
from bidml.fit.dagum import curve_nll
from bidml.fit.refresh import refresh_win_curve
from bidml.pricing import WinCurve, optimal_bid_cpm, value_cpm
from bidml.score import Scorer
from bidml.simulate import Feedback, Market, Shape, Simulation, draw_world, one_exchange

QUICK = {"n_jobs": 1, "n_location_trees": 30, "location_learning_rate": 0.25, "n_slope_trees": 15}


@pytest.fixture(scope="module")
def market() -> tuple[Simulation, Simulation]:
    """A closed first-price log to learn from, and auctions to judge by."""
    rng = np.random.default_rng(11)
    world = draw_world(Market(shape=Shape.LOG_NORMAL, exchanges=one_exchange(Feedback.WINS)), rng=rng)
    return world.simulate(20_000, rng=rng), world.simulate(8_000, rng=rng)


@pytest.fixture(scope="module")
def models(market: tuple[Simulation, Simulation]) -> dict[WinFamily, WinRateModel]:
    train, _ = market
    y = MarketPriceObservations.from_log(train.log).win_or_loss()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a small log warns, as it should
        return {
            family: WinRateModel(train.spec, family=str(family), **QUICK).fit(train.log, y)  # type: ignore[arg-type]
            for family in WinFamily
        }


def prices_of(simulation: Simulation) -> MarketPriceObservations:
    price = simulation.log["true_market_price_cpm"].to_numpy()
    n = np.ones(len(price))
    return MarketPriceObservations(price, price, 0.0 * n, price, n == 1.0, n)


def test_the_log_normal_curve_knows_log_normal_prices_better(
    market: tuple[Simulation, Simulation], models: dict[WinFamily, WinRateModel]
) -> None:
    """By the likelihood of the true prices and by the distance of the win rates; the surplus is no lower."""
    _, test = market
    value = value_cpm(test.truth.pctr, test.log["value_per_click"].to_numpy())
    bids = test.log["bid_cpm"].to_numpy()
    nll, distance, surplus = {}, {}, {}
    for family, model in models.items():
        curve: WinCurve = model.predict_curve(test.log)
        assert curve.family is family
        nll[family] = curve_nll(
            prices_of(test), curve.location, curve.shape, curve.gamma, curve.family
        ).mean()
        distance[family] = np.abs(curve.win_rate(bids) - test.truth.win_rate(bids)).mean()
        bid = optimal_bid_cpm(value, curve, floor_cpm=test.truth.floor_cpm)
        earned = test.truth.expected_surplus_cpm(value, bid).sum()
        surplus[family] = earned / test.truth.oracle_surplus_cpm(value).sum()
    normal, logistic = WinFamily.LOG_NORMAL, WinFamily.LOG_LOGISTIC
    assert nll[normal] < nll[logistic]
    assert distance[normal] < 1.01 * distance[logistic]
    assert surplus[normal] > surplus[logistic] - 0.002


def test_a_fit_goes_the_whole_way(
    market: tuple[Simulation, Simulation], models: dict[WinFamily, WinRateModel], tmp_path: Path
) -> None:
    """Certified, read back, and equal to the model; refreshed, it stays log-normal."""
    _, test = market
    model = models[WinFamily.LOG_NORMAL]
    X = test.log.head(2_000)
    raw = raw_columns(X, test.spec)
    win = model.to_blueprint()
    write_artifact(
        Blueprint(test.spec, None, win, "USD"),
        tmp_path / "win.onnx",
        sample_rows={name: cells.tolist() for name, cells in raw.items()},
    )
    found = {name: np.empty(len(X)) for name in ("win_location", "win_shape")}
    columns = {name: cells.tolist() if cells.dtype == object else cells for name, cells in raw.items()}
    scorer = Scorer.load(tmp_path / "win.onnx")
    scorer.score_many(columns, found)
    curve = model.predict_curve(X)
    np.testing.assert_allclose(found["win_location"], curve.location, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found["win_shape"], curve.shape, rtol=1e-12)
    assert scorer.blueprint.win is not None
    assert scorer.blueprint.win.family is WinFamily.LOG_NORMAL
    fresh = refresh_win_curve(
        win, test.log, MarketPriceObservations.from_log(test.log).win_or_loss(), spec=test.spec
    )
    assert fresh.family is WinFamily.LOG_NORMAL
    assert fresh.location != win.location
