"""A simulated log is a valid log, follows its own rules, and says as requests what it says as a table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bidml.contract import AuctionType
from bidml.errors import ConfigError, DataError
from bidml.features import raw_columns
from bidml.log import price_loss, read_log, validate, write_log
from bidml.score import RawExtractor
from bidml.simulate import (
    EXCHANGES,
    Exchange,
    Feedback,
    Market,
    Simulation,
    draw_world,
    one_exchange,
    simulate,
)


@pytest.fixture(scope="module")
def default() -> Simulation:
    return simulate(60_000, rng=np.random.default_rng(11))


@pytest.fixture(scope="module")
def explored() -> Simulation:
    market = Market(exploration=0.3, exploration_sigma=0.5, bid_noise=0.2)
    return simulate(60_000, rng=np.random.default_rng(12), market=market)


def test_nothing_is_quarantined(default, explored):
    for simulation, needs in ((default, ["ctr", "cvr", "win", "time", "price"]), (explored, ["off_policy"])):
        checked = validate(simulation.log, needs=needs)
        assert checked.quarantine.counts == {}
        assert len(checked.log) == len(simulation)


def test_the_same_seed_gives_the_same_log_and_another_seed_another():
    first, again, other = (simulate(500, rng=np.random.default_rng(seed)).log for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first["bid_cpm"].equals(other["bid_cpm"])


def test_two_logs_of_a_world_share_its_truth():
    world = draw_world(Market(n_apps=20), rng=np.random.default_rng(3))
    one, two = (world.simulate(20_000, rng=np.random.default_rng(seed)) for seed in (4, 5))
    value = [sim.log.groupby("line_item_id")["value_per_click"].agg(["min", "max"]) for sim in (one, two)]
    pd.testing.assert_frame_equal(*value)
    assert (value[0]["min"] == value[0]["max"]).all()
    assert one.truth.pctr.mean() == pytest.approx(two.truth.pctr.mean(), rel=0.05)
    assert not one.log["bid_cpm"].equals(two.log["bid_cpm"])


def test_extraction_of_the_requests_gives_the_features_of_the_log(default):
    rows = np.arange(0, len(default), 37)
    columns = RawExtractor(default.spec).columns(
        default.requests(rows), [default.line_item_fields(int(row)) for row in rows]
    )
    wanted = raw_columns(default.log.iloc[rows], default.spec)
    for name in default.spec.names:
        np.testing.assert_array_equal(
            np.array(columns[name], dtype=wanted[name].dtype), wanted[name], err_msg=name
        )


def test_requests_say_floor_currency_auction_type_and_time(default):
    log = default.log
    for row, request in zip(range(200), default.requests(slice(0, 200)), strict=True):
        floor = log["floor_cpm"][row]
        imp = request["imp"][0]
        assert imp.get("bidfloor") == (None if np.isnan(floor) else floor)
        assert imp.get("bidfloorcur") == (None if np.isnan(floor) else "USD")
        assert request["at"] == log["auction_type"][row]
        assert pd.Timestamp(request["ext"]["timestamp"], unit="ms", tz="UTC") == log["timestamp"][row]


def test_the_log_survives_parquet(default, tmp_path):
    some = default[:2_000]
    write_log(some.log, tmp_path / "log.parquet")
    found = read_log(tmp_path / "log.parquet", format="parquet", spec=default.spec)
    pd.testing.assert_frame_equal(found, some.log, check_dtype=False)


def test_a_bid_wins_when_it_reaches_market_price_and_floor(default):
    log, truth = default.log, default.truth
    delivered = log["won"] | price_loss(log)
    reaches = log["bid_cpm"] >= truth.market_price_cpm
    assert (log["won"] == (delivered & reaches)).all()
    assert (truth.market_price_cpm >= truth.floor_cpm).all()
    assert (log["bid_cpm"] >= truth.floor_cpm).all()


def test_every_exchange_tells_what_its_regime_says(default):
    market_price = default.truth.market_price_cpm
    for exchange in EXCHANGES:
        here = (default.log["exchange"] == exchange.name).to_numpy()
        log, price = default.log[here], market_price[here]
        lost = ~log["won"]
        second = exchange.auction_type is AuctionType.SECOND_PRICE
        assert (log["auction_type"] == exchange.auction_type).all()
        paid = np.where(log["won"], price if second else log["bid_cpm"], np.nan)
        np.testing.assert_array_equal(log["price_cpm"], paid)
        if exchange.feedback is Feedback.WINS:
            told = log["won"].to_numpy()
        elif exchange.feedback is Feedback.ALWAYS:
            told = (log["won"] | price_loss(log)).to_numpy()
        else:
            told = np.zeros(len(log), dtype=bool)
        np.testing.assert_array_equal(log["min_bid_to_win_cpm"], np.where(told, price, np.nan))
        assert log["loss_reason"][~lost].isna().all()
        reasons = set(log["loss_reason"][lost].dropna().astype(int))
        if exchange.reports_loss_reasons:
            assert log["loss_reason"][lost].notna().all()
            assert reasons == {2, 102, 103, 202, 205}
            assert (lost & ~price_loss(log)).mean() == pytest.approx(exchange.non_price_losses, abs=0.006)
        else:
            assert reasons == set()


def test_time_and_place_look_like_traffic(default):
    log = default.log
    assert log["timestamp"].is_monotonic_increasing
    assert (log["timestamp"].iloc[-1] - log["timestamp"].iloc[0]).total_seconds() > 6.9 * 86_400
    by_local_hour = log["hour_of_day"].value_counts()
    assert by_local_hour.max() > 2.0 * by_local_hour.min()
    apps = log["app_bundle"].value_counts(normalize=True)
    assert len(apps) > 1_500
    assert apps.iloc[:20].sum() > 0.15
    assert 20 <= len(default.spec.features) <= 25


def test_clicks_and_conversions_follow_impressions_until_the_log_closes(default):
    log = default.log
    closed = pd.Timestamp("2026-03-09", tz="UTC")
    assert (log["conversion_timestamp"].dropna() < closed).all()
    assert (log["click_timestamp"].dropna() > log["timestamp"][log["clicked"]]).all()
    delay = (log["conversion_timestamp"] - log["click_timestamp"]).dropna().dt.total_seconds()
    assert delay.mean() > 3_600.0


@pytest.mark.parametrize(
    "wrong",
    [{"base_ctr": 0.0}, {"shape": "empirical"}, {"exchanges": ()}, {"exploration": 1.5}, {"days": np.nan}],
)
def test_an_impossible_market_is_refused(wrong):
    with pytest.raises(ConfigError):
        Market(**wrong)


def test_an_impossible_exchange_or_number_is_refused():
    with pytest.raises(ConfigError, match="clearing price"):
        Exchange("x", 1.0, AuctionType.SECOND_PRICE, Feedback.CLOSED)
    with pytest.raises(ConfigError, match="share"):
        Exchange("x", 0.0)
    with pytest.raises(ConfigError, match="auctions"):
        simulate(0, rng=np.random.default_rng(1), market=Market(exchanges=one_exchange()))


def test_a_file_of_other_histograms_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("campaign,price\n1,2\n")
    with pytest.raises(DataError, match="price histograms"):
        simulate(
            10, rng=np.random.default_rng(1), market=Market(shape="empirical", histograms=tmp_path / "h.csv")
        )
