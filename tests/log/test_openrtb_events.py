"""OpenRTB events: any order, any file, exact joins, features as the bidder reads them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, SpecError
from bidml.log import read_log, reading_report, validate

NOON = 1_772_366_400_000  # 2026-03-01T12:00:00Z, a Sunday
REQUEST = {
    "id": "r",
    "at": 1,
    "imp": [{"id": "1", "bidfloor": 0.5, "banner": {"w": 320, "h": 50}}, {"id": "2", "bidfloor": 0.7}],
    "device": {"geo": {"country": "DEU", "utcoffset": 60}},
}


def bid(auction_id: str = "a", **changes: Any) -> dict[str, Any]:
    sane = {"type": "bid", "auction_id": auction_id, "timestamp_ms": NOON, "request": REQUEST, "bid_cpm": 1.5}
    return {
        **sane,
        "currency": "USD",
        "exchange": "x",
        "line_item": {"id": "l1", "size": "320x50"},
        **changes,
    }


def event(kind: str, auction_id: str = "a", **changes: Any) -> dict[str, Any]:
    return {"type": kind, "auction_id": auction_id, "timestamp_ms": NOON + 1000, **changes}


def read(folder: Path, events: list[dict[str, Any] | str], **options: Any) -> pd.DataFrame:
    lines = [line if isinstance(line, str) else json.dumps(line) for line in events]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    return read_log(folder / "events.jsonl", format="openrtb", **options)


EVENTS = [
    bid("won", propensity=2.0, value_per_click=0.4),
    event("win", "won", price_cpm=1.5, min_bid_to_win_cpm=1.1),
    event("impression", "won"),
    event("click", "won"),
    event("conversion", "won", timestamp_ms=NOON + 60_000),
    bid("lost"),
    event("loss", "lost", loss_reason=102, min_bid_to_win_cpm=1.9),
    bid("silent", imp_id="2", timestamp_ms=NOON + 5),
    event("impression", "shown"),
    bid("shown", floor_cpm=0.9, auction_type=2),
]


def test_events_complete_their_bid(tmp_path: Path) -> None:
    """One row a bid: won by a win or an impression, lost otherwise; each field from its event."""
    log = read(tmp_path, EVENTS).set_index("auction_id")
    assert log["won"].to_dict() == {"lost": False, "shown": True, "silent": False, "won": True}
    won, lost = log.loc["won"], log.loc["lost"]
    assert (won["price_cpm"], won["min_bid_to_win_cpm"], won["propensity"]) == (1.5, 1.1, 2.0)
    assert (won["clicked"], won["converted"]) == (True, True)
    assert won["click_timestamp"] == pd.Timestamp("2026-03-01T12:00:01Z")
    assert won["conversion_timestamp"] == pd.Timestamp("2026-03-01T12:01:00Z")
    assert (lost["loss_reason"], lost["min_bid_to_win_cpm"]) == (102, 1.9)
    assert log["floor_cpm"].to_dict() == {"lost": 0.5, "shown": 0.9, "silent": 0.7, "won": 0.5}
    assert log["auction_type"].to_dict() == {"lost": 1, "shown": 2, "silent": 1, "won": 1}
    assert (log["utc_offset_minutes"] == 60.0).all()
    assert (log["line_item_id"] == "l1").all()
    checked = validate(log.reset_index(), needs=["win", "ctr"])
    assert checked.quarantine.counts == {}


@settings(max_examples=25)
@given(
    st.permutations(
        [*EVENTS, bid("lost", timestamp_ms=NOON + 9), event("click", "won", timestamp_ms=NOON + 9999)]
    )
)
def test_the_order_of_events_does_not_matter(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]]
) -> None:
    """Repeated events resolve to the earliest; rows come by time and id."""
    log = read(tmp_path_factory.mktemp("events"), events)
    expected = read(tmp_path_factory.mktemp("events"), EVENTS)
    assert reading_report(log).notes == {"repeated_bid": 1, "repeated_click": 1}
    pd.testing.assert_frame_equal(log, expected)


def test_files_join_across_a_folder(tmp_path: Path) -> None:
    """Bids in one file, outcomes in another, gzipped."""
    (tmp_path / "bids.jsonl").write_text(json.dumps(EVENTS[0]))
    with gzip.open(tmp_path / "wins.jsonl.gz", "wt") as file:
        file.write(json.dumps(EVENTS[1]))
    assert read_log(tmp_path, format="openrtb")["won"].tolist() == [True]


BAD_LINES: dict[str, list[dict[str, Any] | str]] = {
    "not_json": ["{oops", "", "NaN", "[" * 99_999,
                 '{"type": "click", "auction_id": "a", "timestamp_ms": Infinity}'],
    "not_an_object": ["[1]", "null", '"bid"'],
    "unknown_type": [event("view"), {"auction_id": "a"}],
    "no_auction_id": [event("win", ""), event("win", 7), event("click", "\ud800")],
    "no_timestamp_ms": [event("win", timestamp_ms=time) for time in ("now", True, -1, 1e300)],
    "bid_without_request": [bid(request=None), bid(request=[REQUEST])],
    "bid_without_bid_cpm": [bid(bid_cpm=None), bid(bid_cpm="1.5"), bid(bid_cpm=True), bid(bid_cpm=10**400)],
    "line_item_is_not_an_object": [bid(line_item="l1")],
    "bid_without_imp": [bid(request={}), bid(request={"imp": {}}), bid(request={"imp": [1]}),
                        bid(imp_id="9")],
    "floor_cpm_is_not_a_number": [bid(floor_cpm="0.5")],
    "price_cpm_is_not_a_number": [event("win", price_cpm="1.5")],
    "loss_reason_is_not_an_integer": [event("loss", loss_reason=x) for x in ("outbid", 2.5, True, 10**99)],
    "auction_type_is_not_an_integer": [bid(auction_type=1.5)],
    "currency_is_not_text": [bid(currency=840)],
    "exchange_is_not_text": [bid(exchange="\udfff")],
    "floor_in_another_currency": [bid(currency="EUR")],
    "won_and_lost": [bid(), event("win"), event("loss")],
}  # fmt: skip


@pytest.mark.parametrize("rule", BAD_LINES)
def test_a_bad_line_is_counted_and_left_out(tmp_path: Path, rule: str) -> None:
    """The other lines are read; the count and an example are in the report."""
    n_bad = 1 if rule == "won_and_lost" else sum(line != "" for line in BAD_LINES[rule])
    log = read(tmp_path, [bid("good"), *BAD_LINES[rule], event("win", "good")])
    assert log["auction_id"].tolist() == ["good"]
    assert log["won"].tolist() == [True]
    report = reading_report(log)
    assert report.malformed == {rule: n_bad}
    assert rule in report.examples


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path: Path) -> None:
    """One line, not the file."""
    (tmp_path / "events.jsonl").write_bytes(json.dumps(bid()).encode() + b"\n\xff\xfe\n")
    assert reading_report(read_log(tmp_path, format="openrtb")).malformed == {"not_utf8": 1}


def test_events_without_a_bid_are_noted(tmp_path: Path) -> None:
    """They may belong to another window: not malformed, not a row."""
    log = read(tmp_path, [bid("a"), event("click", "b")])
    assert reading_report(log).notes == {"event_without_bid": 1}
    assert reading_report(log).malformed == {}
    assert len(log) == 1


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """No line is an event, or none is a bid, or the gzip is cut, or the option belongs to another format."""
    with pytest.raises(DataError, match="one JSON event a line"):
        read(tmp_path, ["a,b", "1,2"])
    with pytest.raises(DataError, match="has bids"):
        read(tmp_path, [event("win"), event("click")])
    with pytest.raises(DataError, match="has bids"):
        read(tmp_path, [""])
    (tmp_path / "events.jsonl").write_bytes(gzip.compress(json.dumps(bid()).encode() * 99)[:-9])
    with pytest.raises(DataError, match="read to its end"):
        read_log(tmp_path / "events.jsonl", format="openrtb")
    with pytest.raises(ConfigError, match="declares these itself"):
        read(tmp_path, [bid()], price_unit="cpm")


def test_currency_and_auction_type_are_never_guessed(tmp_path: Path) -> None:
    """Without a declared default the rows are quarantined; with one they pass."""
    bare = {"id": "r", "imp": [{"id": "1"}]}
    events = [bid(str(i), request=bare, currency=None) for i in range(4)]
    with pytest.raises(DataError, match="missing_currency': 4"):
        validate(read(tmp_path, events), needs=["win"])
    log = read(tmp_path, events, currency="EUR", auction_type=2)
    assert set(log["currency"]) == {"EUR"}
    assert set(log["auction_type"]) == {2}


def test_odd_numbers_in_a_request_do_no_harm(tmp_path: Path) -> None:
    """A huge bid is a number for the rules to judge; a fractional auction type in a request is none."""
    odd = {**REQUEST, "at": 1.5, "device": {"geo": {"utcoffset": 1e300}}}
    log = read(tmp_path, [bid("a", request=odd, bid_cpm=10**300, line_item={"id": 7})], auction_type=2)
    assert log[["auction_type", "bid_cpm", "line_item_id"]].iloc[0].tolist() == [2, 1e300, "7"]


SPEC = FeatureSpec(
    (
        Feature("country", FeatureKind.CATEGORY, "device.geo.country"),
        Feature("size", FeatureKind.CATEGORY, "derived.banner_size"),
        Feature("floor", FeatureKind.NUMBER, "imp.bidfloor"),
        Feature("creative_size", FeatureKind.CATEGORY, "line_item.size"),
        Feature("hour_of_day", FeatureKind.NUMBER, "derived.hour_of_day"),
        Feature("weekday", FeatureKind.NUMBER, "derived.weekday"),
    )
)


def test_features_come_from_the_auctioned_impression_at_the_time_of_the_bid(tmp_path: Path) -> None:
    """The bidder's extractor reads the request; a request without a time is dated by its event."""
    events = [
        bid("a"),
        bid("b", imp_id="2", line_item={}, request={**REQUEST, "ext": {"timestamp": NOON - 86_400_000}}),
    ]
    log = read(tmp_path, events, spec=SPEC)
    assert log[list(SPEC.names)].iloc[0].tolist() == ["DEU", "320x50", 0.5, "320x50", 13.0, 6.0]
    assert log[list(SPEC.names)].iloc[1].tolist() == ["DEU", "", 0.7, "", 13.0, 5.0]


