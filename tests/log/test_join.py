"""The out-of-core join is the in-memory reader, whatever the stream; its counts add up; its rules are exact."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import fastavro
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_streams import MIDNIGHT, SPEC, stream
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, SpecError
from bidml.log import JoinReport, JoinRules, join_events, read_log, reading_report

ANYTHING = JoinRules(max_malformed=1.0, max_out_of_time=1.0)


def written(folder: Path, lines: Sequence[str | dict[str, Any]], name: str = "events.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / name).write_text("\n".join(texts) + "\n")
    return folder / name


def joined(
    folder: Path, lines: Sequence[str | dict[str, Any]], rules: JoinRules = ANYTHING, **options: Any
) -> tuple[pd.DataFrame, JoinReport]:
    report = join_events(written(folder, lines), folder / "log", rules=rules, **options)
    assert sum(n for name, n in report.events.items() if name != "read") == report.events["read"]
    return read_log(folder / "log", format="parquet"), report


def assert_is_the_reader(folder: Path, source: Path, **options: Any) -> None:
    """Same rows, types and counts; where one refuses, so does the other."""
    try:
        expected = read_log(source, format="openrtb", **options)
    except DataError:
        with pytest.raises(DataError):
            join_events(source, folder / "log", rules=ANYTHING, **options)
        assert not (folder / "log").exists()
        return
    report = join_events(source, folder / "log", rules=ANYTHING, **options)
    pd.testing.assert_frame_equal(read_log(folder / "log", format="parquet"), expected)
    assert report.reading.malformed == reading_report(expected).malformed
    assert report.reading.notes == reading_report(expected).notes
    assert sum(n for name, n in report.events.items() if name != "read") == report.events["read"]


@settings(max_examples=10)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([None, SPEC]))
def test_the_join_is_the_reader(
    tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, spec: FeatureSpec | None
) -> None:
    """Any stream, row by row: repeats, wrong order, malformed lines, outcomes without a bid."""
    folder = tmp_path_factory.mktemp("join")
    source = written(folder, stream(random.Random(seed), n))
    assert_is_the_reader(folder, source, spec=spec, currency="JPY", auction_type=2)


def test_buckets_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger stream in many files and seven buckets is the reader still."""
    monkeypatch.setattr("bidml.log.join.run.n_buckets", lambda n_rows, memory_limit_mb: 7)
    lines = stream(random.Random(7), 2500)
    for i in range(5):
        written(tmp_path / "events", lines[i::5], f"{i}.jsonl")
    assert_is_the_reader(tmp_path, tmp_path / "events", spec=SPEC)


