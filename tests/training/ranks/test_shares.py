"""What each rank reads: together all rows, copies beside each other, and the same columns everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bidml.errors import BidmlError, ConfigError, DataError
from bidml.fit.crew import Crew
from bidml.log import QuarantineReport, ReadingReport, read_log, write_log
from bidml.log.share import Share
from bidml.train.config import TrainConfig, parse_config
from bidml.train.prepare import TrainingData, training_data
from tests.training.ranks.threads import together

NOTHING = QuarantineReport(0, pd.DataFrame(), {}, {}, {}, ReadingReport())
FEATURES = ({"name": "site", "kind": "category", "source": "site.domain"},)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.text(), st.integers())), st.integers(1, 5))
def test_shares_are_a_partition_in_which_copies_lie_together(ids: list[Any], size: int) -> None:
    """Of any ids, each row once; equal ids on one rank; a 1 and a "1" are one id, as in a log that was written."""
    table = pd.DataFrame({"auction_id": pd.Series(ids, dtype=object), "row": range(len(ids))})
    shares = [Share(rank, size).of(table) for rank in range(size)]
    assert sorted(row for share in shares for row in share["row"]) == list(range(len(ids)))
    owners = pd.concat([share.assign(owner=rank) for rank, share in enumerate(shares)])
    assert (owners.groupby(owners["auction_id"].map(str))["owner"].nunique() <= 1).all()


def log_of(n: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "auction_id": [f"a{i}" for i in range(n)],
            "timestamp": pd.Timestamp("2026-11-01", tz="UTC") + pd.to_timedelta(np.arange(n), "s"),
            "bid_cpm": 1.0,
            "won": rng.random(n) < 0.5,
            "site": "s",
            "currency": "USD",
        }
    )


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_a_share_of_files_is_the_share_of_their_rows(tmp_path: Path, format: str) -> None:
    """Whatever the files; all rows are counted, so that markers can be checked; shares are about equal."""
    log = log_of(3_000)
    for i in range(3):
        part = log.iloc[1_000 * i : 1_000 * (i + 1)].reset_index(drop=True)
        if format == "parquet":
            write_log(part, tmp_path / f"{i}.parquet")
        else:
            part.to_csv(tmp_path / f"{i}.csv", index=False)
    shares = [Share(rank, 3) for rank in range(3)]
    found = [read_log(tmp_path, format=format, share=share) for share in shares]
    assert [share.n_seen for share in shares] == [3_000] * 3
    assert min(len(rows) for rows in found) > 900
    whole = pd.concat(found).sort_values("timestamp", ignore_index=True)
    pd.testing.assert_frame_equal(whole, read_log(tmp_path, format=format))
    assert [len(Share(rank, 3).of(log)) for rank in range(3)] == [len(rows) for rows in found]


def config_of(**changes: Any) -> TrainConfig:
    return parse_config({"log": {"path": "x", "format": "parquet"}, "features": FEATURES, **changes})


def data_on(crew: Crew, log: pd.DataFrame, config: TrainConfig) -> TrainingData:
    rows = Share(crew.rank, crew.size).of(log).reset_index(drop=True)
    return training_data(rows, NOTHING, config, crew=crew)


def test_ranks_split_at_one_time_and_know_the_extent_of_all() -> None:
    log = log_of(1_000)
    found = together(3, lambda crew: data_on(crew, log, config_of()))
    whole = training_data(log, NOTHING, config_of())
    assert len({data.digest for data in found}) == 1  # type: ignore[union-attr]
    for side in ("train", "test"):
        rows = pd.concat([getattr(data, side) for data in found])
        pd.testing.assert_frame_equal(rows.sort_values("timestamp", ignore_index=True), getattr(whole, side))
    assert {data.extent for data in found} == {whole.extent}  # type: ignore[union-attr]
    assert whole.extent.n_train + whole.extent.n_test == 1_000


def test_ranks_with_other_columns_are_refused_on_all() -> None:
    """Another type, a column too few, another currency; and features that would be inferred from a share."""

    def errors(job: Any) -> list[tuple[type[BidmlError], bool]]:
        found = together(2, job)
        return [(type(error), "on rank 1" in str(error) or "here" in str(error)) for error in found]  # type: ignore[misc]

    log = log_of(100)
    for changed in (log.assign(bid_cpm="1"), log.drop(columns="site"), log.assign(currency="EUR")):
        refused = errors(lambda crew, other=changed: data_on(crew, other if crew.rank else log, config_of()))
        assert refused == [(DataError, True)] * 2
    inferred = errors(lambda crew: data_on(crew, log, config_of(features=None)))
    assert [kind for kind, _ in inferred] == [ConfigError] * 2
