"""`bidml join`: what it prints, exit codes, and texts as rules."""

from __future__ import annotations

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from event_streams import MIDNIGHT

from bidml.cli import main
from bidml.errors import ConfigError, DataError
from bidml.log import JoinRules, read_log
from bidml.log.join.options import read_rates, rules_from_options

BID = {
    "type": "bid", "auction_id": "a", "timestamp_ms": MIDNIGHT, "bid_cpm": 2.0, "currency": "EUR",
    "request": {"at": 1, "imp": [{}], "device": {"geo": {"country": "DEU"}}},
}  # fmt: skip
WIN = {"type": "win", "auction_id": "a", "timestamp_ms": MIDNIGHT + 3_600_000, "price_cpm": 2.0}


@pytest.fixture
def bidml(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bidml", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return run


@pytest.fixture
def events(tmp_path: Path) -> Path:
    (tmp_path / "events.jsonl").write_text(f"{json.dumps(BID)}\n{json.dumps(WIN)}\n")
    return tmp_path / "events.jsonl"


def test_join_writes_the_log_and_tells_the_counts(bidml: Any, events: Path, tmp_path: Path) -> None:
    """Every option reaches its rule; the report is JSON or text."""
    (tmp_path / "spec.toml").write_text(
        '[[features]]\nname = "country"\nkind = "category"\nsource = "device.geo.country"\n'
    )
    (tmp_path / "rates.csv").write_text("day,currency,rate\n2026-03-01,EUR,1.5\n")
    options = (
        "--first-day", "2026-03-01", "--as-of", "2026-03-09", "--notice-window", "1h", "--click-window", "1d",
        "--conversion-window", "5d", "--clock-skew", "2s", "--clock-offset", "win=-30m", "--convert-to", "USD",
        "--rates", tmp_path / "rates.csv", "--spec", tmp_path / "spec.toml", "--memory-mb", "200", "--threads", "1",
    )  # fmt: skip
    code, out, _ = bidml("join", events, "--out", tmp_path / "log", *options, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["events"]["read"] == report["events"]["used"] == 2
    assert report["rules"] == {
        "days": ["2026-03-01", "2026-03-01"], "as_of": "2026-03-09T00:00:00+00:00", "notice_window_s": 3600.0,
        "click_window_s": 86400.0, "conversion_window_s": 432000.0, "clock_skew_s": 2.0,
        "clock_offset_s": {"win": -1800.0}, "currency": "USD", "rates": {"2026-03-01 EUR": 1.5},
    }  # fmt: skip
    assert report["days"][0]["final"] is True
    log = read_log(tmp_path / "log", format="parquet")
    assert log[["country", "currency", "bid_cpm", "won"]].iloc[0].tolist() == ["DEU", "USD", 3.0, True]
    text = bidml("join", events, events, "--out", tmp_path / "text")[1]
    assert "1 auctions of 4 events" in text
    assert "noted, repeated_win: 1, such as a" in text
    assert "2026-03-01: 1 rows, 1 won, 0 clicked, 0 converted (EUR; provisional)" in text


def test_errors_are_exit_codes(bidml: Any, events: Path, tmp_path: Path) -> None:
    """2 for options, 3 for data; nothing is written."""
    out = ("--out", tmp_path / "log")
    assert bidml("join", events, *out, "--click-window", "soon")[0] == 2
    assert bidml("join", tmp_path / "none", *out)[0] == 3
    code, _, err = bidml("join", events, *out, "--first-day", "2026-03-02")
    assert code == 3
    assert "outside_days" in err
    assert not (tmp_path / "log").exists()


def test_no_option_is_the_default() -> None:
    """The command and the function agree."""
    assert rules_from_options() == JoinRules()
    days = rules_from_options(
        first_day="2026-03-01", last_day="2026-03-03", as_of="2026-03-04T02:00:00+02:00"
    )
    assert days.days == (date(2026, 3, 1), date(2026, 3, 3))
    assert days.as_of == datetime(2026, 3, 4, tzinfo=UTC)
    assert rules_from_options(clock_offsets=["win=+250ms"]).clock_offset == {"win": timedelta(seconds=0.25)}


@pytest.mark.parametrize(
    "options",
    [
        {"first_day": "yesterday"},
        {"last_day": "2026-03-01"},
        {"as_of": "noon"},
        {"click_window": "1 day"},
        {"click_window": "-1d"},
        {"clock_offsets": ["win"]},
        {"clock_offsets": ["view=1h"]},
    ],
    ids=str,
)
def test_texts_that_are_no_rule_are_refused(options: dict[str, Any]) -> None:
    """With what was written."""
    with pytest.raises(ConfigError):
        rules_from_options(**options)


@pytest.mark.parametrize(
    "text",
    ["", "day,currency\n2026-03-01,EUR\n", "day,currency,rate\n2026-03-01,EUR,x\n", "day,currency,rate\nx,EUR,1\n",
     "day,currency,rate\n2026-03-01,EUR,1\n2026-03-01,EUR,2\n", "day,currency,rate\n2026-03-01,EUR\n"],
)  # fmt: skip
def test_rates_that_cannot_be_read_are_refused(tmp_path: Path, text: str) -> None:
    """An empty file of rates has none: every foreign bid is then set aside, and counted."""
    path = tmp_path / "rates.csv"
    path.write_text(text)
    if not text:
        assert read_rates(path) == {}
        return
    with pytest.raises(DataError, match="day, currency and rate"):
        read_rates(path)
