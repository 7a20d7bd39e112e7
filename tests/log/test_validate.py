"""Validation: every bad row is set aside and counted once, every bad log is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.errors import ConfigError, DataError
from bidml.log import RULES, Need, ReadingReport, ValidatedLog, validate
from bidml.log.schema import COLUMN

START = pd.Timestamp("2026-03-01T12:00:00Z")
EVERYTHING = tuple(Need)
WON, LOST = 12, 13  # rows of good_log; 12 is clicked and converted, 14 is only won

SPOILED: dict[str, tuple[int, dict[str, Any]]] = {
    **{
        f"missing_{name}": (WON, {name: None})
        for name, column in COLUMN.items()
        if not column.nullable or name == "propensity"
    },
    "not_finite": (WON, {"value_per_click": np.inf}),
    "unknown_currency": (WON, {"currency": "usd"}),
    "unknown_auction_type": (WON, {"auction_type": 3}),
    "outside_window": (LOST, {"timestamp": START - pd.Timedelta("1D")}),
    "bid_not_positive": (LOST, {"bid_cpm": 0.0}),
    "floor_negative": (WON, {"floor_cpm": -0.1}),
    "bid_below_floor": (LOST, {"floor_cpm": 99.0}),
    "won_without_price": (WON, {"price_cpm": None}),
    "lost_with_price": (LOST, {"price_cpm": 1.0}),
    "price_not_positive": (WON, {"price_cpm": 0.0}),
    "price_above_bid": (WON, {"price_cpm": 9.0}),
    "price_is_not_the_bid": (WON, {"price_cpm": 0.7}),
    "price_below_floor": (WON, {"auction_type": 2, "price_cpm": 0.3}),
    "min_bid_to_win_not_positive": (WON, {"min_bid_to_win_cpm": 0.0}),
    "won_below_min_bid": (WON, {"min_bid_to_win_cpm": 9.0}),
    "lost_above_min_bid": (LOST, {"min_bid_to_win_cpm": 0.5}),
    "won_with_loss_reason": (WON, {"loss_reason": 102}),
    "clicked_but_lost": (LOST, {"clicked": True}),
    "click_before_impression": (WON, {"click_timestamp": START}),
    "click_time_without_click": (14, {"click_timestamp": START + pd.Timedelta("1D")}),
    "converted_without_click": (14, {"converted": True}),
    "conversion_before_click": (WON, {"conversion_timestamp": START + pd.Timedelta("13s")}),
    "conversion_time_without_conversion": (14, {"conversion_timestamp": START + pd.Timedelta("1D")}),
    "value_negative": (WON, {"value_per_click": -0.4}),
    "propensity_not_positive": (WON, {"propensity": 0.0}),
    "sampling_rate_not_a_share": (WON, {"sampling_rate": 1.5}),
    "duplicated_auction_id": (WON, {"auction_id": "a1"}),
}
WINDOW = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))


def good_log(n_rows: int = 60) -> pd.DataFrame:
    """A first-price log with wins, losses, clicks and conversions; every column of the schema; no bad row."""
    i = pd.Series(range(n_rows))
    won = i % 2 == 0
    clicked = won & (i % 6 == 0)
    converted = clicked & (i % 12 == 0)
    bid = 1.0 + 0.05 * i
    timestamp = START + pd.to_timedelta(i, unit="s")
    return pd.DataFrame(
        {
            "auction_id": "a" + i.astype(str),
            "timestamp": timestamp,
            "utc_offset_minutes": 60.0,
            "exchange": "x",
            "line_item_id": "l1",
            "currency": "USD",
            "auction_type": 1,
            "bid_cpm": bid,
            "floor_cpm": 0.5,
            "won": won,
            "price_cpm": bid.where(won),
            "min_bid_to_win_cpm": bid.where(won, 2.0 * bid) * 0.9,
            "loss_reason": pd.array([None if w else 102 for w in won], dtype="Int64"),
            "clicked": clicked,
            "click_timestamp": (timestamp + pd.Timedelta("5s")).where(clicked),
            "converted": converted,
            "conversion_timestamp": (timestamp + pd.Timedelta("1h")).where(converted),
            "value_per_click": 0.4,
            "propensity": 1.5,
            "sampling_rate": 1.0,
            "true_market_price_cpm": bid * 0.9,
            "city": "c" + (i % 5).astype(str),
            "depth": i % 3,
        }
    )


def spoil(log: pd.DataFrame, row: int, cells: dict[str, Any]) -> pd.DataFrame:
    log = log.astype(dict.fromkeys(cells, object))
    for name, cell in cells.items():
        log.loc[row, name] = cell
    return log.assign(**{name: log[name].infer_objects() for name in cells})


def as_set(log: pd.DataFrame) -> list[tuple[str, ...]]:
    return sorted(tuple(map(str, row)) for row in log.astype(object).itertuples(index=False))


def test_a_good_log_passes_whole() -> None:
    """Nothing is set aside, in any need, and the types are the schema's."""
    found = validate(good_log(), needs=EVERYTHING, window=WINDOW)
    assert len(found.log) == 60
    assert found.quarantine.counts == {}
    assert {name: str(found.log[name].dtype) for name in COLUMN} == {
        name: column.pandas_dtype for name, column in COLUMN.items()
    }


