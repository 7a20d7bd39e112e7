"""An uncertainty that the configuration asks for: from the log to the artifact, its bids, the replay and the gate."""

from __future__ import annotations

from array import array
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bidml.blueprint import Head
from bidml.export import model_bytes
from bidml.features import raw_columns
from bidml.log import write_log
from bidml.replay import scorer_bidder
from bidml.replay.auctions import ReplayAuctions
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.simulate import Market, simulate
from bidml.train import parse_config, train
from training.config import parse_retrain_config
from training.gate import judge

MARKET = Market(
    base_ctr=0.1, n_apps=60, days=5.0, start=datetime(2026, 11, 1, tzinfo=UTC), observed_win_rate=0.5
)


def scaled(head: Head, factor: float) -> Head:
    terms = tuple(
        replace(term, values=array("d", [factor * v for v in term.values]), default=factor * term.default)
        for term in head.terms
    )
    return replace(head, terms=terms, intercept=factor * head.intercept)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    simulation = simulate(12_000, market=MARKET, rng=np.random.default_rng(7))
    log = tmp_path_factory.mktemp("uncertain") / "log.parquet"
    write_log(simulation.log, log)
    return {
        "log": {"path": str(log), "format": "parquet"},
        "features": [feature.to_json() for feature in simulation.spec.features],
        "ctr": {"uncertainty": True},
        "win": {"slope": "global"},
        "pricing": {"value_per_click": 0.03, "cap_cpm": 200.0},
        "n_threads": 1,
    }


@pytest.fixture(scope="module")
def run(document: dict[str, Any]) -> Any:
    return train(parse_config(document), Path(document["log"]["path"]).parent / "run")


def test_the_artifact_knows_its_uncertainty_and_the_replay_is_averse_to_it(run: Any) -> None:
    """Certified, loaded; a standard deviation for every auction, and lower bids for an aversion."""
    scorer = Scorer.load(run.artifact)
    assert scorer.knows_uncertainty
    columns, n = raw_columns(run.test, scorer.spec), len(run.test)
    sd = np.empty(n)
    scorer.score_many(columns, {"pctr_log_odds_sd": sd})
    assert ((sd > 0.1) & (sd < 1.5)).all()
    assert len(np.unique(sd)) > 0.5 * n
    auctions = ReplayAuctions.from_log(run.test, value_per_click=0.03)
    bids = [
        scorer_bidder(scorer, columns, auctions, value_per_click=0.03, risk_aversion=rho)(slice(None), 1.0)
        for rho in (0.0, 0.5)
    ]
    assert (bids[1] <= bids[0]).all()
    assert 0.0 < bids[1].sum() < bids[0].sum()


def test_the_gate_judges_the_uncertainty(run: Any, document: dict[str, Any]) -> None:
    """The champion's own passes; none, or one of three times the size or a third of it, is refused by name."""
    champion = run.artifact.read_bytes()
    blueprint = parse_artifact(champion).blueprint
    assert blueprint.ctr is not None
    assert blueprint.ctr.variance is not None
    config = parse_retrain_config({"train": document, "gate": {"max_latency_ratio": 1e3}})

    def failed(variance: Head | None) -> set[str]:
        made = replace(blueprint, ctr=replace(blueprint.ctr, variance=variance))
        data = model_bytes(made, self_check_of(made, {}))
        verdict = judge(data, champion, run.test, config.gate, pricing=config.train.pricing)
        return {check.name for check in verdict.checks if not check.passed}

    assert "uncertainty of pctr" not in failed(blueprint.ctr.variance)
    for wrong in (None, scaled(blueprint.ctr.variance, 9.0), scaled(blueprint.ctr.variance, 1.0 / 9.0)):
        assert "uncertainty of pctr" in failed(wrong)
