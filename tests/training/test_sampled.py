"""A job on a log that is read as a sample: it learns from weighted rows and is judged on rows that all weigh alike."""

from __future__ import annotations

import hashlib
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bidml.errors import ConfigError, DataError
from bidml.features import raw_columns
from bidml.log import read_log, read_sample
from bidml.log.join.stream import threshold
from bidml.score.publication import read_publication
from bidml.simulate import Market
from bidml.train.prepare import held_out_from, split
from training.config import RetrainConfig, load_retrain_config
from training.demo_log import write_demo_log
from training.drift import drift, profile_of
from training.ranks.job import Ranks, crew_of
from training.ranks.meeting import Machine
from training.retrain import Outcome, retrain
from training.sample import n_rows_of, sampled_window
from training.window import Window

WINDOW = Window.parse("2026-11-01/2026-11-03")
N_AUCTIONS = 24_000
KEEP_LOST = 0.3
_TOML = """
[data]
days = "day={date}"
marker = "_SUCCESS"
[publish]
folder = "published"
[gate]  # what 24,000 auctions can prove is little
max_log_loss_increase = 0.5
max_win_log_loss_increase = 0.2
min_surplus_lift = -1.0
max_bid_moved = 1.0
max_calibration_error = 2.0
[train.log]
path = "logs"
format = "parquet"
keep_lost = 0.3
[train.win]
slope = "global"
[train.pricing]
cap_cpm = 200.0
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four days as `bidml join` lays them out, and a job's configuration."""
    folder = tmp_path_factory.mktemp("sampled")
    market = Market(base_ctr=0.3, n_apps=50, observed_win_rate=0.3)
    write_demo_log(folder / "logs", Window.parse("2026-11-01/2026-11-04"), N_AUCTIONS, market=market)
    for day in (folder / "logs").glob("date=*"):
        day.rename(day.with_name(day.name.replace("date=", "day=")))
    features = (
        ("country", "category", "device.geo.country"),
        ("banner_size", "category", "derived.banner_size"),
        ("hour_of_day", "number", "derived.hour_of_day"),
    )
    (folder / "job.toml").write_text(
        _TOML
        + "".join(
            f'[[train.features]]\nname = "{name}"\nkind = "{kind}"\nsource = "{source}"\n'
            for name, kind, source in features
        )
    )
    return folder


@pytest.fixture(scope="module")
def config(folder: Path) -> RetrainConfig:
    return load_retrain_config(folder / "job.toml")


@pytest.fixture(scope="module")
def whole(folder: Path) -> pd.DataFrame:
    """Every auction of the window."""
    return read_log([str(folder / "logs" / f"day={day}") for day in WINDOW.days], format="parquet")


@pytest.fixture(scope="module")
def finished(folder: Path) -> Outcome:
    return job(folder, WINDOW)


def job(folder: Path, window: Window, *, refresh: bool = False) -> Outcome:
    config = load_retrain_config(folder / "job.toml")
    outcome = retrain(config, window, folder / "runs", announce=lambda _: nullcontext(), refresh=refresh)
    assert outcome is not None
    return outcome


def with_share(config: RetrainConfig, share: float) -> RetrainConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"keep_held_out": share})})


def test_held_out_auctions_are_whole_and_the_others_a_sample(
    config: RetrainConfig, whole: pd.DataFrame
) -> None:
    """The split is where that of the whole log is, up to the chance of the sample."""
    log, cut = sampled_window(config, WINDOW)
    _, test = split(whole, holdout=0.2)
    late = whole["timestamp"] >= cut
    assert late.mean() == pytest.approx(len(test) / len(whole), abs=0.02)
    judged, learnt = log[log["timestamp"] >= cut], log[log["timestamp"] < cut]
    assert set(judged["auction_id"]) == set(whole.loc[late, "auction_id"])
    assert len(judged) == late.sum()
    assert judged["sampling_rate"].isna().all()
    np.testing.assert_array_equal(learnt["sampling_rate"], np.where(learnt["won"], 1.0, KEEP_LOST))
    assert set(learnt.loc[learnt["won"], "auction_id"]) == set(whole.loc[~late & whole["won"], "auction_id"])
    assert len(learnt) < 0.7 * (~late).sum()


