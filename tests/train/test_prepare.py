"""Splitting and digests: laws of order and time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.errors import ConfigError, DataError
from bidml.pricing import WinCurve
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


def test_samples_are_weighted_by_what_they_stand_for(tmp_path: Path) -> None:
    """Unclicked and lost rows kept at a rate stand for its inverse: both levels come out right on the whole log."""
    from bidml.features import raw_columns
    from bidml.log import write_log
    from bidml.score import Scorer
    from bidml.simulate import Market, simulate
    from bidml.train import parse_config, train
    from bidml.train.evaluate import predict

    rng = np.random.default_rng(3)
    log = simulate(30_000, rng=rng, market=Market(base_ctr=0.05)).log
    rate = np.where(log["clicked"], 1.0, np.where(log["won"], 0.5, 0.25))
    kept = rng.random(len(log)) < rate
    write_log(log[kept].assign(sampling_rate=rate[kept]), tmp_path / "sampled.parquet")
    write_log(log[log["timestamp"] >= log["timestamp"].quantile(0.8)], tmp_path / "whole.parquet")
    document = {
        "log": {
            "path": str(tmp_path / "sampled.parquet"),
            "test_path": str(tmp_path / "whole.parquet"),
            "format": "parquet",
        },
        "features": [{"name": "app_bundle", "kind": "category", "source": "app.bundle"}],
        "n_threads": 1,
    }
    of_impressions = train(parse_config(document | {"models": ["ctr"]}), tmp_path / "ctr").metrics
    assert 0.85 < of_impressions["ctr"]["model"]["calibration_ratio"] < 1.18
    run = train(parse_config(document), tmp_path / "both")
    # unweighted: 1.20 to 1.31 in five worlds; the whole log: 0.99 to 1.05
    assert 0.9 < run.metrics["win"]["model"]["calibration_ratio"] < 1.1
    scorer = Scorer.load(run.artifact)
    pctr = predict(scorer, raw_columns(run.test, scorer.blueprint.spec)).pctr
    assert pctr is not None
    assert pctr.mean() / run.test["true_pctr"].mean() == pytest.approx(1.0, abs=0.15)  # of the traffic


def test_what_is_sampled_while_reading_is_judged_as_the_whole(tmp_path: Path) -> None:
    """Weighted metrics of a model on a sample are its metrics on the log it is from; the AUC, too."""
    from bidml.simulate import Market, simulate
    from bidml.train.evaluate import evaluate_ctr, evaluate_win

    rng = np.random.default_rng(5)
    simulation = simulate(60_000, rng=rng, market=Market(base_ctr=0.1))
    log, curve = simulation.log, WinCurve(np.full(60_000, 0.5), np.full(60_000, 1.5), 1.0)
    rate = np.where(log["clicked"], 1.0, np.where(log["won"], 0.5, 0.25))
    kept = rng.random(len(log)) < rate
    sample = log[kept].assign(sampling_rate=rate[kept])
    pctr = log["true_pctr"].to_numpy() ** 0.8
    of_curve = WinCurve(np.full(kept.sum(), 0.5), np.full(kept.sum(), 1.5), 1.0)
    for whole, part in (
        (evaluate_ctr(pctr, log), evaluate_ctr(pctr[kept], sample)),
        (evaluate_win(curve, log), evaluate_win(of_curve, sample)),
    ):
        for contender, scores in whole.items():
            for name, score in scores.items():
                tolerance = 0.03 if name != "log_loss" else 0.02
                assert part[contender][name] == pytest.approx(score, rel=tolerance), (contender, name)


@pytest.mark.parametrize(
    "keys", [{"format": "csv"}, {"columns": {"a": "b"}}, {"test_path": "x"}, {"path": ("a", "b")}]
)
def test_only_joined_logs_are_sampled_while_reading(keys: dict[str, Any]) -> None:
    """A log in other terms is first read as it is."""
    from bidml.train import parse_config

    with pytest.raises(ConfigError, match="bidml join wrote"):
        parse_config({"log": {"path": "x", "format": "parquet", "keep_lost": 0.1, **keys}})
