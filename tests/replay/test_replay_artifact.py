"""An artifact replayed through `bid_many`, as the bidder would bid: simulated and real logs, and the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bidml.cli import main
from bidml.errors import ConfigError, DataError
from bidml.features import raw_columns
from bidml.log import read_log, write_log
from bidml.pricing import WinCurve, optimal_bid_cpm
from bidml.replay import ReplayAuctions, predict, replay, replay_artifact, scorer_bidder
from bidml.score import Scorer


@pytest.fixture(scope="module")
def scorer(simulated_run: Any) -> Scorer:
    return Scorer.load(simulated_run.artifact)


@pytest.fixture(scope="module")
def log(simulated_run: Any) -> pd.DataFrame:
    return read_log(simulated_run.log, format="parquet").tail(4_000).reset_index(drop=True)


def test_a_scorer_s_bids_are_the_reference_s(scorer: Scorer, log: pd.DataFrame) -> None:
    """`scorer_bidder` gives the prices of `bidml.pricing` for the artifact's curves, paced, row by row of a slice."""
    columns = raw_columns(log, scorer.blueprint.spec)
    said = predict(scorer, columns)
    auctions = ReplayAuctions.from_log(log, pctr=said.pctr)
    bidder = scorer_bidder(
        scorer, columns, auctions, value_per_click=log["value_per_click"].to_numpy(), cap_cpm=9.0
    )
    rows = slice(1_000, 1_700)
    expected = optimal_bid_cpm(
        auctions.value_cpm[rows],
        said.curve[rows],
        floor_cpm=auctions.floor_cpm[rows],
        cap_cpm=9.0,
        pacing_multiplier=0.7,
        auction_type=auctions.auction_type[rows],
    )
    np.testing.assert_allclose(bidder(rows, 0.7), expected, rtol=1e-11)


def test_artifact_and_log_are_judged_alike(scorer: Scorer, log: pd.DataFrame) -> None:
    """The logged policy's replay is what happened; with a budget none spends more; pacing changes the bids."""
    results = replay_artifact(scorer, log, cap_cpm=50.0)
    assert results["as logged"].wins.is_known
    assert results["as logged"].wins.lower == log["won"].sum()
    assert results["as logged"].spend.lower == pytest.approx(log["price_cpm"].sum() / 1000.0)
    assert results["artifact"].n_unknown == 0  # the simulator's log knows its prices
    budget = 0.4 * results["artifact"].spend.lower
    stopped = replay_artifact(scorer, log, budget=budget)
    paced = replay_artifact(scorer, log, budget=budget, n_windows=40)
    assert max(r.spend.upper for r in (*stopped.values(), *paced.values())) <= budget * (1.0 + 1e-9)
    assert paced["artifact"].surplus.estimate != stopped["artifact"].surplus.estimate
    dear = replay_artifact(scorer, log, floor_cpm=3.0)
    assert dear["artifact"].wins.upper < results["artifact"].wins.lower
    assert replay_artifact(scorer, log, auction_type=2)["artifact"].win_rate.lower > 0.0


def test_a_judge_of_its_own(scorer: Scorer, log: pd.DataFrame) -> None:
    """The judge's pctr values the wins when the log knows none, and its curve imputes."""
    blind = log.drop(columns=["true_pctr", "true_market_price_cpm"])
    results = replay_artifact(scorer, blind, judge=scorer)
    own = replay_artifact(scorer, blind)
    assert results["artifact"] == own["artifact"]
    assert own["artifact"].n_unknown > 0
    assert own["artifact"].surplus.lower < own["artifact"].surplus.estimate < own["artifact"].surplus.upper


def test_errors_say_what_to_do(scorer: Scorer, log: pd.DataFrame) -> None:
    with pytest.raises(ConfigError, match="pacing has a budget"):
        replay_artifact(scorer, log, n_windows=10)
    with pytest.raises(DataError, match="log's money is the artifact's"):
        replay_artifact(scorer, log.assign(currency="EUR"))
    with pytest.raises(DataError, match="first or second price"):
        replay_artifact(scorer, log, auction_type=3)


def test_real_prices_bound_and_impute(shared_data: Path) -> None:
    """iPinYou 2259, censored by simulated bids with the market price known: the truth lies in the bounds."""
    log = read_log(
        shared_data / "ipinyou_2259_censored_test.parquet",
        format="parquet",
        columns={"clicked": "click", "bid_cpm": "bid", "true_market_price_cpm": "market_price", "ip": "IP"},
        currency="CNY",
        auction_type=2,
        price_unit="centi_cpm",
    )
    terms = {"pctr": 0.001, "value_per_click": 1.0}
    bids = np.full(len(log), 0.8)
    for auction_type in (1, 2):
        truth = replay(bids, ReplayAuctions.from_log(log, auction_type=auction_type, **terms))
        told = ReplayAuctions.from_log(
            log.drop(columns="true_market_price_cpm"), auction_type=auction_type, **terms
        )
        found = replay(bids, told, curve=WinCurve(np.log(0.7), 2.0))
        assert truth.n_unknown == 0
        assert 0.05 < found.n_unknown / len(log) < 0.95
        for name in ("wins", "spend", "surplus"):
            assert getattr(truth, name).lower in getattr(found, name), (auction_type, name)


def test_a_log_of_impressions_is_replayed(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """iPinYou's won impressions: second price, no losses. Lower bids are known to the last auction; higher ones buy the
    same, since what the log lost it does not hold."""
    log = read_log(shared_data / "ipinyou_raw_imp.20131021.tsv.gz", format="ipinyou")
    log = log.drop_duplicates("auction_id").reset_index(drop=True)
    auctions = ReplayAuctions.from_log(log, pctr=0.001, value_per_click=1.0)
    assert auctions.won.all()
    assert auctions.exact.mean() > 0.5  # the others cleared at their floor
    half, double = (replay(factor * auctions.bid_cpm, auctions) for factor in (0.5, 2.0))
    assert half.wins.is_known
    assert 0 < half.wins.lower < double.wins.lower == len(log)
    assert half.spend.lower / half.wins.lower < double.spend.lower / double.wins.lower


def test_the_command_line(
    simulated_run: Any, log: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    write_log(log, tmp_path / "log.parquet")
    command = ["bidml", "replay", str(simulated_run.artifact), "--log", str(tmp_path / "log.parquet")]
    command += ["--format", "parquet", "--cap-cpm", "50"]
    for extra in ([], ["--budget", "1.5", "--windows", "20", "--json"]):
        monkeypatch.setattr(sys, "argv", [*command, *extra])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert not stopped.value.code
    text, _, document = capsys.readouterr().out.partition("{")
    assert "as logged" in text
    assert "surplus per 1,000 auctions" in text
    found = json.loads("{" + document)
    assert found["artifact"]["spend"]["upper"] <= 1.5 * (1.0 + 1e-9)
    monkeypatch.setattr(sys, "argv", [*command, "--windows", "20"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
