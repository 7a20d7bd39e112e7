"""Conversions from the log to the artifact: fitted when asked for, judged as far as they have arrived."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from artifacts import negated

from bidml.blueprint import CtrBlueprint
from bidml.errors import ConfigError
from bidml.export import model_bytes
from bidml.features import raw_columns
from bidml.fit.maturity import Maturity
from bidml.log import write_log
from bidml.replay import predict, scorer_bidder
from bidml.replay.auctions import ReplayAuctions
from bidml.score import Scorer
from bidml.score.reader import parse_artifact
from bidml.self_check import self_check_of
from bidml.simulate import Market, Simulation, simulate
from bidml.train import parse_config, train
from bidml.train.evaluate import evaluate_cvr, terms_of
from bidml.train.prepare import prepare
from training.config import parse_retrain_config
from training.gate import judge
from training.retrain import retrain
from training.window import Window

START = datetime(2026, 11, 1, tzinfo=UTC)
MARKET = Market(base_ctr=0.2, base_cvr=0.3, n_apps=60, days=5.0, start=START, observed_win_rate=0.5)
N = 24_000


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """Many clicks, conversions with a delay of 20 hours in the mean: a good part of the last day's are not known."""
    return simulate(N, market=MARKET, rng=np.random.default_rng(7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("conversions")


def document(simulation: Simulation, log: Path, **more: Any) -> dict[str, Any]:
    return {
        "log": {"path": str(log), "format": "parquet"},
        "features": [feature.to_json() for feature in simulation.spec.features],
        "win": {"slope": "global"},
        "cvr": {"window": "3D"},
        "pricing": {"value_per_conversion": 30.0, "cap_cpm": 200.0},
        "n_threads": 1,
        **more,
    }


@pytest.fixture(scope="module")
def run(simulation: Simulation, folder: Path) -> Any:
    log = folder / "log.parquet"
    write_log(simulation.log.drop(columns=["value_per_click"]), log)
    return train(parse_config(document(simulation, log)), folder / "run")


def test_the_artifact_predicts_and_bids_for_conversions(run: Any, simulation: Simulation) -> None:
    """Trained by a section of the configuration; correlated with the truth, and a line item can pay for them."""
    scorer = Scorer.load(run.artifact)
    assert set(scorer.parts) == {"ctr", "win", "cvr"}
    found = predict(scorer, raw_columns(run.test, scorer.spec))
    assert found.pcvr is not None
    truth = run.test["true_pcvr"].to_numpy()
    assert np.corrcoef(np.log(found.pcvr), np.log(truth))[0, 1] > 0.4
    fields = simulation.line_item_fields(0)
    line = scorer.line_item(value_per_conversion=30.0, cap_cpm=200.0, **fields)
    assert scorer.bid(simulation.requests([0])[0], line) > 0.0


def test_conversions_are_judged_as_far_as_they_have_arrived(run: Any) -> None:
    """Out of time: level right within noise, no worse than the base rate; and in money."""
    scores = run.metrics["cvr"]
    base = scores["base rate"]["log_loss"]
    assert scores["truth"]["log_loss"] < base
    assert (
        scores["model"]["log_loss"] < 1.02 * base
    )  # of 63 conversions; benchmarks.bench_conversions has more
    for name in ("model", "truth"):
        assert scores[name]["calibration_low"] < 1.05
        assert scores[name]["calibration_high"] > 0.95
    naive = evaluate_cvr(run.test["true_pcvr"].to_numpy(), run.test, None)
    assert naive is not None
    assert naive["model"]["calibration_ratio"] > 1.15  # the broken twin: young clicks taken for old
    assert run.metrics["money"]["bidml"]["surplus_cpm"] > 0.0
    assert "Conversions of held-out clicks" in run.report.read_text()


def test_maturity_of_a_log_without_conversions_is_unknown(simulation: Simulation) -> None:
    log = simulation.log
    assert Maturity.of(log.assign(converted=False), "3D") is None
    assert Maturity.of(log.drop(columns=["click_timestamp"]), "3D") is None
    with pytest.raises(ConfigError, match="duration"):
        Maturity.of(log, "soon")
    found = Maturity.of(log, "3D")
    assert found is not None
    clicks = log[log["clicked"]]
    arrived = found.arrived(clicks)
    hours = (
        pd.Timestamp(found.as_of, unit="s", tz="UTC") - clicks["click_timestamp"]
    ).dt.total_seconds() / 3600
    true_share = (1.0 - np.exp(-np.minimum(hours, 72.0) / 20.0)) / (1.0 - np.exp(-72.0 / 20.0))
    assert np.abs(arrived - true_share).mean() < 0.03


def test_a_section_cvr_needs_a_click_model(simulation: Simulation, tmp_path: Path) -> None:
    for wrong in ({"models": ["win"]}, {"models": ["ctr", "cvr"]}, {"cvr": {"window": "-1D"}}):
        with pytest.raises(ConfigError):
            parse_config(document(simulation, tmp_path / "x", **wrong))


def test_the_replay_bids_for_conversions(run: Any) -> None:
    """As `bid_many` with the same terms does; half of the value, lower bids."""
    scorer = Scorer.load(run.artifact)
    test = run.test
    columns = raw_columns(test, scorer.spec)
    auctions = ReplayAuctions.from_log(test, value_per_click=1.0)
    bids = [
        scorer_bidder(scorer, columns, auctions, value_per_click=0.0, value_per_conversion=worth)(
            slice(None), 1.0
        )
        for worth in (30.0, 15.0)
    ]
    assert 0.0 < bids[1].sum() < bids[0].sum()
    terms = terms_of(test, value_per_click=None, value_per_conversion=30.0, cap_cpm=None, auction_type=1)  # type: ignore[arg-type]
    assert terms is not None
    assert (terms.value_per_click == 0.0).all()


# ---- the gate ----


@pytest.fixture(scope="module")
def gate(run: Any, simulation: Simulation, folder: Path) -> Any:
    """A function from a challenger's CVR part to the verdict beside the run's own artifact."""
    config = parse_config(document(simulation, folder / "log.parquet"))
    data = prepare(config)
    whole = pd.concat([data.train, data.test], ignore_index=True)
    maturity = Maturity.of(whole, "3D")
    champion = run.artifact.read_bytes()
    blueprint = parse_artifact(champion).blueprint
    limits = parse_retrain_config(
        {
            "train": document(simulation, folder / "log.parquet"),
            "gate": {"max_latency_ratio": 1e3, "segment_min_events": 1e9},
        }
    ).gate

    def verdict(cvr: CtrBlueprint | None) -> Any:
        made = replace(blueprint, cvr=cvr)
        data_ = model_bytes(made, self_check_of(made, {}))
        return judge(data_, champion, data.test, limits, pricing=config.pricing, maturity=maturity)

    return blueprint.cvr, verdict


def test_the_gate_judges_conversions(gate: Any) -> None:
    """The same model passes; without the part, at another level or far too steep it is refused, by name."""
    cvr, verdict = gate
    passed = verdict(cvr)
    assert passed.promoted, passed.reasons
    assert any(check.name.startswith("CVR calibration") for check in passed.checks)
    gone = verdict(None)
    assert not gone.promoted
    assert "CVR model" in {check.name for check in gone.checks if not check.passed}
    found = cvr.calibration
    for wrong in (
        replace(found, shift=found.shift + 1.5),
        replace(found, shift=found.shift - 1.5),
        replace(found, positive=6.0 * found.positive, negative=6.0 * found.negative),
    ):
        broken = replace(cvr, calibration=wrong)
        failed = {check.name for check in verdict(broken).checks if not check.passed}
        assert any(name.startswith("CVR") for name in failed), failed
    upside_down = verdict(replace(cvr, head=negated(cvr.head)))
    assert any("speak for the opposite" in check.name for check in upside_down.checks if not check.passed)


def test_a_retraining_job_makes_the_conversion_model(simulation: Simulation, tmp_path: Path) -> None:
    """Its stages and the artifact; killed nowhere, judged alone."""
    write_log(simulation.log, tmp_path / "log.parquet")
    config = parse_retrain_config({"train": document(simulation, tmp_path / "log.parquet")})
    outcome = retrain(
        config, Window.parse("2026-11-01/2026-11-05"), tmp_path / "out", announce=lambda _: nullcontext()
    )
    assert "cvr" in dict(outcome.stages)
    blueprint = parse_artifact((outcome.folder / "model.onnx").read_bytes()).blueprint
    assert blueprint.cvr is not None
    assert blueprint.metrics["cvr"]["model"]["calibration_ratio"] == pytest.approx(1.0, abs=0.3)
