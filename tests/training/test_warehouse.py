"""The auction log built in a warehouse is that of `bidml join`, row by row and count by count."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.log import JoinRules, join_events, read_log, read_sample
from training.warehouse.__main__ import FOLDER, SHARED, for_duckdb

SPEC: Final = FeatureSpec((Feature("country", FeatureKind.CATEGORY, "device.geo.country"),))
MIDNIGHT: Final = 1_772_323_200_000  # 2026-03-01T00:00:00Z
HOUR: Final = 3_600_000
SCHEMA: Final = pa.schema(
    [("type", pa.string()), ("auction_id", pa.string()), ("timestamp_ms", pa.float64()),
     ("utc_offset_minutes", pa.float64()), ("exchange", pa.string()), ("line_item_id", pa.string()),
     ("currency", pa.string()), ("auction_type", pa.int64()), ("bid_cpm", pa.float64()),
     ("floor_cpm", pa.float64()), ("value_per_click", pa.float64()), ("propensity", pa.float64()),
     ("price_cpm", pa.float64()), ("min_bid_to_win_cpm", pa.float64()), ("loss_reason", pa.int64()),
     ("country", pa.string())]
)  # fmt: skip
RULES: Final = {
    "off": JoinRules(max_malformed=1.0, max_out_of_time=1.0),
    "all": JoinRules(
        days=(date(2026, 3, 1), date(2026, 3, 2)),
        as_of=datetime(2026, 3, 3, 20, tzinfo=UTC),
        notice_window=timedelta(hours=5),
        click_window=timedelta(hours=3),
        conversion_window=timedelta(hours=6),
        clock_skew=timedelta(minutes=90),
        currency="USD",
        rates={(date(2026, 3, 1), "EUR"): 1.25, (date(2026, 3, 2), "EUR"): 1.5},
        max_malformed=1.0,
        max_out_of_time=1.0,
    ),
}


def events(seed: int, n: int) -> list[dict[str, Any]]:
    """`n` rows about n / 5 auctions of three days: replays, junk, clocks that are off, outcomes without a bid."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for i in range(n):
        if rng.random() < 0.1 and rows:
            rows.append(rng.choice(rows))
            continue
        auction = rng.randrange(max(1, n // 5))
        kind = rng.choice(("bid", "bid", "win", "loss", "impression", "click", "conversion"))
        start = MIDNIGHT + auction % 3 * 24 * HOUR + auction * 1000
        lag = 0 if kind == "bid" else rng.randrange(-3 * HOUR, 9 * HOUR)
        row: dict[str, Any] = {
            "type": kind,
            "auction_id": f"a{auction}é",
            # no two different events of an auction at one time: which of them is first is the join's own order
            "timestamp_ms": start + lag + i + rng.choice((0.0, 0.25, 0.9997)),
        }
        if kind == "bid":
            row |= _bid(rng)
        if kind == "win":
            row["price_cpm"] = rng.choice((1.5, 1e-9, np.nan, None))
        if kind in ("win", "loss"):
            row["min_bid_to_win_cpm"] = rng.choice((0.5, 3.0, None))
        if kind == "loss":
            row["loss_reason"] = rng.choice((0, 1, 102, None))
        rows.append(row | rng.choice(_DAMAGE) if rng.random() < 0.05 else row)
    rng.shuffle(rows)
    return rows


def _bid(rng: random.Random) -> dict[str, Any]:
    return {
        "bid_cpm": rng.choice((1.0, 2.5, 1e300)),
        "currency": rng.choice(("USD", "EUR")),
        "auction_type": rng.choice((1, 2)),
        "country": rng.choice(("DEU", "")),
        "floor_cpm": rng.choice((0.25, np.nan, None)),
        "value_per_click": rng.choice((0.5, None)),
        "propensity": rng.choice((2.0, None)),
        "utc_offset_minutes": rng.choice((60.0, -330.0, None)),
        "exchange": rng.choice(("adx", None)),
        "line_item_id": rng.choice(("l1", None)),
    }


_DAMAGE: Final[tuple[dict[str, Any], ...]] = (
    {"type": None}, {"type": "view"}, {"auction_id": None}, {"auction_id": ""}, {"timestamp_ms": None},
    {"timestamp_ms": -1.0}, {"timestamp_ms": 1e300}, {"bid_cpm": np.inf}, {"bid_cpm": None}, {"floor_cpm": -np.inf},
    {"price_cpm": np.inf}, {"min_bid_to_win_cpm": np.inf},
)  # fmt: skip


def in_warehouse(
    source: Path, rules: JoinRules, folder: Path, keep_unclicked: float | None = None
) -> tuple[pd.DataFrame, Counter[str]]:
    """The log, and the events by fate, of the SQL files run in DuckDB as a user would."""

    def ms(span: timedelta | None) -> float | None:
        return None if span is None else span / timedelta(milliseconds=1)

    parameters: dict[str, Any] = {
        "as_of_ms": None if rules.as_of is None else rules.as_of.timestamp() * 1000.0,
        "notice_window_ms": ms(rules.notice_window),
        "click_window_ms": ms(rules.click_window),
        "conversion_window_ms": ms(rules.conversion_window),
        "clock_skew_ms": ms(rules.clock_skew),
        "first_day": rules.days[0] if rules.days else None,
        "last_day": rules.days[1] if rules.days else None,
        "currency": rules.currency,
        "keep_unclicked": keep_unclicked,
    }
    with duckdb.connect() as connection:
        run(connection, "0_tables.sql", {})
        connection.execute("ALTER TABLE bid_events ADD COLUMN country VARCHAR")
        connection.execute(f"INSERT INTO bid_events BY NAME SELECT * FROM read_parquet('{source}')")
        for (day, currency), rate in rules.rates.items():
            connection.execute("INSERT INTO exchange_rates VALUES (?, ?, ?)", [day, currency, rate])
        run(connection, "1_judge_events.sql", parameters)
        run(connection, "2_auction_log.sql", parameters)
        counted = run(connection, "3_event_counts.sql", {}).fetchall()
        export = (FOLDER / "duckdb" / "4_export.sql").read_text()
        connection.execute(export.replace("'auction_log'", f"'{folder / 'warehouse'}'"))
    counts: Counter[str] = Counter()
    for fate, _, n, _ in counted:
        counts[fate] += n
    return read_log(folder / "warehouse", format="parquet"), counts


def run(
    connection: duckdb.DuckDBPyConnection, name: str, parameters: dict[str, Any]
) -> duckdb.DuckDBPyConnection:
    sql = (FOLDER / "duckdb" / name).read_text()
    return connection.execute(sql, {key: cell for key, cell in parameters.items() if f"${key}" in sql})


def written(rows: list[dict[str, Any]], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    return path


def test_the_duckdb_files_are_those_for_bigquery() -> None:
    """One source: `python -m training.warehouse` writes them anew."""
    for name in SHARED:
        assert (FOLDER / "duckdb" / name).read_text() == for_duckdb(
            (FOLDER / "bigquery" / name).read_text()
        ), name


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("seed", range(4))
def test_the_warehouse_log_is_the_joined_one(tmp_path: Path, rules: JoinRules, seed: int) -> None:
    """Same rows, same cells, and each event counted under the same reason."""
    source = written(events(seed, 1500), tmp_path / "events.parquet")
    report = join_events(source, tmp_path / "joined", spec=SPEC, rules=rules)
    expected = read_log(tmp_path / "joined", format="parquet")
    found, counts = in_warehouse(source, rules, tmp_path)
    assert found.pop("sampling_rate").isna().all()
    pd.testing.assert_frame_equal(found, expected)
    assert counts.total() == report.events["read"]
    assert sum(n for name, n in report.events.items() if name != "read") == report.events["read"]
    assert counts["used"] == report.events["used"]
    assert counts["after_watermark"] == report.events["after_watermark"]
    assert counts["without_bid"] == report.events["without_bid"]
    parts = {
        "malformed: ": report.reading.malformed,
        "out_of_time: ": report.out_of_time,
        "repeated: ": {name.removeprefix("repeated_"): n for name, n in report.reading.notes.items()},
    }
    for prefix, by_rule in parts.items():
        named = {fate.removeprefix(prefix): n for fate, n in counts.items() if fate.startswith(prefix)}
        skipped = {"won_and_lost", "event_without_bid"}  # told by auction there, by event here
        assert named == {rule: n for rule, n in by_rule.items() if rule not in skipped}, prefix
    aside = sum(n for fate, n in counts.items() if fate.startswith("set_aside: "))
    assert aside == report.events["set_aside"]


def test_no_order_of_the_events_shows(tmp_path: Path) -> None:
    """Events of one auction at one time, too: the same log however the table is stored."""
    rows = [row | {"timestamp_ms": float(MIDNIGHT)} if row["timestamp_ms"] else row for row in events(1, 400)]
    logs = []
    for i in range(2):
        folder = tmp_path / str(i)
        folder.mkdir()
        random.Random(i).shuffle(rows)
        logs.append(in_warehouse(written(rows, folder / "events.parquet"), RULES["off"], folder)[0])
    pd.testing.assert_frame_equal(*logs)


def test_a_sample_in_the_warehouse_is_that_of_the_log(tmp_path: Path) -> None:
    """The same auctions, by the same hash, with the same rates."""
    source = written(events(3, 3000), tmp_path / "events.parquet")
    join_events(source, tmp_path / "joined", spec=SPEC, rules=RULES["off"])
    expected = read_sample(tmp_path / "joined", keep_unclicked=0.3)
    found, _ = in_warehouse(source, RULES["off"], tmp_path, keep_unclicked=0.3)
    pd.testing.assert_frame_equal(found[expected.columns], expected)
    pd.testing.assert_frame_equal(read_sample(tmp_path / "warehouse"), found)
    assert 0 < len(found) < len(read_log(tmp_path / "joined", format="parquet"))
