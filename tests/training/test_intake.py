"""What goes into a model: complete days, each row once, and an eye on how the data moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, RefusedError
from bidml.features import raw_columns
from training.config import AlarmConfig, DataConfig
from training.drift import drift, profile_of, psi_of, refuse_drift
from training.intake import one_copy, wait_for_files
from training.window import Window

WINDOW = Window.parse("2026-11-01/2026-11-02")
DAYS = DataConfig(days="date={date}", marker="_SUCCESS")
SPEC = FeatureSpec(
    (
        Feature("os", FeatureKind.CATEGORY, "device.os"),
        Feature("width", FeatureKind.NUMBER, "device.w"),
    )
)


def days_in(folder: Path, *days: str, marker: str | None = "") -> Path:
    for day in days:
        place = folder / f"date={day}"
        place.mkdir(parents=True)
        (place / "auctions.csv").write_text(f"auction_id\n{day}\n")
        if marker is not None:
            (place / "_SUCCESS").write_text(marker)
    return folder


class Clock:
    """Time that passes only by sleeping; `at` runs when a moment has come."""

    def __init__(self, now: str = "2026-11-10T00:00:00+00:00") -> None:
        self.time = datetime.fromisoformat(now)
        self.at: dict[datetime, Callable[[], object]] = {}

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        for moment in [moment for moment in self.at if moment <= self.time]:
            self.at.pop(moment)()


# ---- windows and days ----


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-01/",
        "2026-11-02/2026-11-01",
        "2026-13-01",
        "20261101",
        "2026-11-01/2030-01-01",
        "a/b/c",
        "last-0-hours",
        "2026-11-01T24",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    """First and last day, in order, at most a year."""
    with pytest.raises(ConfigError, match="window"):
        Window.parse(text)


def test_a_window_includes_both_days() -> None:
    """And ends where the next day begins."""
    assert Window.parse("2026-11-01").days == Window.parse("2026-11-01/2026-11-01").days
    assert (WINDOW.start, WINDOW.end) == (
        datetime(2026, 11, 1, tzinfo=UTC),
        datetime(2026, 11, 3, tzinfo=UTC),
    )


def test_windows_of_hours() -> None:
    """Both hours included; the recent ones are full."""
    window = Window.parse("2026-11-01T22/2026-11-02T03")
    assert (window.start.hour, window.end.hour, len(window.hours)) == (22, 4, 6)
    assert [str(day) for day in window.days] == ["2026-11-01", "2026-11-02"]
    now = datetime(2026, 11, 2, 4, 59, tzinfo=UTC)
    assert Window.parse("last-6-hours", now=now) == window
    assert Window.parse("last-1-days", now=now) == Window.parse("2026-11-01")
    assert Window.parse("2026-11-01T00/2026-11-01T23") == Window.parse("2026-11-01")


@given(
    first=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),
    hours=st.integers(1, 24 * 366),
)
def test_a_window_is_what_its_name_says(first: datetime, hours: int) -> None:
    start = first.replace(minute=0, second=0, microsecond=0, tzinfo=UTC)
    window = Window(start, start + timedelta(hours=hours))
    assert Window.parse(str(window).replace("_", "/")) == window
    assert window.days[0] == start.date()
    assert window.hours[-1] + timedelta(hours=1) == window.end


def test_hours_have_their_own_folders(tmp_path: Path) -> None:
    """Complete one by one, across midnight."""
    hourly = DAYS.model_copy(update={"days": "date={date}/hour={hour}"})
    window = Window.parse("2026-11-01T22/2026-11-02T01")
    for name in ("date=2026-11-01/hour=22", "date=2026-11-01/hour=23", "date=2026-11-02/hour=00"):
        days_in(tmp_path, name.removeprefix("date="))
    with pytest.raises(DataError, match="2026-11-02T01"):
        wait_for_files(tmp_path, hourly, window, now=Clock().now)
    days_in(tmp_path, "2026-11-02/hour=01")
    found = wait_for_files(tmp_path, hourly, window, now=Clock().now)
    assert [path.parent.name for path in found.files] == ["hour=22", "hour=23", "hour=00", "hour=01"]


def test_the_files_of_complete_days_are_taken(tmp_path: Path) -> None:
    """Not those of other days; their digest is of the content, not of the names."""
    days_in(tmp_path, "2026-11-01", "2026-11-02", "2026-11-03")
    found = wait_for_files(tmp_path, DAYS, WINDOW, now=Clock().now)
    assert [path.parent.name for path in found.files] == ["date=2026-11-01", "date=2026-11-02"]
    assert found.rows is None
    (tmp_path / "date=2026-11-01" / "auctions.csv").rename(tmp_path / "date=2026-11-01" / "renamed.csv")
    assert wait_for_files(tmp_path, DAYS, WINDOW, now=Clock().now).digest == found.digest
    (tmp_path / "date=2026-11-01" / "renamed.csv").write_text("auction_id\nother\n")
    assert wait_for_files(tmp_path, DAYS, WINDOW, now=Clock().now).digest != found.digest


def test_an_incomplete_day_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    """The message names it."""
    days_in(tmp_path, "2026-11-01")
    days_in(tmp_path, "2026-11-02", marker=None)
    patient = DAYS.model_copy(update={"wait_minutes": 30.0})
    clock = Clock()
    with pytest.raises(DataError, match=r"complete.*2026-11-02"):
        wait_for_files(tmp_path, patient, WINDOW, now=clock.now, sleep=clock.sleep)
    assert clock.time >= datetime(2026, 11, 10, 0, 30, tzinfo=UTC)
    clock = Clock()
    clock.at[clock.time + timedelta(minutes=10)] = (tmp_path / "date=2026-11-02" / "_SUCCESS").touch
    assert len(wait_for_files(tmp_path, patient, WINDOW, now=clock.now, sleep=clock.sleep).files) == 2
    with pytest.raises(DataError, match="2026-10-31"):
        wait_for_files(tmp_path, DAYS, Window.parse("2026-10-31/2026-11-02"), now=Clock().now)


def test_clicks_have_time_to_arrive(tmp_path: Path) -> None:
    """The window must have ended long enough ago."""
    days_in(tmp_path, "2026-11-01", "2026-11-02")
    ripe = DAYS.model_copy(update={"maturity_hours": 24.0})
    with pytest.raises(DataError, match="clicks"):
        wait_for_files(tmp_path, ripe, WINDOW, now=Clock("2026-11-03T23:59:00+00:00").now)
    assert wait_for_files(tmp_path, ripe, WINDOW, now=Clock("2026-11-04T00:00:00+00:00").now).files


def test_markers_may_promise_rows(tmp_path: Path) -> None:
    """The sum counts when all of them say it."""
    days_in(tmp_path, "2026-11-01", "2026-11-02", marker=json.dumps({"rows": 7}))
    assert wait_for_files(tmp_path, DAYS, WINDOW, now=Clock().now).rows == 14
    (tmp_path / "date=2026-11-02" / "_SUCCESS").write_text("done")
    assert wait_for_files(tmp_path, DAYS, WINDOW, now=Clock().now).rows is None


# ---- one copy of each row ----


def table(rows: int = 12) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    won = rng.random(rows) < 0.7
    return pd.DataFrame(
        {
            "auction_id": [f"a{i}" for i in range(rows)],
            "timestamp": pd.to_datetime("2026-11-01T12:00:00Z")
            + pd.to_timedelta(rng.integers(0, 3600, rows), "s"),
            "bid_cpm": rng.random(rows) + 0.1,
            "won": won,
            "clicked": won & (rng.random(rows) < 0.5),
            "os": rng.choice(["iOS", "Android"], rows),
        }
    )


@settings(max_examples=25)
@given(copies=st.lists(st.integers(0, 11), max_size=20), seed=st.integers(0, 100))
def test_any_order_and_any_copies_give_the_same_rows(copies: list[int], seed: int) -> None:
    """Replayed and shuffled input is the same input."""
    log = table()
    more = pd.concat([log, log.iloc[copies]]).sample(frac=1.0, random_state=seed).reset_index(drop=True)
    expected, _ = one_copy(log, WINDOW)
    found, counts = one_copy(more, WINDOW)
    pd.testing.assert_frame_equal(found, expected)
    assert counts["equal copies"] == len(copies)
    assert counts["superseded by a later outcome"] == 0


@settings(max_examples=25)
@given(seed=st.integers(0, 100))
def test_a_late_click_supersedes_the_row_without_it(seed: int) -> None:
    """A row written before its win and its click were known is the same row."""
    log = table()
    early = log.assign(won=False, clicked=False)
    late = (log["won"] | log["clicked"]).sum()
    mixed = pd.concat([early, log]).sample(frac=1.0, random_state=seed)
    found, counts = one_copy(mixed, WINDOW)
    pd.testing.assert_frame_equal(found, one_copy(log, WINDOW)[0])
    assert counts == {
        "outside the window": 0,
        "equal copies": len(log) - late,
        "superseded by a later outcome": late,
    }


def test_two_auctions_of_one_name_are_left_to_validation() -> None:
    """They differ in what was known before the bid: one of them is wrong."""
    log = table()
    other = log.assign(bid_cpm=log["bid_cpm"] + 1.0)
    found, counts = one_copy(pd.concat([log, other]), WINDOW)
    assert len(found) == 2 * len(log)
    assert counts["superseded by a later outcome"] == 0


def test_rows_without_a_name_are_all_kept() -> None:
    """They are quarantined and counted, not merged."""
    log = table().assign(auction_id=None, bid_cpm=1.0, os="iOS")
    log["timestamp"] = log["timestamp"].iloc[0]
    assert len(one_copy(log, WINDOW)[0]) == len(log.drop_duplicates())
    with pytest.raises(DataError, match="auction_id"):
        one_copy(log.drop(columns="auction_id"), WINDOW)


def test_rows_outside_the_window_are_left_out_and_counted() -> None:
    """Not quarantined: nothing is wrong with them."""
    log = table()
    log.loc[:2, "timestamp"] += pd.Timedelta(days=3)
    found, counts = one_copy(log, WINDOW)
    assert (len(found), counts["outside the window"]) == (len(log) - 3, 3)


# ---- drift ----


def features(seed: int, rows: int = 4000, **changes: Any) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    log = pd.DataFrame(
        {
            "os": rng.choice(["iOS", "Android", None], rows, p=[0.5, 0.4, 0.1]),
            "width": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(320.0, 50.0, rows)),
            "won": rng.random(rows) < 0.5,
            "bid_cpm": rng.lognormal(0.0, 0.5, rows),
        }
    )
    log["clicked"] = log["won"] & (rng.random(rows) < 0.1)
    log["price_cpm"] = log["bid_cpm"].where(log["won"])
    return log.assign(**changes)


def moved(log: pd.DataFrame) -> dict[str, Any]:
    was = features(0)
    profile = json.loads(json.dumps(profile_of(raw_columns(was, SPEC), SPEC, was), allow_nan=False))
    return drift(profile, raw_columns(log, SPEC), SPEC, log)


counts = st.lists(st.integers(0, 1000), min_size=2, max_size=8)


@given(counts, counts)
def test_psi_is_a_divergence(p: list[int], q: list[int]) -> None:
    """Not negative, 0 for equal shares, symmetric, finite."""
    size = min(len(p), len(q))
    p, q = p[:size], q[:size]
    assert psi_of(p, p) == 0.0
    assert psi_of(p, [7 * count for count in p]) == 0.0
    found = psi_of(p, q)
    assert 0.0 <= found < float("inf")
    assert found == pytest.approx(psi_of(q, p), abs=1e-12)


def test_the_same_traffic_does_not_drift() -> None:
    """Another sample of one distribution."""
    found = moved(features(1))
    assert max(found["psi"].values()) < 0.02
    assert all(0.8 < ratio < 1.25 for ratio in found["ratios"].values())
    assert refuse_drift(found, AlarmConfig()) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"os": "iOS"}, "os"),
        ({"os": None}, "os"),
        ({"os": "a new system"}, "os"),
        ({"width": np.nan}, "width"),
        ({"width": 3200.0}, "width"),
        ({"price_cpm": 4000.0}, "median_price_cpm"),
        ({"clicked": True}, "ctr"),
    ],
)
def test_broken_fields_and_units_are_refused(changes: dict[str, Any], what: str) -> None:
    """Each by its name."""
    with pytest.raises(RefusedError, match=what):
        refuse_drift(moved(features(1, **changes)), AlarmConfig())


def test_a_smaller_shift_and_a_new_feature_are_told() -> None:
    """Worth a look, no more."""
    log = features(1)
    found = moved(log.assign(width=log["width"] + 25.0))
    assert [text.split()[0] for text in refuse_drift(found, AlarmConfig())] == ["width"]
    profile = profile_of(raw_columns(log, SPEC), SPEC, log)
    del profile["features"]["os"]
    assert refuse_drift(drift(profile, raw_columns(log, SPEC), SPEC, log), AlarmConfig()) == ["os is new"]


def test_other_hours_are_told_not_refused() -> None:
    """A refresh on six hours, after a week: hour and weekday have moved, and nothing is broken."""
    spec = FeatureSpec(
        (
            Feature("hour", FeatureKind.NUMBER, "derived.hour_of_day"),
            Feature("weekday", FeatureKind.NUMBER, "derived.weekday"),
        )
    )
    rng = np.random.default_rng(5)
    week = pd.DataFrame({"hour": rng.integers(0, 24, 5000), "weekday": rng.integers(0, 7, 5000)})
    hours = pd.DataFrame({"hour": rng.integers(6, 12, 500), "weekday": np.full(500, 3)})
    found = drift(profile_of(raw_columns(week, spec), spec, week), raw_columns(hours, spec), spec, hours)
    assert min(found["psi"].values()) > AlarmConfig().psi_refuse
    assert {text.split()[0] for text in refuse_drift(found, AlarmConfig())} == {"hour", "weekday"}
    with pytest.raises(RefusedError, match="weekday"):
        refuse_drift({**found, "clock": ["hour"]}, AlarmConfig())