def test_a_second_process_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are flattened side by side; an error there is the same error here."""
    monkeypatch.setattr("bidml.log.join.flatten._SMALL_BYTES", 0)
    lines = stream(random.Random(8), 200)
    for i in range(2):
        written(tmp_path / "events", lines[i::2], f"{i}.jsonl")
    assert_is_the_reader(tmp_path, tmp_path / "events", spec=SPEC)
    (tmp_path / "events" / "2.jsonl").write_bytes(gzip.compress(lines[0].encode() * 99)[:-9])
    with pytest.raises(DataError, match="read to its end"):
        join_events(tmp_path / "events", tmp_path / "log")


def test_compression_is_known_by_content(tmp_path: Path) -> None:
    """Plain, gzip, bzip2 and zstd, whatever the name."""
    lines = "\n".join(stream(random.Random(9), 120)).encode()
    packed = [
        lines,
        gzip.compress(lines),
        bz2.compress(lines),
        pa.compress(lines, codec="zstd", asbytes=True),
    ]
    logs = []
    for i, data in enumerate(packed):
        (tmp_path / f"{i}.events").write_bytes(data)
        assert_is_the_reader(tmp_path / str(i), tmp_path / f"{i}.events", spec=SPEC)
        logs.append(read_log(tmp_path / str(i) / "log", format="parquet"))
    for log in logs[1:]:
        pd.testing.assert_frame_equal(log, logs[0])


@pytest.mark.parametrize("as_text", [True, False])
def test_requests_in_parquet_are_read_as_in_json(tmp_path: Path, as_text: bool) -> None:
    """A request as an object or as its text gives the features that its JSON line gives."""
    events = [
        {"type": "bid", "auction_id": f"a{i}", "timestamp_ms": MIDNIGHT + i, "bid_cpm": 1.0 + i, "currency": "USD",
         "request": {"at": 1, "imp": [{"id": "1"}], "device": {"geo": {"country": "DEU"}}},
         "line_item": {"id": "l", "type": "t"}, "price_cpm": None}
        for i in range(5)
    ]  # fmt: skip
    events.append({"type": "win", "auction_id": "a3", "timestamp_ms": MIDNIGHT + 9, "price_cpm": 2.0})
    if as_text:
        tables = [
            {key: json.dumps(cell) if isinstance(cell, dict) else cell for key, cell in event.items()}
            for event in events
        ]
    else:
        tables = events
    pq.write_table(pa.Table.from_pylist(tables), tmp_path / "events.parquet")
    join_events(tmp_path / "events.parquet", tmp_path / "log", spec=SPEC)
    expected = read_log(written(tmp_path, events), format="openrtb", spec=SPEC)
    assert expected["country"].tolist() == ["DEU"] * 5
    pd.testing.assert_frame_equal(read_log(tmp_path / "log", format="parquet"), expected)


def test_avro_is_read_as_json_is(tmp_path: Path) -> None:
    """Requests as text, absent keys as null; a damaged file is refused."""
    fields = [("type", "string"), ("auction_id", "string"), ("timestamp_ms", "long"), ("bid_cpm", "double"),
              ("currency", "string"), ("request", "string"), ("price_cpm", "double")]  # fmt: skip
    schema = {
        "type": "record", "name": "event",
        "fields": [{"name": name, "type": ["null", kind], "default": None} for name, kind in fields],
    }  # fmt: skip
    request = {"at": 1, "imp": [{}], "device": {"geo": {"country": "DEU"}}}
    events = [at("bid", f"a{i}", i, request=request) for i in range(9)] + [at("win", "a3", 4, price_cpm=2.0)]
    records = [
        {**event, "request": json.dumps(request) if event["type"] == "bid" else None} for event in events
    ]
    with (tmp_path / "events").open("wb") as file:
        fastavro.writer(file, fastavro.parse_schema(schema), records, codec="deflate")
    join_events(tmp_path / "events", tmp_path / "log", spec=SPEC)
    expected = read_log(written(tmp_path, events), format="openrtb", spec=SPEC)
    pd.testing.assert_frame_equal(read_log(tmp_path / "log", format="parquet"), expected)
    whole = (tmp_path / "events").read_bytes()
    for damaged in (whole[:-40], whole[:60], whole[:300] + b"x" * 40 + whole[340:]):
        (tmp_path / "events").write_bytes(damaged)
        with pytest.raises(DataError, match="read to its end"):
            join_events(tmp_path / "events", tmp_path / "other", spec=SPEC)


FLAT_SPEC = FeatureSpec(
    (
        Feature("country", FeatureKind.CATEGORY, "device.geo.country"),
        Feature("exchange", FeatureKind.CATEGORY, "ext.exchange"),
        Feature("day", FeatureKind.NUMBER, "ext.day"),
    )
)


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_flat_tables_are_the_events_they_came_from(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    """Bids with their features as columns, as a bidder may log them, join to the rows of their JSON lines.

    Requests of the JSON lines are rebuilt from the columns; times are whole, doubles or timestamps.
    """
    folder, rng = tmp_path_factory.mktemp("flat"), random.Random(seed)
    bids, outcomes, lines = [], [], []
    for i in range(60):
        key = {
            "auction_id": f"a{rng.randrange(40)}",
            "timestamp_ms": MIDNIGHT + i * 4_000_000 + rng.choice((0.5, 0.25)),
        }
        country, day = rng.choice(("DEU", None)), rng.choice((1.0, None))
        terms = {
            "bid_cpm": 1.0 + rng.randrange(9),
            "currency": "USD",
            "auction_type": 1,
            "floor_cpm": rng.choice((0.5, None)),
        }
        request = {"imp": [{}], "device": {"geo": {"country": country}}, "ext": {"day": day, "exchange": "x"}}
        if rng.random() < 0.6:
            bids.append({"type": "bid", **key, **terms, "country": country, "exchange": "x", "day": day})
            lines.append({"type": "bid", **key, **terms, "request": request})
        kind = rng.choice(("win", "loss", "click", "impression", "conversion"))
        notice = {"price_cpm": 1.5, "min_bid_to_win_cpm": rng.choice((2.0, None)), "loss_reason": 102}
        outcomes.append({"type": kind, **key, **notice})
        lines.append(outcomes[-1])
    bids.append({**bids[0], "auction_id": "last"})
    lines.append({**next(line for line in lines if line["type"] == "bid"), "auction_id": "last"})
    for name, rows in (("bids", bids), ("outcomes", outcomes)):
        table = pd.DataFrame(rows)
        if rng.random() < 0.5:
            table["timestamp_ms"] = pd.to_datetime(table["timestamp_ms"], unit="ms", utc=True)
        table.to_parquet(folder / f"{name}.parquet", index=False)
    report = join_events(
        [folder / "bids.parquet", folder / "outcomes.parquet"], folder / "log", spec=FLAT_SPEC
    )
    expected = read_log(written(folder, lines), format="openrtb", spec=FLAT_SPEC)
    pd.testing.assert_frame_equal(read_log(folder / "log", format="parquet"), expected)
    assert report.reading.notes == reading_report(expected).notes
    assert sum(n for name, n in report.events.items() if name != "read") == report.events["read"]


def test_bad_rows_of_a_table_are_counted(tmp_path: Path) -> None:
    """By the rules of the lines; NaN is null there, as pandas writes it."""
    good = {
        "type": "bid",
        "auction_id": "g",
        "timestamp_ms": float(MIDNIGHT),
        "bid_cpm": 1.0,
        "floor_cpm": float("nan"),
    }
    rows = [
        good,
        {**good, "type": "view"},
        {**good, "type": None},
        {**good, "auction_id": ""},
        {**good, "auction_id": None},
        {**good, "timestamp_ms": -1.0},
        {**good, "timestamp_ms": float("nan")},
        {**good, "bid_cpm": float("nan")},
        {**good, "floor_cpm": float("inf")},
        {**good, "auction_type": 1.5},
        {**good, "type": "loss", "auction_id": "l", "loss_reason": 3e9},
        {**good, "type": "win", "auction_id": "g", "price_cpm": float("inf")},
    ]
    pd.DataFrame(rows).to_parquet(tmp_path / "t.parquet")
    report = join_events(
        tmp_path / "t.parquet", tmp_path / "log", currency="USD", auction_type=1, rules=ANYTHING
    )
    assert report.reading.malformed == {
        "auction_type_is_not_an_integer": 1, "bid_without_bid_cpm": 1, "floor_cpm_is_not_a_number": 1,
        "loss_reason_is_not_an_integer": 1, "no_auction_id": 2, "no_timestamp_ms": 2,
        "price_cpm_is_not_a_number": 1, "unknown_type": 2,
    }  # fmt: skip
    log = read_log(tmp_path / "log", format="parquet")
    assert log["auction_id"].tolist() == ["g"]
    assert log["floor_cpm"].isna().all()
    assert (log["currency"][0], log["auction_type"][0]) == ("USD", 1)


def test_a_rerun_writes_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order of files and lines; and a replayed file changes counts only."""
    lines = [line for line in stream(random.Random(4), 900) if line.startswith('{"type"')]
    written(tmp_path / "a", lines)
    written(tmp_path / "b", lines[::-1][:300], "1.jsonl")
    written(tmp_path / "b", lines[::-1][300:], "0.jsonl")
    written(tmp_path / "b", lines[:400], "replayed.jsonl")
    once = join_events(tmp_path / "a", tmp_path / "log a", rules=ANYTHING, spec=SPEC)
    twice = join_events(tmp_path / "b", tmp_path / "log b", rules=ANYTHING, spec=SPEC)
    files = sorted(path.relative_to(tmp_path / "log a") for path in (tmp_path / "log a").glob("day=*/*"))
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "log a" / file).read_bytes() == (tmp_path / "log b" / file).read_bytes()
    assert twice.events["read"] == once.events["read"] + 400
    assert twice.events["used"] == once.events["used"]
    assert json.loads((tmp_path / "log b" / "_join.json").read_text()) == twice.to_json()