def test_a_spec_cannot_read_the_outcome(tmp_path: Path) -> None:
    """A feature called clicked would overwrite the label; a time below imp could not be found."""
    leak = FeatureSpec((Feature("clicked", FeatureKind.NUMBER, "ext.clicked"),))
    with pytest.raises(SpecError, match="known before the bid"):
        read(tmp_path, [bid()], spec=leak)
    with pytest.raises(SpecError, match="not below its impressions"):
        read(tmp_path, [bid()], spec=FeatureSpec(SPEC.features, "imp.ext.time"))


def test_captured_requests_are_all_read(tmp_path: Path, shared_data: Path) -> None:
    """Every real AdX request becomes a row with its features."""
    with gzip.open(shared_data / "openrtb_adx_captured_2016.jsonl.gz", "rt") as file:
        requests = [json.loads(line) for line in file]
    spec = FeatureSpec(
        (
            Feature("app_name", FeatureKind.CATEGORY, "app.name"),
            Feature("os", FeatureKind.CATEGORY, "device.os"),
            Feature("carrier", FeatureKind.CATEGORY, "device.carrier"),
            Feature("screen_width", FeatureKind.NUMBER, "device.w"),
        )
    )
    events = [
        bid(f"{i:04}", request=request, timestamp_ms=request["ext"]["timestamp"], auction_type=2)
        for i, request in enumerate(requests)
    ]
    log = read(tmp_path, events, spec=spec)
    assert len(log) == 500
    assert reading_report(log).malformed == {}
    by_id = log.set_index("auction_id").sort_index()
    assert by_id["app_name"].tolist() == [request["app"].get("name", "") for request in requests]
    assert by_id["carrier"].tolist() == [str(request["device"].get("carrier", "")) for request in requests]
    np.testing.assert_array_equal(
        by_id["screen_width"], [request["device"].get("w", np.nan) for request in requests]
    )


def test_fixture_requests_are_read_or_counted(tmp_path: Path, shared_data: Path) -> None:
    """The 3,000 odd requests of other projects: each is a row or a counted line, none an exception."""
    with gzip.open(shared_data / "openrtb_requests.jsonl.gz", "rt") as file:
        requests = [json.loads(line)["req"] for line in file]
    events = [bid(f"{i:04}", request=request) for i, request in enumerate(requests)]
    log = read(tmp_path, events, spec=SPEC)
    assert len(log) + reading_report(log).n_malformed == 3_000
    assert len(log) > 2_000
