"""The joined log in batches, and samples of it: deterministic, nested, weighted."""

from __future__ import annotations

import hashlib
import random
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from event_streams import DAY, MIDNIGHT

from bidml.errors import ConfigError, DataError
from bidml.log import join_events, read_log, read_sample, stream_log, validate
from bidml.log.join.stream import threshold

N = 6_000


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days; a tenth won, of these a tenth clicked."""
    folder = tmp_path_factory.mktemp("stream")
    ids = [f"auction {i}é" for i in range(N)]
    random.Random(0).shuffle(ids)
    times = [MIDNIGHT + i * 3 * DAY // N for i in range(N)]
    bids = {"type": "bid", "auction_id": ids, "timestamp_ms": times, "bid_cpm": 1.0, "currency": "USD"}
    bids["auction_type"] = 1
    pd.DataFrame(bids).to_parquet(folder / "bids.parquet")
    for kind, step in (("win", 10), ("click", 100)):
        rows = {"type": kind, "auction_id": ids[::step], "timestamp_ms": times[::step]}
        pd.DataFrame(rows).to_parquet(folder / f"{kind}.parquet")
    join_events(folder, folder.parent / "log")
    return folder.parent / "log"


def test_the_batches_are_the_log(log: Path) -> None:
    """In order of time, in the schema's types, in pieces."""
    batches = list(stream_log(log, batch_rows=2048))
    assert len(batches) > 1
    assert max(batch.num_rows for batch in batches) <= 2048
    pd.testing.assert_frame_equal(read_sample(log), read_log(log, format="parquet"))
    assert pa.Table.from_batches(batches).to_pylist() == [
        row for file in sorted(log.glob("day=*/*")) for row in pq.ParquetFile(file).read().to_pylist()
    ]


def test_columns_and_days_are_chosen(log: Path) -> None:
    """Only those, in the order asked for; impressions alone on request."""
    found = read_sample(log, columns=["won", "auction_id"], days=(date(2026, 3, 2), date(2026, 3, 3)))
    whole = read_log(log, format="parquet")
    pd.testing.assert_frame_equal(found, whole.loc[N // 3 :, ["won", "auction_id"]].reset_index(drop=True))
    assert len(read_sample(log, won_only=True)) == N // 10
    with pytest.raises(DataError, match="2026-03-04"):
        read_sample(log, days=(date(2026, 3, 3), date(2026, 3, 4)))
    with pytest.raises(DataError, match="columns to read"):
        read_sample(log, columns=["colour"])
    with pytest.raises(DataError, match="day=YYYY-MM-DD"):
        read_sample(log / "day=2026-03-01")


@pytest.mark.parametrize("rate", [1e-9, 0.03, 0.5, 1 / 3, 0.999999])
def test_a_sample_is_decided_by_the_id_alone(log: Path, rate: float) -> None:
    """The rows that MD5 says, whatever else is read; every click; each with its rate."""
    whole = read_log(log, format="parquet")
    share = (
        np.array([int(hashlib.md5(key.encode()).hexdigest()[:13], 16) for key in whole["auction_id"]])
        / 2.0**52
    )
    expected = whole[whole["clicked"] | (share < np.floor(rate * 2.0**52) / 2.0**52)].reset_index(drop=True)
    found = read_sample(log, keep_unclicked=rate)
    pd.testing.assert_frame_equal(found.drop(columns="sampling_rate"), expected)
    np.testing.assert_array_equal(found["sampling_rate"], np.where(found["clicked"], 1.0, rate))
    one_day = read_sample(log, keep_unclicked=rate, days=(date(2026, 3, 2), date(2026, 3, 2)))
    assert one_day["auction_id"].isin(found["auction_id"]).all()


def test_smaller_samples_are_within_larger_ones(log: Path) -> None:
    """So a model can be grown without new noise."""
    small, large = (set(read_sample(log, keep_unclicked=rate)["auction_id"]) for rate in (0.1, 0.3))
    assert small < large


def test_weights_restore_the_whole(log: Path) -> None:
    """Sums weighted by 1 / sampling_rate estimate those of the log, within five standard errors."""
    rate = 0.2
    sample = read_sample(log, keep_unclicked=rate)
    n_unclicked = N - N // 100
    assert abs((1.0 / sample["sampling_rate"]).sum() - N) < 5.0 * np.sqrt(n_unclicked * (1 - rate) / rate)
    assert (sample["clicked"] / sample["sampling_rate"]).sum() == N // 100


def test_lost_auctions_have_a_share_of_their_own(log: Path) -> None:
    """By the same hash: all impressions, and of the losses those of a plain sample at that rate."""
    found = read_sample(log, keep_unclicked=1.0, keep_lost=0.2)
    whole, plain = read_log(log, format="parquet"), read_sample(log, keep_unclicked=0.2)
    lost = plain.loc[~plain["won"], "auction_id"]
    assert set(found["auction_id"]) == {*whole.loc[whole["won"], "auction_id"], *lost}
    np.testing.assert_array_equal(found["sampling_rate"], np.where(found["won"], 1.0, 0.2))
    with pytest.raises(ConfigError, match="keep_lost"):
        read_sample(log, keep_lost=0.0)


def test_a_sample_is_a_log(log: Path) -> None:
    """`validate` takes it; a rate outside (0, 1] is a broken row."""
    sample = read_sample(log, keep_unclicked=0.5)
    assert validate(sample, needs=["win", "ctr"]).quarantine.counts == {}
    rates = [0.0, 1.5, -1.0] + [1.0] * (len(sample) - 3)
    broken = sample.assign(sampling_rate=rates)
    assert validate(broken, needs=["win"]).quarantine.counts == {"sampling_rate_not_a_share": 3}


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan")])
def test_rates_that_are_no_share_are_refused(log: Path, rate: float) -> None:
    """Before anything is read."""
    with pytest.raises(ConfigError, match="keep_unclicked"):
        next(stream_log(log, keep_unclicked=rate))


def test_thresholds_are_exact() -> None:
    """The hexadecimal digits of the rate, so that every engine compares texts."""
    assert threshold(0.5) == "8" + "0" * 12
    assert threshold(2.0**-52) == "0" * 12 + "1"
    assert threshold(1.0 - 2.0**-52) == "f" * 13


def test_days_of_other_columns_are_not_mixed(tmp_path: Path) -> None:
    """Two specs in one folder are named, not guessed."""
    for day, columns in (("2026-03-01", {"a": [1]}), ("2026-03-02", {"b": [1]})):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(
            pa.table({"auction_id": ["x"], **columns}), tmp_path / f"day={day}" / "auctions.parquet"
        )
    with pytest.raises(DataError, match="same columns"):
        read_sample(tmp_path)
