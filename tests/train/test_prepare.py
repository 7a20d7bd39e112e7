"""Splitting and digests: laws of order and time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.errors import DataError
from bidml.train.prepare import digest_of, split


def log_of(times: list[int]) -> pd.DataFrame:
    stamps = pd.to_datetime(pd.Series(times, dtype="int64") * 1_000_000, utc=True).astype(
        "datetime64[us, UTC]"
    )
    return pd.DataFrame({"auction_id": [f"a{i}" for i in range(len(times))], "timestamp": stamps})


@given(st.lists(st.integers(0, 50), min_size=2, max_size=60), st.floats(0.05, 0.9))
def test_the_test_side_is_later_and_nothing_is_lost(times: list[int], holdout: float) -> None:
    """No training row is as late as a test row; equal times stay together."""
    log = log_of(times)
    if len(set(times)) == 1:
        return
    train, test = split(log, holdout=holdout)
    assert len(train) + len(test) == len(log)
    assert len(train) > 0
    assert len(test) > 0
    assert train["timestamp"].max() < test["timestamp"].min()


def test_the_share_is_held_out() -> None:
    """0.2 of distinct times."""
    train, test = split(log_of(list(range(1000))), holdout=0.2)
    assert (len(train), len(test)) == (800, 200)


def test_without_times_rows_are_chosen_by_their_id() -> None:
    """A row's side does not depend on the others, and the share holds roughly."""
    log = log_of([5] * 4000)
    _, test = split(log, holdout=0.25)
    assert abs(len(test) / len(log) - 0.25) < 0.03
    _, half = split(log.iloc[::2], holdout=0.25)
    assert set(half["auction_id"]) == set(test["auction_id"]) & set(log.iloc[::2]["auction_id"])


def test_one_row_cannot_be_split() -> None:
    """A refusal, not an empty side."""
    with pytest.raises(DataError, match="hold rows out"):
        split(log_of([1]), holdout=0.2)


def test_the_digest_sees_cells_and_names_but_not_the_order_of_columns() -> None:
    """What makes two logs the same."""
    log = pd.DataFrame({"a": [1.0, np.nan], "b": ["x", "y"]})
    assert digest_of(log) == digest_of(log[["b", "a"]])
    assert digest_of(log) != digest_of(log.rename(columns={"a": "c"}))
    assert digest_of(log) != digest_of(log.iloc[::-1])
    assert digest_of(log) != digest_of(log.assign(a=[1.0, 2.0]))


def test_sampled_impressions_are_weighted_and_no_win_curve_is_learnt_from_them(tmp_path: Path) -> None:
    """Unclicked rows kept at a rate stand for its inverse: the level comes out right; the win curve refuses."""
    from bidml.log import write_log
    from bidml.simulate import Market, simulate
    from bidml.train import parse_config, train

    rng = np.random.default_rng(3)
    log = simulate(30_000, rng=rng, market=Market(base_ctr=0.05)).log
    kept = log["clicked"] | (rng.random(len(log)) < 0.25)
    sampled = log[kept].assign(sampling_rate=np.where(log.loc[kept, "clicked"], 1.0, 0.25))
    write_log(sampled, tmp_path / "sampled.parquet")
    write_log(log[log["timestamp"] >= log["timestamp"].quantile(0.8)], tmp_path / "whole.parquet")
    document = {
        "log": {
            "path": str(tmp_path / "sampled.parquet"),
            "test_path": str(tmp_path / "whole.parquet"),
            "format": "parquet",
        },
        "models": ["ctr"],
        "features": [{"name": "app_bundle", "kind": "category", "source": "app.bundle"}],
        "n_threads": 1,
    }
    run = train(parse_config(document), tmp_path / "run")
    assert 0.85 < run.metrics["ctr"]["model"]["calibration_ratio"] < 1.18
    with pytest.raises(DataError, match="from all bids"):
        train(parse_config(document | {"models": ["ctr", "win"]}), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
