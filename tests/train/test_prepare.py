"""Splitting and digests: laws of order and time."""

from __future__ import annotations

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
