"""What a log row says about the market price, in every feedback regime; what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bidml.errors import ConfigError, DataError
from bidml.fit import Floors, MarketPriceObservations

INF = np.inf
NAN = np.nan

# row → (lower, upper, truncation), floors censoring; (…) with floors truncating
REGIMES: dict[str, tuple[dict[str, Any], tuple[float, float], tuple[float, float, float]]] = {
    "first price, won": ({"won": True}, (0.0, 2.0), (0.5, 2.0, 0.5)),
    "first price, won, price is the bid": ({"won": True, "price_cpm": 2.0}, (0.0, 2.0), (0.5, 2.0, 0.5)),
    "first price, lost": ({"won": False}, (2.0, INF), (2.0, INF, 0.5)),
    "outbid": ({"won": False, "loss_reason": 102}, (2.0, INF), (2.0, INF, 0.5)),
    "creative blocked": ({"won": False, "loss_reason": 203}, (0.0, INF), (0.0, INF, 0.0)),
    "blocked, with a price": (
        {"won": False, "loss_reason": 203, "min_bid_to_win_cpm": 1.0},
        (0.0, INF),
        (0.0, INF, 0.0),
    ),
    "min bid on a win": ({"won": True, "min_bid_to_win_cpm": 1.5}, (1.5, 1.5), (1.5, 1.5, 0.5)),
    "min bid on a loss": ({"won": False, "min_bid_to_win_cpm": 3.0}, (3.0, 3.0), (3.0, 3.0, 0.5)),
    "min bid is the floor": ({"won": True, "min_bid_to_win_cpm": 0.5}, (0.0, 0.5), (0.0, INF, 0.0)),
    "second price": ({"won": True, "auction_type": 2, "price_cpm": 1.25}, (1.25, 1.25), (1.25, 1.25, 0.5)),
    "second price at the floor": (
        {"won": True, "auction_type": 2, "price_cpm": 0.5},
        (0.0, 0.5),
        (0.0, INF, 0.0),
    ),
    "second price, unreported": ({"won": True, "auction_type": 2}, (0.0, 2.0), (0.5, 2.0, 0.5)),
    "second price, lost": ({"won": False, "auction_type": 2}, (2.0, INF), (2.0, INF, 0.5)),
}


def log_of(*rows: dict[str, Any]) -> pd.DataFrame:
    common = {"bid_cpm": 2.0, "floor_cpm": 0.5, "currency": "USD", "auction_type": 1}
    log = pd.DataFrame([common | row for row in rows])
    if "loss_reason" in log:
        log["loss_reason"] = log["loss_reason"].astype("Int64")
    return log


@pytest.mark.parametrize("name", REGIMES)
def test_a_row_says_what_its_regime_says(name: str) -> None:
    """Alone, and with floors that truncate."""
    row, censored, truncated = REGIMES[name]
    y = MarketPriceObservations.from_log(log_of(row))
    assert (y.lower_cpm[0], y.upper_cpm[0], y.truncation_cpm[0]) == (*censored, 0.0)
    y = MarketPriceObservations.from_log(log_of(row), floors="truncate")
    assert (y.lower_cpm[0], y.upper_cpm[0], y.truncation_cpm[0]) == truncated


def test_regimes_mix_in_one_log() -> None:
    """Row by row, whatever stands beside it."""
    y = MarketPriceObservations.from_log(log_of(*(row for row, _, _ in REGIMES.values())))
    assert list(zip(y.lower_cpm, y.upper_cpm, strict=True)) == [bounds for _, bounds, _ in REGIMES.values()]
    assert y.informative.tolist() == [bounds != (0.0, INF) for _, bounds, _ in REGIMES.values()]
    assert y.exact.tolist() == [low == high for _, (low, high), _ in REGIMES.values()]


def test_floors_may_be_ignored() -> None:
    """Then a price at the floor is a price."""
    y = MarketPriceObservations.from_log(
        log_of({"won": True, "min_bid_to_win_cpm": 0.5}), floors=Floors.IGNORE
    )
    assert (y.lower_cpm[0], y.upper_cpm[0]) == (0.5, 0.5)


def test_a_price_in_ticks_is_an_interval() -> None:
    """(p − tick, p], never below the truncation."""
    log = log_of({"won": True, "min_bid_to_win_cpm": 1.5}, {"won": True, "min_bid_to_win_cpm": 0.55})
    y = MarketPriceObservations.from_log(log, tick_cpm=0.1)
    np.testing.assert_allclose((y.lower_cpm, y.upper_cpm), ([1.4, 0.45], [1.5, 0.55]))
    y = MarketPriceObservations.from_log(log, tick_cpm=0.1, floors="truncate")
    np.testing.assert_allclose(
        (y.lower_cpm, y.upper_cpm, y.truncation_cpm), ([1.4, 0.5], [1.5, 0.55], [0.5, 0.5])
    )


def test_rows_can_be_taken() -> None:
    """By mask or index, all arrays together."""
    y = MarketPriceObservations.from_log(log_of({"won": True}, {"won": False}), weight=[1.0, 10.0])
    taken = y.take(np.array([1]))
    assert (len(taken), taken.lower_cpm[0], taken.weight[0], taken.won[0]) == (1, 2.0, 10.0, False)
    assert len(y.take(y.won)) == 1


BAD_LOGS: dict[str, tuple[dict[str, Any], str]] = {
    "a bid of zero": ({"bid_cpm": 0.0}, "bid is a positive"),
    "a negative bid": ({"bid_cpm": -1.0}, "bid is a positive"),
    "a NaN bid": ({"bid_cpm": NAN}, "bid is a positive"),
    "an infinite bid": ({"bid_cpm": INF}, "bid is a positive"),
    "a negative floor": ({"floor_cpm": -0.5}, "floor"),
    "a price of zero": ({"min_bid_to_win_cpm": 0.0}, "price is a positive"),
    "a negative price": ({"auction_type": 2, "price_cpm": -2.0}, "price is a positive"),
    "an infinite price": ({"min_bid_to_win_cpm": INF}, "price is a positive"),
    "a bid of text": ({"bid_cpm": "two"}, "holds numbers"),
}


@pytest.mark.parametrize("name", BAD_LOGS)
def test_a_bad_row_is_an_error_that_counts_it(name: str) -> None:
    """Rule, value and where."""
    changes, rule = BAD_LOGS[name]
    with pytest.raises(DataError, match=rule):
        MarketPriceObservations.from_log(log_of({"won": True} | changes, {"won": True}))


def test_a_bad_log_is_an_error() -> None:
    """Empty, without outcomes, in two currencies; unknown options."""
    good = log_of({"won": True}, {"won": False})
    with pytest.raises(DataError, match="auction"):
        MarketPriceObservations.from_log(good.head(0))
    with pytest.raises(DataError, match="won"):
        MarketPriceObservations.from_log(good.drop(columns="won"))
    with pytest.raises(DataError, match="one currency"):
        MarketPriceObservations.from_log(good.assign(currency=["USD", "EUR"]))
    with pytest.raises(ConfigError, match="floors"):
        MarketPriceObservations.from_log(good, floors="raise")
    with pytest.raises(ConfigError, match="tick"):
        MarketPriceObservations.from_log(good, tick_cpm=NAN)


def test_contradictions_are_refused() -> None:
    """Lower above upper, truncation inside an interval, arrays of two lengths, a NaN weight."""
    two = np.array([1.0, 1.0])

    def make(**changes: Any) -> MarketPriceObservations:
        fields = {
            "lower_cpm": two,
            "upper_cpm": 2.0 * two,
            "truncation_cpm": 0.0 * two,
            "bid_cpm": two,
            "won": [True, True],
            "weight": two,
        }
        return MarketPriceObservations(**(fields | changes))

    assert make().informative.all()
    for changes, rule in (
        ({"lower_cpm": 3.0 * two}, "at most its upper"),
        ({"lower_cpm": [NAN, 1.0]}, "lower bound"),
        ({"upper_cpm": 0.0 * two, "lower_cpm": 0.0 * two}, "upper bound"),
        ({"truncation_cpm": 1.5 * two}, "truncation"),
        ({"weight": [1.0, NAN]}, "weight"),
        ({"weight": [1.0]}, "one value per auction"),
    ):
        with pytest.raises(DataError, match=rule):
            make(**changes)