def test_every_rule_has_its_example() -> None:
    """The table above spoils a row for each declared rule."""
    assert {rule.name for rule in RULES} == set(SPOILED)


@pytest.mark.parametrize("rule", SPOILED)
def test_a_bad_row_is_set_aside_under_its_rule(rule: str) -> None:
    """One spoiled row: that row, that rule, one example with the bad cell in it; all others pass."""
    row, cells = SPOILED[rule]
    found = validate(spoil(good_log(), row, cells), needs=EVERYTHING, window=WINDOW)
    assert found.quarantine.counts == {rule: 1}
    assert len(found.log) == 59
    assert list(found.quarantine.rows["rule"]) == [rule]
    assert rule in str(found.quarantine)
    document = json.loads(json.dumps(found.quarantine.to_json()))
    assert document["n_rows"] == 60
    assert document["n_quarantined"] == 1
    assert set(document["examples"]) == {rule}


def test_the_earliest_of_equal_ids_stays() -> None:
    """Also when it comes later in the table."""
    log = spoil(good_log(), WON, {"auction_id": "a1"})
    found = validate(log.iloc[::-1], needs=["win"])
    kept = found.log[found.log["auction_id"] == "a1"]
    assert kept["timestamp"].tolist() == [START + pd.Timedelta("1s")]


def test_a_bad_duplicate_does_not_displace_a_good_one() -> None:
    """Duplicates are looked for among good rows."""
    log = spoil(good_log(), 0, {"auction_id": "a5", "bid_cpm": -1.0})
    assert validate(log, needs=["ctr"]).quarantine.counts == {"bid_not_positive": 1}


@st.composite
def spoiled_logs(draw: st.DrawFn) -> pd.DataFrame:
    """A log with up to six spoiled rows, in any order."""
    log = good_log()
    shift = 0
    for rule in draw(st.lists(st.sampled_from(sorted(SPOILED)), max_size=6)):
        row, cells = SPOILED[rule]
        log = spoil(log, row + shift, cells)
        shift += 6 * draw(st.integers(0, 2))
        if shift > 40:
            break
    return log


def check(log: pd.DataFrame) -> ValidatedLog:
    return validate(log, needs=EVERYTHING, window=WINDOW, max_quarantined=0.5)


@settings(max_examples=25)
@given(spoiled_logs())
def test_kept_and_quarantined_are_all(log: pd.DataFrame) -> None:
    """Each row is in exactly one of the two tables, and the counts add up."""
    found = check(log)
    rows = found.quarantine.rows
    assert len(found.log) + len(rows) == len(log) == found.quarantine.n_rows
    assert sum(found.quarantine.counts.values()) == len(rows)
    order = pd.concat([found.log, rows])["bid_cpm"].astype(float)
    pd.testing.assert_series_equal(
        order.sort_values(ignore_index=True),
        log["bid_cpm"].astype(float).sort_values(ignore_index=True),
        check_names=False,
    )


@settings(max_examples=25)
@given(spoiled_logs())
def test_validation_is_idempotent(log: pd.DataFrame) -> None:
    """What passed once passes again, unchanged."""
    once = check(log)
    twice = check(once.log)
    pd.testing.assert_frame_equal(twice.log, once.log)
    assert twice.quarantine.counts == {}