def test_a_share_of_the_held_out_auctions_does_not_look_at_outcomes(
    config: RetrainConfig, whole: pd.DataFrame
) -> None:
    log, cut = sampled_window(with_share(config, 0.4), WINDOW)
    judged, late = log[log["timestamp"] >= cut], whole[whole["timestamp"] >= cut]
    hashed = late["auction_id"].map(lambda name: hashlib.md5(name.encode()).hexdigest()[:13])
    assert set(judged["auction_id"]) == set(late.loc[hashed < threshold(0.4), "auction_id"])
    assert judged["sampling_rate"].isna().all()


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from([1.0, 0.5, 0.25])), min_size=1, max_size=40))
def test_the_split_of_a_sample_is_that_of_the_rows_it_stands_for(rows: list[tuple[int, float]]) -> None:
    """Each row repeated 1 / rate times."""
    times = pd.to_datetime([time for time, _ in rows], unit="s", utc=True)
    sample = pd.DataFrame({"timestamp": times, "sampling_rate": [rate for _, rate in rows]})
    cut = held_out_from(sample, holdout=0.25)
    stands_for = np.sort(np.repeat(times.to_numpy(), [int(1 / rate) for _, rate in rows]))
    assert cut == stands_for[min(int(0.75 * len(stands_for)), len(stands_for) - 1)]


def test_without_rows_there_is_no_split() -> None:
    with pytest.raises(DataError, match="has rows"):
        held_out_from(pd.DataFrame({"timestamp": pd.to_datetime([], utc=True)}), holdout=0.2)


def test_a_job_on_a_sample_is_judged_and_published(
    finished: Outcome, folder: Path, whole: pd.DataFrame
) -> None:
    """All its files, the held-out auctions unweighted; run again, no model is made again."""
    assert (finished.published, finished.generation) == (True, 1)
    data = json.loads((finished.folder / "data.json").read_text())
    assert data["rows_used"] < len(whole)
    gate = json.loads((finished.folder / "gate.json").read_text())
    assert gate["promoted"], gate["reasons"]
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    assert metrics["win"]["model"]["log_loss"] < metrics["win"]["base rate"]["log_loss"]
    again = job(folder, WINDOW)
    assert (again.sha256, again.published) == (finished.sha256, False)
    assert {name for name, was_there in again.stages if was_there} >= {"read", "ctr", "win", "model"}


def test_predictions_are_those_of_the_whole_traffic(finished: Outcome) -> None:
    """A win curve that took the sample for the log would win more than twice too often."""
    metrics = json.loads((finished.folder / "metrics.json").read_text())
    found = metrics["win"]["model"]
    assert 0.9 < found["calibration_low"] < found["calibration_high"] < 1.1


def test_a_champion_is_refreshed_by_a_sample(finished: Outcome, folder: Path) -> None:
    outcome = job(folder, Window.parse("2026-11-04"), refresh=True)
    assert (outcome.published, outcome.generation) == (True, 2)
    assert read_publication(folder / "published").current.sha256 == outcome.sha256


def test_a_sample_looks_like_the_log_it_stands_for(
    config: RetrainConfig, folder: Path, whole: pd.DataFrame
) -> None:
    """Its rows taken as they are, wins are twice as frequent: the broken twin of the weights."""
    spec = config.train.spec
    assert spec is not None
    sample = read_sample(folder / "logs", days=(WINDOW.days[0], WINDOW.days[-1]), keep_lost=KEEP_LOST)
    reference = profile_of(raw_columns(whole, spec), spec, whole)
    moved = drift(reference, raw_columns(sample, spec), spec, sample)
    assert max(moved["psi"].values()) < 0.02
    assert all(abs(ratio - 1.0) < 0.06 for ratio in moved["ratios"].values()), moved["ratios"]
    own = profile_of(raw_columns(sample, spec), spec, sample)
    n_stands_for = (1.0 / sample["sampling_rate"]).sum()
    assert all(sum(found["counts"]) == pytest.approx(n_stands_for) for found in own["features"].values())
    assert max(drift(own, raw_columns(sample, spec), spec, sample)["psi"].values()) < 1e-12
    twin = sample.drop(columns="sampling_rate")
    assert drift(reference, raw_columns(twin, spec), spec, twin)["ratios"]["win_rate"] > 1.5


def test_the_rows_that_markers_promise_are_counted_without_reading(folder: Path, whole: pd.DataFrame) -> None:
    files = [folder / "logs" / f"day={day}" / "auctions.parquet" for day in WINDOW.days]
    assert n_rows_of(files) == len(whole)
    damaged = folder / "damaged.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError):
        n_rows_of([damaged])


def test_what_does_not_go_together_is_refused(config: RetrainConfig) -> None:
    document: dict[str, Any] = config.model_dump(mode="json")
    document["train"]["log"]["keep_lost"] = None
    document["data"]["keep_held_out"] = 0.5
    with pytest.raises(ValueError, match="keep_held_out goes with"):
        RetrainConfig.model_validate(document)
    ranks = Ranks(0, (Machine("localhost", 1), Machine("localhost", 2)))
    with pytest.raises(ConfigError, match="ranks share a whole log"):
        crew_of(ranks, config, WINDOW, code="")
