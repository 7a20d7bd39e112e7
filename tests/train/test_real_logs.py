"""The whole job on real logs: what it learns there, and every captured request answered."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bidml.cli import main
from bidml.errors import DataError
from bidml.log import read_log, validate
from bidml.score import Scorer
from bidml.train import TrainingRun, load_config, train

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"


@pytest.fixture(scope="module")
def win_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    return train(load_config(CONFIGS / "ipinyou_2259.toml"), tmp_path_factory.mktemp("ipinyou") / "run")


@pytest.fixture(scope="module")
def ctr_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    return train(load_config(CONFIGS / "kddcup2012.toml"), tmp_path_factory.mktemp("kdd") / "run")


def test_the_win_curve_of_ipinyou_2259_knows_held_out_auctions(win_run: TrainingRun) -> None:
    """Much better than the base rate (design experiment: .42 against .55), and calibrated."""
    scores = win_run.metrics["win"]
    assert scores["model"]["log_loss"] < 0.85 * scores["base rate"]["log_loss"]
    assert scores["model"]["auc"] > 0.7


def test_the_ctr_model_of_kdd_cup_ranks_held_out_impressions(ctr_run: TrainingRun) -> None:
    """The published winners reach an AUC near 0.8 on far more data."""
    scores = ctr_run.metrics["ctr"]
    assert scores["model"]["log_loss"] < 0.99 * scores["base rate"]["log_loss"]
    assert scores["model"]["auc"] > 0.62
    assert 0.9 < scores["model"]["calibration_ratio"] < 1.1


@pytest.mark.parametrize("name", ["win_run", "ctr_run"])
def test_a_run_leaves_a_loadable_artifact_and_its_papers(name: str, request: pytest.FixtureRequest) -> None:
    """Artifact with manifest, metrics, config, report; nothing hidden or half-written."""
    run: TrainingRun = request.getfixturevalue(name)
    files = {path.name for path in run.folder.iterdir()}
    assert files == {
        "model.onnx",
        "model.onnx.json",
        "metrics.json",
        "config.json",
        "report.html",
        "model_card.md",
    }
    scorer = Scorer.load(run.artifact)
    assert scorer.info()["sha256"] == run.certificate.sha256
    assert json.loads((run.folder / "metrics.json").read_text())["metrics"] == run.metrics
    assert scorer.info()["metrics"] == run.metrics


def test_the_raw_ipinyou_files_are_read_duplicates_and_all(shared_data: Path) -> None:
    """9,960 distinct impressions, some bad, none dropped in silence; three clicks join."""
    files = [shared_data / f"ipinyou_raw_{kind}.20131021.tsv.gz" for kind in ("imp", "clk")]
    checked = validate(read_log(files, format="ipinyou"), needs=["ctr", "time"])
    assert len(checked.log) + len(checked.quarantine.rows) == 9_960
    assert sum(checked.quarantine.counts.values()) == len(checked.quarantine.rows) > 0
    assert checked.quarantine.reading.notes["duplicate_impression"] == 40
    assert int(checked.log["clicked"].sum()) == 3


def test_joined_ipinyou_rows_train_through_the_command_line(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`bidml train --format ipinyou`: an impression log teaches a CTR model, and says that it has no losses."""
    spec = tmp_path / "spec.toml"
    names = {"os": "category", "slot_size": "category", "hour_of_day": "number", "weekday": "number"}
    spec.write_text(
        "".join(
            f'[[features]]\nname = "{n}"\nkind = "{k}"\nsource = "ext.log.{n}"\n' for n, k in names.items()
        )
    )
    log = shared_data / "ipinyou_2259_log_rows.tsv.gz"
    out = tmp_path / "run"
    arguments = [
        "bidml",
        "train",
        "--log",
        log,
        "--format",
        "ipinyou",
        "--spec",
        spec,
        "--out",
        out,
        "--json",
    ]
    monkeypatch.setattr("sys.argv", [*map(str, arguments), "--models", "ctr"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code, capsys.readouterr().err
    assert set(json.loads(capsys.readouterr().out)["metrics"]["ctr"]) == {"model", "base rate"}
    assert Scorer.load(out / "model.onnx").currency == "CNY"
    monkeypatch.setattr("sys.argv", [*map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 3
    assert "wins and losses" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["openrtb_adx_captured_2016.jsonl.gz", "openrtb_requests.jsonl.gz"])
def test_every_real_request_gets_a_bid_or_a_reason(file: str, shared_data: Path, simulated_run: Any) -> None:
    """Not one exception; what is bid is inside its bounds and says why it is so."""
    scorer = Scorer.load(simulated_run.artifact, rates={"EUR": 1.1, "GBP": 1.3})
    fields = {
        feature.source.removeprefix("line_item."): "x"
        for feature in scorer.blueprint.spec.features
        if feature.source.startswith("line_item.")
    }
    line = scorer.line_item(value_per_click=2.0, cap_cpm=50.0, **fields)
    n_bids = n = 0
    with gzip.open(shared_data / file, "rt") as lines:
        for text in lines:
            document = json.loads(text)
            request = document.get("req", document)
            bid_cpm, reason = scorer.decide(request, line)
            why = scorer.explain(request, line)
            assert (why.bid_cpm, int(why.reason)) == (bid_cpm, reason)
            assert bid_cpm == 0.0 or (why.floor_cpm <= bid_cpm <= min(50.0, why.unshaded_bid_cpm))
            n_bids += bid_cpm > 0.0
            n += 1
    assert n in (500, 3_000)
    assert n_bids > 0.1 * n
    assert scorer.counters()["bid"] == n_bids


def test_a_truncated_parquet_leaves_nothing(shared_data: Path, tmp_path: Path) -> None:
    """A data error; no run directory."""
    whole = (shared_data / "ipinyou_2259_censored_train.parquet").read_bytes()
    (tmp_path / "log.parquet").write_bytes(whole[: len(whole) // 2])
    config = load_config(CONFIGS / "ipinyou_2259.toml", {"log": {"path": str(tmp_path / "log.parquet")}})
    with pytest.raises(DataError, match="can be read to its end"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_ipinyou_quarantine_is_reported(win_run: TrainingRun) -> None:
    """Counts are in metrics.json, also when nothing was set aside."""
    document = json.loads((win_run.folder / "metrics.json").read_text())
    assert document["quarantine"]["n_rows"] == win_run.n_train
    assert isinstance(win_run.test, pd.DataFrame)