def at(kind: str, auction_id: str, hours: float, **cells: Any) -> dict[str, Any]:
    """An event so many hours after midnight."""
    event = {
        "type": kind,
        "auction_id": auction_id,
        "timestamp_ms": MIDNIGHT + int(hours * 3_600_000),
        **cells,
    }
    if kind == "bid":
        return {"request": {"at": 1, "imp": [{}]}, "bid_cpm": 2.0, "currency": "USD", **event}
    return event


HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)


def test_windows_and_clocks_are_exact(tmp_path: Path) -> None:
    """On the edge an event counts; beyond it, it is dropped and counted; the next in time takes its place."""
    s = 1 / 3600
    events = [
        at("bid", "a", 1), at("win", "a", 2), at("impression", "a", 2), at("click", "a", 4), at("conversion", "a", 7),
        at("bid", "b", 1), at("win", "b", 2 + s), at("click", "b", 3 + s),
        at("bid", "c", 1), at("win", "c", 1 - s), at("impression", "c", 1 + s), at("click", "c", 1 - s),
        at("bid", "d", 1), at("win", "d", 1), at("click", "d", 1 - 3 * s), at("click", "d", 1.5),
        at("conversion", "d", 1.5 - 3 * s), at("conversion", "d", 4.5 + s),
        at("click", "nobody", 1),
    ]  # fmt: skip
    rules = JoinRules(notice_window=HOUR, click_window=2 * HOUR, conversion_window=3 * HOUR, clock_skew=2 * SECOND,
                      max_out_of_time=1.0)  # fmt: skip
    log, report = joined(tmp_path, events, rules)
    log = log.set_index("auction_id")
    assert log["won"].tolist() == [True, False, True, True]
    assert log["clicked"].tolist() == [True, False, True, True]
    assert log["converted"].tolist() == [True, False, False, False]
    assert log.loc["c", "click_timestamp"] == log.loc["c", "timestamp"] + SECOND  # moved to its impression
    assert log.loc["d", "click_timestamp"] == pd.Timestamp("2026-03-01T01:30:00Z")
    assert report.out_of_time == {
        "click_before_impression": 1,
        "conversion_before_click": 1,
        "late_click": 1,
        "late_conversion": 1,
        "late_win": 1,
    }
    assert report.corrected == {"click": 1, "win": 1}
    assert report.reading.notes == {"event_without_bid": 1}


