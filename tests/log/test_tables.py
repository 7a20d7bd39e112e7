"""Parquet and CSV: exact cells, declared mappings, whole files or an error."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.contract import Feature, FeatureKind, FeatureSpec
from bidml.errors import ConfigError, DataError, SpecError
from bidml.features import raw_columns
from bidml.log import infer_spec, read_log, reading_report, validate, write_log
from bidml.log.conform import conform

CENSORED = {"clicked": "click", "bid_cpm": "bid", "true_market_price_cpm": "market_price", "ip": "IP"}
FEN: dict[str, Any] = {"currency": "CNY", "auction_type": 2, "price_unit": "centi_cpm"}


@pytest.mark.parametrize(
    ("part", "n_rows", "win_rate"), [("train", 8_355, 0.344225), ("test", 4_171, 0.238792)]
)
def test_censored_ipinyou_settles_to_its_published_win_rate(
    shared_data: Path, part: str, n_rows: int, win_rate: float
) -> None:
    """Truth stays beside the censored outcome; what we paid is known only where we won."""
    path = shared_data / f"ipinyou_2259_censored_{part}.parquet"
    log = read_log(path, format="parquet", columns=CENSORED, **FEN)
    raw = pd.read_parquet(path)
    assert len(log) == n_rows
    assert log["won"].mean() == pytest.approx(win_rate, abs=1e-6)
    assert (log["price_cpm"].notna() == log["won"]).all()
    assert (log["true_market_price_cpm"] == raw["market_price"] / 100.0).all()
    assert log["true_clicked"].sum() == raw["click"].sum()
    checked = validate(log, needs=["win", "price"])
    assert (len(checked.log), checked.quarantine.counts) == (n_rows, {})
    spec = infer_spec(checked.log)
    assert "city" in spec.names
    assert raw_columns(checked.log, spec)["city"].tolist() == raw["city"].tolist()


def test_mobile_ipinyou_is_a_log_of_impressions(shared_data: Path) -> None:
    """21,150 rows, 50 clicks, the real price on each."""
    columns = {"clicked": "click", "price_cpm": "payprice", "ip": "IP"}
    path = shared_data / "ipinyou_2997_mobile_features_price_click.parquet"
    log = validate(read_log(path, format="parquet", columns=columns, **FEN), needs=["ctr", "price"]).log
    assert (len(log), log["clicked"].sum()) == (21_150, 50)
    assert log["price_cpm"].between(0.01, 3.0).all()


def test_campaign_auctions_keep_their_price(shared_data: Path) -> None:
    """456,063 rows; the bid is null throughout, so no win rate can be asked of them."""
    columns = {"clicked": "click", "price_cpm": "payprice", "line_item_id": "campaign", "bid_cpm": "bid"}
    path = shared_data / "ipinyou_auctions_1458_2997.parquet"
    log = read_log(path, format="parquet", columns=columns, **FEN)
    assert log["line_item_id"].value_counts().to_dict() == {"1458": 300_000, "2997": 156_063}
    with pytest.raises(DataError, match="missing_bid_cpm': 456063"):
        validate(log, needs=["ctr"])
    assert len(validate(log.drop(columns="bid_cpm"), needs=["ctr"]).log) > 0.99 * len(log)


def test_kdd_ids_stay_exact(shared_data: Path) -> None:
    """39,948 rows, 6,728 clicks; 64-bit ids are the file's own digits, declared numbers are numbers."""
    path = shared_data / "kddcup2012_click_prediction_small.csv.gz"
    log = read_log(path, format="csv", columns={"clicked": "click"}, numbers=["depth", "position"])
    assert (len(log), log["clicked"].sum()) == (39_948, 6_728)
    assert log["url_hash"].iloc[:2].tolist() == ["10710025208886284288", "17363854844105064448"]
    with gzip.open(path, "rt", newline="") as file:
        assert log["url_hash"].tolist() == [row["url_hash"] for row in csv.DictReader(file)]
    assert log["depth"].dtype == np.float64
    checked = validate(log, needs=["ctr"])
    assert checked.quarantine.counts == {}
    spec = infer_spec(checked.log)
    assert {f.name for f in spec.numbers()} == {"depth", "position"}
    assert raw_columns(checked.log, spec)["url_hash"][1] == "17363854844105064448"