@settings(max_examples=25)
@given(spoiled_logs(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(log: pd.DataFrame, random: Any) -> None:
    """A shuffled log keeps the same rows for the same reasons, and shows the same examples."""
    order = list(range(len(log)))
    random.shuffle(order)
    one, other = check(log), check(log.iloc[order])
    assert as_set(one.log) == as_set(other.log)
    assert one.quarantine.to_json() == other.quarantine.to_json()


def test_the_input_is_not_altered() -> None:
    """Validation returns a new table."""
    log = spoil(good_log(), WON, {"bid_cpm": -1.0})
    before = log.copy()
    validate(log, needs=["win"])
    pd.testing.assert_frame_equal(log, before)


def test_too_much_quarantine_is_an_error() -> None:
    """More than the limit says which rules took how many rows."""
    log = good_log()
    log.loc[:9, "value_per_click"] = -1.0
    with pytest.raises(DataError, match=r"at most 5.0% .*value_negative': 10"):
        validate(log, needs=["win"])
    assert validate(log, needs=["win"], max_quarantined=0.2).quarantine.counts == {"value_negative": 10}


def test_lines_the_reader_lost_count_too() -> None:
    """A reader's malformed lines are reported, weigh against the limit, and leave the table."""
    log = ReadingReport({"malformed_line": 2}, {"late_click": 7}, {"malformed_line": "{oops"}).attach(
        good_log()
    )
    found = validate(log, needs=["win"])
    assert found.quarantine.share == 2 / 62
    assert "{oops" in str(found.quarantine)
    assert validate(found.log, needs=["win"]).quarantine.share == 0.0
    with pytest.raises(DataError, match="malformed_line': 9"):
        validate(ReadingReport({"malformed_line": 9}).attach(good_log()), needs=["win"])


def micros(log: pd.DataFrame, *names: str) -> pd.DataFrame:
    return log.assign(**{name: log[name] * 1000.0 for name in names})


BAD_LOGS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "empty": (lambda log: log.iloc[:0], "a log has rows; found 0 rows"),
    "no clicks": (lambda log: unclicked(log), "no clicks in 30 impressions"),
    "only clicks": (lambda log: log.assign(clicked=log["won"]), "only clicks in 30 impressions"),
    "no conversions": (
        lambda log: log.assign(converted=False).drop(columns="conversion_timestamp"),
        "no conversions in 10 clicks",
    ),
    "no wins": (lambda log: log[~log["won"]], "no wins in 30 bids"),
    "no losses": (lambda log: log[log["won"]], "no losses on price in 30 bids"),
    "only technical losses": (
        lambda log: log.assign(loss_reason=log["loss_reason"].where(log["won"], 2)),
        "no losses on price",
    ),
    "no bid column": (lambda log: log.drop(columns="bid_cpm"), "no bid_cpm among"),
    "mixed currencies": (
        lambda log: log.assign(currency=log["currency"].where(log["won"], "EUR")),
        r"one currency; found \['EUR', 'USD'\]",
    ),
    "bids in micros": (lambda log: micros(log, "bid_cpm"), "price_cpm and bid_cpm are both CPM"),
    "prices in micros": (lambda log: micros(log, "price_cpm"), "price_cpm and bid_cpm are both CPM"),
    "bids and prices in micros": (
        lambda log: micros(log, "bid_cpm", "price_cpm", "min_bid_to_win_cpm"),
        "floor_cpm and bid_cpm are both CPM",
    ),
    "floors in micros": (lambda log: micros(log, "floor_cpm"), "floor_cpm and bid_cpm are both CPM"),
    "seconds read as milliseconds": (
        lambda log: log.assign(timestamp=pd.Timestamp(1_770_000_000, unit="ms", tz="UTC")),
        "timestamp_unit",
    ),
    "text for numbers": (lambda log: log.assign(bid_cpm="1.5"), "column bid_cpm is number"),
    "words for flags": (lambda log: log.assign(won="yes"), "column won is flag"),
    "damaged ids": (lambda log: log.assign(auction_id=1e18), "column auction_id is text"),
    "numbers for times": (lambda log: log.assign(timestamp=1.0), "column timestamp is time"),
}


def unclicked(log: pd.DataFrame) -> pd.DataFrame:
    return log.assign(clicked=False, converted=False).drop(
        columns=["click_timestamp", "conversion_timestamp"]
    )


@pytest.mark.parametrize("name", BAD_LOGS)
def test_a_bad_log_is_refused_in_words(name: str) -> None:
    """Rule, value and remedy, exit code 3."""
    spoiled, words = BAD_LOGS[name]
    with pytest.raises(DataError, match=words) as caught:
        validate(spoiled(good_log()), needs=EVERYTHING)
    assert caught.value.exit_code == 3
    assert caught.value.remedy


def test_odd_but_true_prices_can_be_let_through() -> None:
    """check_units=False trusts the caller."""
    log = micros(good_log(), "bid_cpm", "price_cpm", "min_bid_to_win_cpm")
    assert len(validate(log, needs=["win"], check_units=False).log) == 60


def test_a_click_log_needs_nothing_else() -> None:
    """clicked and features are a whole log for a CTR model, and clicks of all rows count."""
    log = pd.DataFrame({"clicked": [0, 1, 0, 0], "city": ["a", "b", "a", None]})
    found = validate(log, needs=[Need.CTR])
    assert found.log["clicked"].tolist() == [False, True, False, False]


def test_an_unknown_need_is_a_config_error() -> None:
    """A typing error must not become an unchecked log."""
    with pytest.raises(ConfigError, match="a need of a log is known"):
        validate(good_log(), needs=["clicks"])
    with pytest.raises(ConfigError, match="time zone"):
        validate(good_log(), needs=["ctr"], window=(datetime(2026, 3, 1), None))
