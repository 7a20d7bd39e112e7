"""The canary's verdict: an error rate that holds however often it is read, detection, and what it does to folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bidml.errors import ConfigError, DataError
from bidml.monitor.sequential import assigned_difference, mean_sequence
from bidml.score.publication import read_publication
from training.canary import CONTINUE, PROMOTE, ROLL_BACK, CanaryConfig, act, judge_canary, main
from training.command import run
from training.publication import publish_bytes

CONFIG = CanaryConfig(share=0.2, min_auctions=5_000, max_auctions=200_000)  # type: ignore[call-arg]
CTR = 0.08


def arms(
    rng: np.random.Generator,
    n: int,
    *,
    share: float = 0.2,
    overbids: float = 1.0,
    believes: float = 1.0,
    odds: float = 1.0,
) -> pd.DataFrame:
    """A first-price market with a known truth; the challenger bids `overbids` times and predicts `believes` times.

    `odds` multiplies the click rate of both arms: a market that moved.
    """
    treated = rng.random(n) < share
    p = rng.beta(2.0, 2.0 / CTR - 2.0, n)
    value = 1000.0 * p  # a click is worth 1
    market = rng.lognormal(np.log(0.4 * value), 0.5)
    bid = 0.6 * value * np.where(treated, overbids, 1.0)
    won = bid >= market
    clicked = won & (rng.random(n) < np.minimum(p * odds, 1.0))
    start = pd.Timestamp("2026-11-08", tz="UTC")
    return pd.DataFrame(
        {
            "arm": np.where(treated, "challenger", "control"),
            "timestamp": start + pd.to_timedelta(np.sort(rng.uniform(0, 86_400, n)), unit="s"),
            "won": won,
            "price_cpm": np.where(won, bid, np.nan),
            "clicked": clicked,
            "pctr": np.minimum(p * np.where(treated, believes, 1.0), 1.0),
            "value_per_click": 1.0,
        }
    )


def surplus_of(log: pd.DataFrame) -> Any:
    return np.where(log["won"], 1000.0 * log["clicked"] - log["price_cpm"], 0.0)


LOOKS = np.unique(np.geomspace(2_000, 40_000, 25).astype(int))


def test_the_difference_s_sequence_covers_whenever_it_is_read() -> None:
    """Equal arms, heavy tails, 25 looks, 95 %: at most 5 % ever wrong. A fixed interval, its twin, errs far more."""
    rng = np.random.default_rng(5)
    ever, fixed, n_logs = 0, 0, 80
    for _ in range(n_logs):
        log = arms(rng, int(LOOKS[-1]))
        y, a = surplus_of(log), (log["arm"] == "challenger").to_numpy()
        found = [
            assigned_difference(y[:n], a[:n], share=0.2, confidence=0.95, tightest_at=20_000.0) for n in LOOKS
        ]
        ever += any(not x.low <= 0.0 <= x.high for x in found)
        fixed += any(
            abs(y[:n][a[:n]].mean() - y[:n][~a[:n]].mean())
            > 1.96 * np.sqrt(y[:n][a[:n]].var() / a[:n].sum() + y[:n][~a[:n]].var() / (~a[:n]).sum())
            for n in LOOKS
        )
    assert ever / n_logs <= 0.05
    assert fixed / n_logs > 0.12


def test_a_sequence_is_wider_than_a_fixed_interval_and_narrows() -> None:
    """By less than twice where it is tightest."""
    widths = [
        (lambda x: x.high - x.low)(mean_sequence(n, 0.0, 1.0, confidence=0.95, tightest_at=10_000.0))
        / (2 * 1.96 / np.sqrt(n))
        for n in (100, 1_000, 10_000, 100_000)
    ]
    assert min(widths) > 1.2
    assert widths[2] == min(widths)
    assert widths[2] < 2.0
    assert mean_sequence(1, 0.0, 1.0, confidence=0.95).high == np.inf


def verdicts(rng: np.random.Generator, n: int, **changes: Any) -> list[Any]:
    """Read at five sizes of one growing log, until it is decided."""
    log = arms(rng, n, **changes)
    found = []
    for size in np.linspace(n / 5, n, 5).astype(int):
        found.append(judge_canary(log[:size], CONFIG))
        if found[-1].action != CONTINUE:
            break
    return found


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"believes": 1.6}, "too many clicks"),
        ({"believes": 0.6}, "too few clicks"),
        ({"overbids": 1.6}, "certainly earns less"),
        ({"believes": 1.6, "overbids": 1.6}, "too many clicks"),
    ],
)
def test_a_bad_challenger_is_rolled_back(changes: dict[str, float], reason: str) -> None:
    """What it believes by its clicks, what it bids by its surplus; within 100,000 auctions, a fifth of them its own."""
    for seed in range(3):
        last = verdicts(np.random.default_rng(seed), 100_000, **changes)[-1]
        assert last.action == ROLL_BACK
        assert reason in last.reason


def test_an_equal_challenger_is_hardly_ever_rolled_back() -> None:
    """At 99 %: of 25, none; and some are promoted when the margin is wide."""
    rng = np.random.default_rng(8)
    wide = CONFIG.model_copy(update={"margin": 0.5})
    actions = []
    for _ in range(25):
        log = arms(rng, 50_000)
        actions.append([judge_canary(log[:n], wide).action for n in (10_000, 25_000, 50_000)])
    assert not any(ROLL_BACK in each for each in actions)
    assert sum(PROMOTE in each for each in actions) >= 20


def test_what_stays_undecided_ends_with_the_champion() -> None:
    """And a market that moved is said to have."""
    rng = np.random.default_rng(2)
    small = CONFIG.model_copy(update={"max_auctions": 20_000, "margin": 0.0})
    last = judge_canary(arms(rng, 20_000), small)
    assert (last.action, "told no difference" in last.reason) == (ROLL_BACK, True)
    moved = judge_canary(arms(rng, 60_000, odds=0.6), CONFIG)
    assert (moved.action, "market moved" in moved.reason) == (ROLL_BACK, True)
    early = judge_canary(arms(rng, 2_000, overbids=3.0), CONFIG)
    assert early.action == CONTINUE
    json.dumps(early.to_json(), allow_nan=False)


def test_a_broken_experiment_is_no_experiment() -> None:
    """Another share than configured, arms without a name, columns that are not there."""
    log = arms(np.random.default_rng(1), 10_000)
    with pytest.raises(DataError, match="standard errors"):
        judge_canary(log[(log["arm"] == "control") | (np.arange(len(log)) % 2 == 0)], CONFIG)
    with pytest.raises(DataError, match="arm"):
        judge_canary(log.assign(arm="other"), CONFIG)
    with pytest.raises(DataError, match="arm_of"):
        judge_canary(log.drop(columns="pctr"), CONFIG)


def test_late_clicks_are_no_alarm() -> None:
    """A mean delay of three hours that is known, after six; its twin, that does not know it, is alarmed."""
    rng = np.random.default_rng(6)
    log = arms(rng, 60_000)
    when = log["timestamp"] + pd.to_timedelta(rng.exponential(3 * 3600.0, len(log)), unit="s")
    now = log["timestamp"].iloc[len(log) // 4]  # six hours
    log = log.assign(click_timestamp=when, clicked=log["clicked"] & (when <= now))[log["timestamp"] <= now]
    known = CONFIG.model_copy(
        update={"delay_hours": 3.0, "horizon_hours": 48.0, "calibration_tolerance": 0.0}
    )
    assert judge_canary(log, known).challenger.alarm is None
    assert judge_canary(log, known.model_copy(update={"delay_hours": 0.01})).challenger.alarm == "over"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("champion", "challenger"):
        publish_bytes(tmp_path / name, name.encode(), expected_generation=0, data_end=None)
    return tmp_path / "champion", tmp_path / "challenger"


def digest(folder: Path) -> tuple[int, str]:
    found = read_publication(folder)
    assert found is not None
    return found.current.generation, found.current.sha256


def test_a_verdict_is_carried_out_once(folders: tuple[Path, Path]) -> None:
    """Rolled back: the challenger's folder gets the champion's artifact; promoted: the reverse; again: nothing."""
    rng = np.random.default_rng(0)
    champion, challenger = folders
    before = digest(champion)
    assert act(judge_canary(arms(rng, 2_000), CONFIG), champion, challenger) is None
    back = judge_canary(arms(rng, 100_000, believes=1.6), CONFIG)
    for _ in range(2):
        act(back, champion, challenger)
        assert digest(champion) == before
        assert digest(challenger) == (2, before[1])
    publish_bytes(challenger, b"another", expected_generation=2, data_end=None)
    good = judge_canary(arms(rng, 50_000), CONFIG.model_copy(update={"margin": 0.9}))
    assert good.action == PROMOTE
    for _ in range(2):
        act(good, champion, challenger)
        assert digest(champion) == (2, digest(challenger)[1])
    with pytest.raises(ConfigError, match="two publications"):
        act(back, champion, challenger / "none")


def test_the_command_ends_with_4_when_it_rolls_back(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And says everything in JSON; 0 while it goes on; 2 and 3 for configuration and data."""
    champion, challenger = folders
    rng = np.random.default_rng(0)
    arms(rng, 100_000, believes=1.6).to_parquet(tmp_path / "bad.parquet")
    arms(rng, 2_000).to_parquet(tmp_path / "short.parquet")

    def code(log: str, *more: str) -> int:
        arguments = [
            tmp_path / log,
            "--champion",
            champion,
            "--challenger",
            challenger,
            "--share",
            "0.2",
            *more,
        ]
        monkeypatch.setattr("sys.argv", ["canary", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            run(main, "canary")
        return int(end.value.code or 0)

    settings = CONFIG.model_dump_json(include={"min_auctions", "max_auctions"})
    assert code("short.parquet", "--settings", settings) == 0
    assert json.loads(capsys.readouterr().out)["action"] == CONTINUE
    assert code("bad.parquet", "--settings", settings, "--dry-run") == 4
    assert digest(challenger)[0] == 1
    assert code("bad.parquet", "--settings", settings) == 4
    assert digest(challenger)[0] == 2
    assert code("none.parquet") == 3
    assert code("bad.parquet", "--settings", "{") == 2
    assert code("bad.parquet", "--settings", '{"unknown": 1}') == 2