@pytest.mark.parametrize(("name", "n_clicks"), [("all", 38), ("men", 46)])
def test_open_bandit_times_are_utc(shared_data: Path, name: str, n_clicks: int) -> None:
    """10,000 rows in time order."""
    path = shared_data / f"obd_random_{name}.csv.gz"
    log = validate(read_log(path, format="csv", columns={"clicked": "click"}), needs=["ctr", "time"]).log
    assert (len(log), log["clicked"].sum()) == (10_000, n_clicks)
    assert log["timestamp"].iloc[0].isoformat().startswith("2019-11-24T00:0")
    assert str(log["timestamp"].dt.tz) == "UTC"


LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "auction_id": st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
            "timestamp": st.datetimes(
                pd.Timestamp("2000-01-01").to_pydatetime(), pd.Timestamp("2100-01-01").to_pydatetime()
            ).map(lambda time: pd.Timestamp(time, tz="UTC")),
            "bid_cpm": st.floats(1e-6, 1e6),
            "price_cpm": st.none() | st.floats(0.0, 1e6),
            "loss_reason": st.none() | st.integers(0, 2000),
            "won": st.booleans(),
            "city": st.none() | st.text(st.characters(codec="utf-8"), max_size=3),
            "depth": st.integers(-(2**63), 2**63 - 1),
            "true_pctr": st.floats(0, 1),
        }
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=40)
@given(LOGS)
def test_parquet_gives_back_the_log(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """write_log and read_log are inverse, cell by cell and type by type."""
    log = pd.DataFrame(rows).astype({"loss_reason": "Int64", "price_cpm": "float64", "city": "str"})
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    write_log(log, path)
    found = read_log(path, format="parquet")
    pd.testing.assert_frame_equal(found, conform(log))
    assert sorted(p.name for p in path.parent.iterdir()) == ["log.parquet"]


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    """A log that cannot be written leaves the old file as it was."""
    path = tmp_path / "log.parquet"
    write_log(pd.DataFrame({"clicked": [True]}), path)
    before = path.read_bytes()
    with pytest.raises(DataError, match="one type"):
        write_log(pd.DataFrame({"clicked": [True, False], "x": pd.Series([1, "a"], dtype=object)}), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["log.parquet"]


def test_a_folder_is_its_files_in_order(tmp_path: Path) -> None:
    """Daily files add up; hidden files are not data."""
    for day in (2, 1):
        (tmp_path / f"day{day}.csv").write_text(f"auction_id,clicked\n{day},true\n")
    (tmp_path / ".hidden").write_text("rubbish")
    assert read_log(tmp_path, format="csv")["auction_id"].tolist() == ["1", "2"]


def test_csv_cells_keep_their_text(tmp_path: Path) -> None:
    """Quotes, commas, newlines, leading zeros and NA are text; only nothing is null."""
    (tmp_path / "log.csv").write_text('clicked,city\n0,"a,""b""\nc"\n1,007\n0,NA\n1,\n')
    log = read_log(tmp_path / "log.csv", format="csv")
    assert log["city"].iloc[:3].tolist() == ['a,"b"\nc', "007", "NA"]
    assert pd.isna(log["city"].iloc[3])


def test_cells_that_are_no_value_are_counted(tmp_path: Path) -> None:
    """A bad cell of the log takes its row out; a bad number of a feature is missing, and noted."""
    rows = ["bid_cpm,won,timestamp,depth", *["1.5,TRUE,2026-03-01T00:00:00Z,3"] * 3]
    rows += [
        "cheap,1,2026-03-01T00:00:00Z,3",
        "1,maybe,2026-03-01T00:00:00Z,3",
        "1,0,yesterday,3",
        "2,0,,deep",
    ]
    rows += ["1,2,3", "1,2,3,4,5"]
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    log = read_log(tmp_path / "log.csv.gz", format="csv", numbers=["depth"])
    report = reading_report(log)
    assert report.malformed == {
        "malformed_line": 2, "unreadable_bid_cpm": 1, "unreadable_won": 1, "unreadable_timestamp": 1
    }  # fmt: skip
    assert report.notes == {"unreadable_depth": 1}
    assert report.examples["unreadable_bid_cpm"] == "cheap"
    assert log["won"].tolist() == [True, True, True, False]
    np.testing.assert_array_equal(log["depth"], [3, 3, 3, np.nan])


@pytest.mark.parametrize(("unit", "scale"), [("s", 1), ("ms", 1_000), ("us", 1_000_000)])
def test_numeric_times_have_a_unit(tmp_path: Path, unit: str, scale: int) -> None:
    """Seconds, milliseconds or microseconds since 1970."""
    pd.DataFrame({"timestamp": [1_772_366_400 * scale]}).to_parquet(tmp_path / "log.parquet")
    log = read_log(tmp_path / "log.parquet", format="parquet", time_unit=unit)
    assert log["timestamp"].tolist() == [pd.Timestamp("2026-03-01T12:00:00Z")]


@pytest.mark.parametrize(
    ("unit", "price"),
    [
        ("cpm", 2.5),
        ("centi_cpm", 250.0),
        ("micros_per_mille", 2_500_000.0),
        ("micros_per_impression", 2_500.0),
    ],
)
def test_price_units_become_cpm(tmp_path: Path, unit: str, price: float) -> None:
    """Every column in CPM is converted, and only those."""
    pd.DataFrame({"bid_cpm": [price], "true_market_price_cpm": [price], "value_per_click": [0.5]}).to_parquet(
        tmp_path / "log.parquet"
    )
    row = read_log(tmp_path / "log.parquet", format="parquet", price_unit=unit, auction_type=1).iloc[0]
    assert (row["bid_cpm"], row["true_market_price_cpm"], row["value_per_click"]) == (2.5, 2.5, 0.5)


def test_a_first_price_auction_settles_at_the_bid(tmp_path: Path) -> None:
    """A tie loses; a win pays its bid."""
    pd.DataFrame({"bid_cpm": [1.0, 2.0], "true_market_price_cpm": [1.0, 1.0], "clicked": [1, 1]}).to_parquet(
        tmp_path / "log.parquet"
    )
    log = read_log(tmp_path / "log.parquet", format="parquet", auction_type=1)
    assert log["won"].tolist() == log["clicked"].tolist() == [False, True]
    np.testing.assert_array_equal(log["price_cpm"], [np.nan, 2.0])


def test_a_mapping_that_does_not_fit_is_refused(shared_data: Path) -> None:
    """An unknown source, and a target that the file already has."""
    path = shared_data / "ipinyou_2259_censored_train.parquet"
    with pytest.raises(DataError, match="the column that clicked is mapped to"):
        read_log(path, format="parquet", columns={"clicked": "clicks"})
    with pytest.raises(DataError, match="not already a column"):
        read_log(path, format="parquet", columns={"region": "city"})


def test_damaged_files_are_refused(tmp_path: Path, shared_data: Path) -> None:
    """Truncated Parquet, truncated gzip, rubbish, nothing: a DataError that names the file."""
    parquet = (shared_data / "ipinyou_2259_censored_train.parquet").read_bytes()
    kdd = (shared_data / "kddcup2012_click_prediction_small.csv.gz").read_bytes()
    files = {
        "cut.parquet": (parquet[: len(parquet) // 2], "parquet"),
        "rubbish.parquet": (b"\0" * 100, "parquet"),
        "cut.csv.gz": (kdd[: len(kdd) // 2], "csv"),
        "rubbish.csv.gz": (b"\x1f\x8brubbish", "csv"),
        "latin1.csv": ("city,clicked\nKöln,1\n".encode("latin-1"), "csv"),
        "empty.csv": (b"", "csv"),
        "twice.csv": (b"a,a\n1,2\n", "csv"),
    }
    for name, (content, format) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_log(tmp_path / name, format=format)
        assert caught.value.remedy
    with pytest.raises(DataError, match="exists"):
        read_log(tmp_path / "absent", format="csv")


def test_unknown_options_are_config_errors(tmp_path: Path) -> None:
    """Format, price unit and time unit are closed lists."""
    (tmp_path / "log.csv").write_text("clicked\n1\n")
    for options in (
        {"format": "xml"},
        {"format": "csv", "price_unit": "euro"},
        {"format": "csv", "time_unit": "h"},
    ):
        with pytest.raises(ConfigError):
            read_log(tmp_path / "log.csv", **options)


def test_an_inferred_spec_reads_floats_as_numbers() -> None:
    """Text and integers are categories unless declared; sources are below ext; truth and labels stay out."""
    log = pd.DataFrame({"clicked": [True], "true_pctr": [0.1], "city": ["a"], "depth": [3], "share": [0.5]})
    spec = infer_spec(log)
    assert spec == FeatureSpec(
        (
            Feature("city", FeatureKind.CATEGORY, "ext.log.city"),
            Feature("depth", FeatureKind.CATEGORY, "ext.log.depth"),
            Feature("share", FeatureKind.NUMBER, "ext.log.share"),
        )
    )
    assert infer_spec(log, {"depth": "number"}).numbers() == (
        Feature("depth", FeatureKind.NUMBER, "ext.log.depth"),
    )
    with pytest.raises(SpecError, match="known before the bid"):
        infer_spec(log, ["city", "clicked"])
    with pytest.raises(SpecError, match="a column of the log"):
        infer_spec(log, ["town"])
