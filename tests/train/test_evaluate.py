"""An artifact judged on a later log, and what its features are worth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bidml.cli import app
from bidml.contract import AuctionType
from bidml.errors import ConfigError
from bidml.features import raw_columns
from bidml.log import write_log
from bidml.score import Scorer
from bidml.train import evaluate, parse_config
from bidml.train.evaluate import terms_of
from bidml.train.importance import importance_in_money
from bidml.train.prepare import split


@pytest.fixture(scope="module")
def held_out(simulated_run: Any) -> pd.DataFrame:
    """The auctions that the demo held out."""
    return split(pd.read_parquet(simulated_run.log), holdout=0.2)[1]


@pytest.fixture(scope="module")
def scorer(simulated_run: Any) -> Scorer:
    return Scorer.load(simulated_run.artifact)


def test_the_same_auctions_give_the_same_metrics(
    simulated_run: Any, held_out: pd.DataFrame, tmp_path: Path
) -> None:
    """`bidml evaluate` on the held-out rows finds what training found, and writes every file of a run."""
    write_log(held_out, tmp_path / "log.parquet")
    arguments = [
        "evaluate", str(simulated_run.artifact), "--log", str(tmp_path / "log.parquet"), "--format", "parquet",
        "--out", str(tmp_path / "run"), "--json",
    ]  # fmt: skip
    said = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert said.exit_code == 0
    found = json.loads(said.stdout)["metrics"]
    for part in ("ctr", "win"):
        assert found[part]["model"] == pytest.approx(simulated_run.metrics[part]["model"], rel=1e-12)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"metrics.json", "report.html", "model_card.md", "config.json"}
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["metrics"] == found
    assert "| artifact | sha256 `" in (tmp_path / "run" / "model_card.md").read_text()


def test_another_currency_is_refused_and_leaves_nothing(
    simulated_run: Any, held_out: pd.DataFrame, tmp_path: Path
) -> None:
    """Prices of two currencies are not compared."""
    write_log(held_out.head(500).assign(currency="EUR"), tmp_path / "log.parquet")
    config = parse_config({"log": {"path": str(tmp_path / "log.parquet"), "format": "parquet"}})
    with pytest.raises(ConfigError, match="one currency"):
        evaluate(simulated_run.artifact, config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def importance(scorer: Scorer, log: pd.DataFrame, seed: int = 0) -> dict[str, Any]:
    terms = terms_of(log, value_per_click=None, cap_cpm=200.0, auction_type=AuctionType.FIRST_PRICE)
    assert terms is not None
    rng = np.random.default_rng(seed)
    columns = raw_columns(log, scorer.blueprint.spec)
    return importance_in_money(scorer, columns, log, terms, None, rng=rng)


def test_no_shuffled_feature_gains_in_the_model_s_own_eyes(scorer: Scorer, held_out: pd.DataFrame) -> None:
    """The model's bids are the best in the market that it believes in: whatever is shuffled, nothing is gained."""
    log = held_out.drop(columns="true_pctr")
    found = importance(scorer, log)
    assert found["judge"] == "the model's own win curve"
    losses = {name: scores["loss_cpm"] for name, scores in found["features"].items()}
    assert set(losses) == {feature.name for feature in scorer.blueprint.spec.features}
    assert min(losses.values()) >= -1e-9
    assert max(losses, key=losses.__getitem__) in {
        "app_bundle",
        "banner_size",
        "creative",
        "tag_id",
        "session_depth",
        "instl",  # a large banner is one, and the model may tell it by either
    }
    assert found == importance(scorer, log)


def test_a_feature_that_says_nothing_is_worth_nothing(scorer: Scorer, held_out: pd.DataFrame) -> None:
    """A constant loses exactly nothing when it is shuffled."""
    log = held_out.assign(app_bundle="one.app")
    assert importance(scorer, log)["features"]["app_bundle"] == {"loss_cpm": 0.0, "loss_ci95_cpm": 0.0}


def test_the_training_run_knows_what_features_are_worth(simulated_run: Any) -> None:
    """Judged by the simulator's truth, in the metrics and so in the report and the artifact."""
    found = simulated_run.metrics["importance"]
    assert found["judge"] == "the simulator's true distribution of the market price"
    best = max(found["features"].values(), key=lambda scores: scores["loss_cpm"])
    assert best["loss_cpm"] > best["loss_ci95_cpm"] > 0.0
    assert "Surplus lost when a feature is shuffled" in (simulated_run.folder / "model_card.md").read_text()