@settings(max_examples=5)
@given(st.integers(0, 2**32))
def test_a_final_day_never_changes(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Later files bring events dated from the watermark on: a final day keeps its bytes, watermark or not."""
    folder, rng = tmp_path_factory.mktemp("final"), random.Random(seed)
    as_of = datetime(2026, 3, 2, 8, tzinfo=UTC)
    rules = JoinRules(as_of=as_of, notice_window=HOUR, click_window=2 * HOUR, conversion_window=5 * HOUR,
                      clock_skew=SECOND, max_out_of_time=1.0, max_malformed=1.0)  # fmt: skip
    lines = [line for line in stream(rng, 150) if line.startswith('{"type"') and '"timestamp_ms": 17' in line]
    later_rules = JoinRules(notice_window=HOUR, click_window=2 * HOUR, conversion_window=5 * HOUR,
                            clock_skew=SECOND, max_out_of_time=1.0, max_malformed=1.0)  # fmt: skip
    lines.append(json.dumps(at("bid", "first", 3)))
    early = [line for line in lines if json.loads(line)["timestamp_ms"] < as_of.timestamp() * 1000]
    final, tables = [], []
    for chosen, its_rules in ((early, later_rules), (lines, rules), (lines, later_rules)):
        target = folder / f"{len(tables)}"
        report = join_events(written(target, chosen), target / "log", rules=its_rules)
        final.append(report.days[0].is_final)
        tables.append(pq.read_table(target / "log" / "day=2026-03-01" / "auctions.parquet"))
    assert final == [False, True, False]
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])


def test_days_are_chosen_and_must_be_there(tmp_path: Path) -> None:
    """Other days make no rows and are left as they were; a gap is reported, a missing chosen day refused."""
    events = [at("bid", "a", 1), at("bid", "b", 25), at("bid", "d", 73), at("win", "b", 26)]
    _, report = joined(tmp_path, events)
    assert report.missing_days == (date(2026, 3, 3),)
    before = (tmp_path / "log/day=2026-03-01/auctions.parquet").stat().st_mtime_ns
    chosen = JoinRules(days=(date(2026, 3, 2), date(2026, 3, 2)))
    log, report = joined(tmp_path, events, chosen)
    assert log["auction_id"].tolist() == ["a", "b", "d"]
    assert [day.n_rows for day in report.days] == [1]
    assert report.set_aside == {"outside_days": 2}
    assert (tmp_path / "log/day=2026-03-01/auctions.parquet").stat().st_mtime_ns == before
    with pytest.raises(DataError, match=r"every day .*2026-03-03"):
        joined(tmp_path, events, JoinRules(days=(date(2026, 3, 2), date(2026, 3, 4))))
    with pytest.raises(DataError, match="outside_days"):
        joined(tmp_path / "none", [at("bid", "a", 1)], JoinRules(days=(date(2026, 3, 2), date(2026, 3, 2))))


def test_money_is_converted_at_the_rate_of_the_day(tmp_path: Path) -> None:
    """Every money column, by the day of the bid; a bid without a rate makes no row."""
    rates = {(date(2026, 3, 1), "EUR"): 1.25, (date(2026, 3, 2), "EUR"): 1.5}
    events = [
        at("bid", "a", 1, currency="EUR", floor_cpm=1.0, value_per_click=0.5, propensity=3.0),
        at("win", "a", 25, price_cpm=1.0, min_bid_to_win_cpm=0.5),
        at("bid", "b", 25, currency="EUR"), at("bid", "c", 25, currency="USD"), at("bid", "d", 25, currency="GBP"),
    ]  # fmt: skip
    log, report = joined(tmp_path, events, JoinRules(currency="USD", rates=rates))
    log = log.set_index("auction_id")
    money = ["bid_cpm", "floor_cpm", "price_cpm", "min_bid_to_win_cpm", "value_per_click", "propensity"]
    assert log.loc["a", money].tolist() == [2.5, 1.25, 1.25, 0.625, 0.625, 3.0]
    assert log.loc[["b", "c"], "bid_cpm"].tolist() == [3.0, 2.0]
    assert set(log["currency"]) == {"USD"}
    assert report.set_aside == {"no_exchange_rate": 1}
    assert log.index.tolist() == ["a", "b", "c"]


def test_a_clock_that_is_off_is_named_and_corrected(tmp_path: Path) -> None:
    """Wins dated an hour early refuse the join, and say by how much; with the offset they join."""
    events = [at("bid", f"a{i}", 5) for i in range(40)] + [at("win", f"a{i}", 4.001) for i in range(40)]
    rules = JoinRules(notice_window=HOUR, clock_skew=SECOND)
    with pytest.raises(DataError, match=r"win events are out of time; found 40 of 40, typically -3,596.4 s"):
        joined(tmp_path, events, rules)
    assert not (tmp_path / "log").exists()
    shifted = JoinRules(notice_window=HOUR, clock_skew=SECOND, clock_offset={"win": HOUR})
    log, _ = joined(tmp_path, events, shifted)
    assert log["won"].all()
    fast_bids = JoinRules(notice_window=HOUR, clock_skew=SECOND, clock_offset={"bid": -HOUR})
    log, _ = joined(tmp_path, events, fast_bids)
    assert log["won"].all()
    assert log["timestamp"].iloc[0] == pd.Timestamp("2026-03-01T04:00:00Z")


def test_what_is_known_of_a_day_is_in_its_file(tmp_path: Path) -> None:
    """Rows, outcomes and rules travel with the Parquet file; row groups are in order of time."""
    joined(tmp_path, [at("bid", "a", 1), at("win", "a", 2)], JoinRules(notice_window=HOUR))
    metadata = pq.read_metadata(tmp_path / "log/day=2026-03-01/auctions.parquet").metadata
    told = json.loads(metadata[b"bidml.join"])
    assert (told["rows"], told["won"], told["final"], told["rules"]) == (
        1,
        1,
        False,
        {"notice_window_s": 3600.0},
    )


@pytest.mark.parametrize(
    "rules",
    [
        {"days": (date(2026, 3, 2), date(2026, 3, 1))},
        {"days": (date(2024, 3, 2), date(2026, 3, 1))},
        {"as_of": datetime(2026, 3, 2)},
        {"click_window": -SECOND},
        {"clock_offset": {"view": HOUR}},
        {"rates": {(date(2026, 3, 1), "EUR"): 1.0}},
        {"currency": "usd"},
        {"currency": "USD", "rates": {(date(2026, 3, 1), "EUR"): float("nan")}},
        {"max_malformed": 2.0},
    ],
    ids=lambda rules: "-".join(rules),
)
def test_rules_that_make_no_sense_are_refused(rules: dict[str, Any]) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError):
        JoinRules(**rules)


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    """A spec with an outcome, a feature of another type than its column, too little memory, a glob."""
    source = written(tmp_path, [at("bid", "a", 1)])
    for feature in (
        Feature("clicked", FeatureKind.NUMBER, "ext.clicked"),
        Feature("exchange", FeatureKind.NUMBER, "ext.exchange"),
    ):
        with pytest.raises(SpecError):
            join_events(source, tmp_path / "log", spec=FeatureSpec((feature,)))
    with pytest.raises(SpecError, match="not below its impressions"):
        join_events(source, tmp_path / "log", spec=FeatureSpec(SPEC.features, "imp.ext.time"))
    for options in ({"memory_limit_mb": 10}, {"n_threads": 0}):
        with pytest.raises(ConfigError, match="100 MB"):
            join_events(source, tmp_path / "log", **options)
    with pytest.raises(ConfigError, match="without"):
        join_events(source, tmp_path / "log*")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl"]


def test_the_spill_keeps_the_result(tmp_path: Path) -> None:
    """150,000 auctions within 100 MB: buckets and disk, the same rows."""
    n = 150_000
    ids = [f"{i * 2654435761 % 2**32:08x}-{'x' * 60}" for i in range(n)]
    bids = pd.DataFrame({"type": "bid", "auction_id": ids, "timestamp_ms": [MIDNIGHT + i * 500 for i in range(n)],
                         "bid_cpm": 1.0, "currency": "USD", "auction_type": 1})  # fmt: skip
    wins = pd.DataFrame({"type": "win", "auction_id": ids[::7], "timestamp_ms": bids["timestamp_ms"][::7] + 9,
                         "price_cpm": 0.5})  # fmt: skip
    pd.concat([bids, bids[:1000]]).sample(frac=1, random_state=0).to_parquet(tmp_path / "bids.parquet")
    wins.to_parquet(tmp_path / "wins.parquet")
    events = [tmp_path / "bids.parquet", tmp_path / "wins.parquet"]
    report = join_events(events, tmp_path / "log", memory_limit_mb=100)
    log = read_log(tmp_path / "log", format="parquet")
    assert log["auction_id"].tolist() == ids
    assert log["won"].tolist() == [i % 7 == 0 for i in range(n)]
    assert report.reading.notes == {"repeated_bid": 1000}
    assert report.n_rows == n
