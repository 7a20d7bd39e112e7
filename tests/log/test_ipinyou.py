"""iPinYou files: all rows, exact joins, fen to CNY, local time to UTC."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pandas as pd
import pytest

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError
from bidml.features import raw_columns
from bidml.log import read_log, reading_report, validate
from bidml.log.ipinyou import FEATURES, RAW_COLUMNS, os_and_browser

IMPRESSIONS, CLICKS = "ipinyou_raw_imp.20131021.tsv.gz", "ipinyou_raw_clk.20131021.tsv.gz"


def line(bidid: str, *, logtype: str = "1", time: str = "20131021192300738", **cells: str) -> str:
    """One contest line with sane cells."""
    sane = {
        "bidid": bidid, "timestamp": time, "logtype": logtype, "ipinyouid": "u",
        "useragent": "windows_chrome",
        "ip": "1.2.3.*", "region": "216", "city": "217", "adexchange": "2", "domain": "d", "url": "null",
        "urlid": "null", "slotid": "s", "slotwidth": "300", "slotheight": "250", "slotvisibility": "Na",
        "slotformat": "Na", "slotprice": "5", "creative": "77", "bidprice": "294", "payprice": "70",
        "keypage": "null", "advertiser": "2821", "usertag": "1,2",
    }  # fmt: skip
    return "\t".join({**sane, **cells}[name] for name in RAW_COLUMNS)


def test_the_contest_files_join_on_bidid(shared_data: Path) -> None:
    """9,960 and 433 distinct bidids; three auctions are in both files; repeated rows are counted."""
    log = read_log([shared_data / IMPRESSIONS, shared_data / CLICKS], format="ipinyou")
    assert len(log) == log["auction_id"].nunique() == 9_960
    assert log["clicked"].sum() == 3
    assert (log["click_timestamp"].notna() == log["clicked"]).all()
    assert reading_report(log).notes == {
        "duplicate_impression": 40,
        "duplicate_click": 442 - 433,
        "click_without_impression": 430,
    }
    assert set(FEATURES) <= set(log.columns)
    checked = validate(log, needs=["price"])
    assert checked.quarantine.counts == {"price_below_floor": 14}


def test_a_log_without_clicks_has_no_clicked_column(shared_data: Path) -> None:
    """Unknown is not the same as unclicked."""
    log = read_log(shared_data / IMPRESSIONS, format="ipinyou")
    assert "clicked" not in log.columns
    with pytest.raises(DataError, match="no clicked among"):
        validate(log, needs=["ctr"])


def test_a_log_of_wins_teaches_no_win_rate(shared_data: Path) -> None:
    """Won impressions only: the refusal says what is missing."""
    with pytest.raises(DataError, match="no losses on price"):
        validate(read_log(shared_data / IMPRESSIONS, format="ipinyou"), needs=["win"])


def test_the_joined_file_reads_like_the_contest_files(shared_data: Path) -> None:
    """8,355 rows, one bidid twice, 5 clicks; its own weekday (Sunday is 0) and hour agree with ours."""
    log = read_log(shared_data / "ipinyou_2259_log_rows.tsv.gz", format="ipinyou")
    assert (len(log), log["clicked"].sum()) == (8_354, 5)
    assert reading_report(log).notes == {"duplicate_impression": 1}
    names = ["click", "weekday", "hour", "bidid"]
    raw = pd.read_csv(
        shared_data / "ipinyou_2259_log_rows.tsv.gz",
        sep="\t",
        header=None,
        usecols=range(4),
        names=names,
        dtype=str,
    ).drop_duplicates("bidid")
    both = log.merge(raw, left_on="auction_id", right_on="bidid", suffixes=("", "_file"))
    assert len(both) == 8_354
    assert ((both["weekday"] + 1) % 7 == both["weekday_file"].astype(int)).all()
    assert (both["hour_of_day"] == both["hour"].astype(int)).all()
    assert validate(log, needs=["ctr", "price"]).quarantine.counts == {"price_below_floor": 47}


def test_derived_clock_features_equal_the_readers(shared_data: Path) -> None:
    """UTC and the offset give back the local hour and weekday."""
    log = read_log(shared_data / IMPRESSIONS, format="ipinyou")
    spec = FeatureSpec(
        (
            Feature("hour_of_day", FeatureKind.NUMBER, "derived.hour_of_day"),
            Feature("weekday", FeatureKind.NUMBER, "derived.weekday"),
        )
    )
    computed = raw_columns(log.drop(columns=["hour_of_day", "weekday"]), spec)
    for name, cells in computed.items():
        assert (cells == log[name]).all()


def test_fen_become_cny_and_local_time_utc(tmp_path: Path) -> None:
    """294 fen a thousand are 2.94 CNY; 19:23 in Beijing is 11:23 UTC; "null" is null."""
    (tmp_path / "imp.txt").write_text(line("a") + "\n")
    row = read_log(tmp_path / "imp.txt", format="ipinyou").iloc[0]
    assert (row["bid_cpm"], row["price_cpm"], row["floor_cpm"]) == (2.94, 0.7, 0.05)
    assert (row["currency"], row["auction_type"], row["won"]) == ("CNY", 2, True)
    assert row["timestamp"] == pd.Timestamp("2013-10-21T11:23:00.738Z")
    assert (row["weekday"], row["hour_of_day"]) == (0.0, 19.0)
    assert (row["os"], row["browser"], row["slot_size"]) == ("windows", "chrome", "300x250")
    assert pd.isna(row["url"])
    in_fen = read_log(tmp_path / "imp.txt", format="ipinyou", price_unit="cpm").iloc[0]
    assert in_fen["bid_cpm"] == 294.0


def test_the_earliest_row_stays_whatever_the_order(tmp_path: Path) -> None:
    """Repeated bidids resolve the same from any order of lines."""
    lines = [
        line("a", time="20131021192300738", payprice="70"),
        line("a", time="20131021192300737", payprice="71"),
        line("b", payprice="80"),
        line("b", payprice="79"),
        line("a", logtype="2", time="20131021192400000"),
        line("a", logtype="3", time="20131021192500000"),
        line("a", logtype="9"),
    ]
    found = []
    for name, order in (("one", lines), ("other", lines[::-1])):
        path = tmp_path / name
        path.write_text("\r\n".join(order) + "\r\n")
        log = read_log(path, format="ipinyou").sort_values("auction_id")
        found.append(log[["auction_id", "price_cpm", "clicked", "converted"]].to_numpy().tolist())
        assert reading_report(log).notes == {"duplicate_impression": 2, "unknown_logtype": 1}
    assert found[0] == found[1] == [["a", 0.71, True, True], ["b", 0.79, False, False]]


def test_malformed_lines_are_counted(tmp_path: Path) -> None:
    """Short lines, bytes that are no text, and unreadable prices are left out with an example."""
    good = "\n".join(line(f"a{i}") for i in range(5)).encode()
    bad = [
        b"too\tshort",
        line("x").encode().replace(b"1.2.3", b"\xff\xfe"),
        line("y", payprice="dear").encode(),
    ]
    with bz2.open(tmp_path / "imp.bz2", "wb") as file:
        file.write(good + b"\n" + b"\n".join(bad))
    log = read_log(tmp_path, format="ipinyou")
    assert len(log) == 5
    report = reading_report(log)
    assert report.malformed == {"malformed_line": 2, "unreadable_time_or_price": 1}
    assert report.examples["malformed_line"] == "too\tshort"
    with pytest.raises(DataError, match="quarantined"):
        validate(log, needs=["price"])


def test_what_is_not_ipinyou_is_refused(tmp_path: Path) -> None:
    """Another format, no impressions, or a truncated gzip."""
    (tmp_path / "csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns between tabs"):
        read_log(tmp_path / "csv", format="ipinyou")
    (tmp_path / "clk").write_text(line("a", logtype="2"))
    with pytest.raises(DataError, match="hold impressions"):
        read_log(tmp_path / "clk", format="ipinyou")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(line("a").encode() * 99)[:-20])
    with pytest.raises(DataError, match="read to its end"):
        read_log(tmp_path / "cut.gz", format="ipinyou")
    with pytest.raises(ConfigError, match="declares these itself"):
        read_log(tmp_path / "clk", format="ipinyou", currency="USD")


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("windows_chrome", ("windows", "chrome")),
        ("Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1; Trident/4.0)", ("windows", "ie")),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 10_1_1 like Mac OS X) Mobile/14B100", ("ios", "other")),
        ("Mozilla/5.0 (Windows NT 6.1) Chrome/21.0 Safari/537.1", ("windows", "chrome")),
        ("", ("other", "other")),
    ],
)
def test_os_and_browser(agent: str, expected: tuple[str, str]) -> None:
    """Raw user agents and the tokens of the joined files read the same."""
    assert os_and_browser(agent) == expected
