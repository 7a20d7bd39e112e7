"""The unattended job: the same bytes again, only what is missing, refusals that change nothing."""

from __future__ import annotations

import json
import operator
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bidml.errors import BidmlError, ConfigError, DataError, RefusedError
from bidml.log import write_log
from bidml.score import follow
from bidml.score.publication import read_publication
from bidml.score.reader import read_artifact
from bidml.simulate import Market
from bidml.train.config import ModelPart
from bidml.train.prepare import check, read, training_data
from training import decision, steps
from training.command import run
from training.config import (
    AlarmConfig,
    MlflowConfig,
    RetrainConfig,
    load_retrain_config,
    parse_retrain_config,
)
from training.demo_log import write_demo_log
from training.publication import publish_bytes
from training.retrain import Outcome, main, retrain
from training.window import Window

ROOT = Path(__file__).resolve().parents[2]
LONG = bool(os.environ.get("BIDML_LONG_TESTS"))
WINDOW = Window.parse("2026-11-01/2026-11-02")
FILES = {
    "certificate.json",
    "config.json",
    "data.json",
    "gate.json",
    "metrics.json",
    "model.onnx",
    "model.onnx.json",
    "model_card.md",
    "profile.json",
    "report.html",
}
PLOTS = {"reliability_of_pctr.svg", "reliability_of_win_rate.svg", "surplus_on_the_same_auctions.svg"}


def toml_of(folder: Path, **train: str) -> Path:
    """A job's configuration on the logs in `folder`/logs, publishing to `folder`/published."""
    features = "".join(
        f'[[train.features]]\nname = "{name}"\nkind = "{kind}"\nsource = "{source}"\n'
        for name, kind, source in (
            ("country", "category", "device.geo.country"),
            ("banner_size", "category", "derived.banner_size"),
            ("creative", "category", "line_item.creative"),
            ("hour_of_day", "number", "derived.hour_of_day"),
            ("bidfloor", "number", "imp.bidfloor"),
        )
    )
    keys = "".join(f"{key} = {value}\n" for key, value in train.items())
    path = folder / "job.toml"
    path.write_text(
        f'[data]\ndays = "date={{date}}"\nmarker = "_SUCCESS"\n'
        f'[publish]\nfolder = "published"\n'
        # what 3,000 auctions can prove is little
        f"[gate]\nmax_log_loss_increase = 0.5\nmin_surplus_lift = -0.5\nmax_bid_moved = 1.0\n"
        f"max_calibration_error = 2.0\n"
        f"[train]\n{keys}"
        f'[train.log]\npath = "logs"\nformat = "parquet"\n'
        f'[train.win]\nslope = "global"\n[train.pricing]\ncap_cpm = 200.0\n{features}'
    )
    return path


def job(folder: Path, out: str = "runs", **changes: Any) -> Outcome:
    config = load_retrain_config(folder / "job.toml")
    return retrain(config.model_copy(update=changes), WINDOW, folder / out, announce=lambda _: nullcontext())


@dataclass(frozen=True)
class Finished:
    folder: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One undisturbed job; tests work on copies."""
    folder = tmp_path_factory.mktemp("retrain")
    write_demo_log(
        folder / "logs", WINDOW, 3000, market=Market(base_ctr=0.15, n_apps=50, observed_win_rate=0.5)
    )
    toml_of(folder)
    return Finished(folder, job(folder))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:
    return shutil.copytree(finished.folder, tmp_path / "copy")


def test_a_job_ends_with_all_its_files_and_a_published_model(finished: Finished) -> None:
    """What a bidder follows is what the run directory holds."""
    outcome = finished.outcome
    files = {path.name for path in outcome.folder.iterdir()}
    assert {name for name in files if not name.endswith(".svg")} == FILES
    assert files >= PLOTS
    assert (outcome.published, outcome.generation) == (True, 1)
    published = read_publication(finished.folder / "published")
    assert published is not None
    assert (published.current.sha256, published.current.data_end) == (outcome.sha256, WINDOW.end.isoformat())
    artifact = read_artifact(outcome.folder / "model.onnx")
    assert artifact.sha256 == outcome.sha256
    assert artifact.blueprint.provenance["window"] == [WINDOW.start.isoformat(), WINDOW.end.isoformat()]
    assert str(finished.folder) not in (outcome.folder / "model.onnx").read_bytes().decode("latin-1")
    assert "<h2>The gate</h2>" in (outcome.folder / "report.html").read_text()
    card = (outcome.folder / "model_card.md").read_text()
    assert outcome.sha256 in card
    assert "## Limits" in card
    status = json.loads((finished.folder / "runs" / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["generation"]) == ("done", 0, 1)
    with follow(finished.folder / "published", interval_seconds=None) as following:
        assert following.status()["data_end"] == WINDOW.end.isoformat()


def test_a_second_run_repeats_nothing_and_publishes_nothing(copy: Path, finished: Finished) -> None:
    """The same data, configuration and code."""
    again = job(copy)
    assert (again.sha256, again.published, again.generation) == (finished.outcome.sha256, False, 1)
    assert {name for name, was_there in again.stages if was_there} >= {"read", "ctr", "win", "model"}
    page = "report.html"  # still says what the gate found when there was something to judge
    assert (again.folder / page).read_bytes() == (finished.outcome.folder / page).read_bytes()


def test_any_order_any_copies_and_any_threads_give_the_same_bytes(tmp_path: Path, finished: Finished) -> None:
    """Rows shuffled over other files, a third of them twice, one thread."""
    days = sorted((finished.folder / "logs").glob("*/auctions.parquet"))
    for day in days:
        log = pd.read_parquet(day)
        mixed = pd.concat([log, log[::3]]).sample(frac=1.0, random_state=1).reset_index(drop=True)
        place = tmp_path / "logs" / day.parent.name
        place.mkdir(parents=True)
        write_log(mixed[: len(mixed) // 2].reset_index(drop=True), place / "b.parquet")
        write_log(mixed[len(mixed) // 2 :].reset_index(drop=True), place / "a.parquet")
        (place / "_SUCCESS").touch()
    toml_of(tmp_path, n_threads="1")
    other = job(tmp_path)
    assert other.sha256 == finished.outcome.sha256
    left_out = json.loads((other.folder / "data.json").read_text())["left_out"]
    assert left_out["equal copies"] > 900


def test_a_killed_job_run_again_ends_with_the_same_bytes(tmp_path: Path, finished: Finished) -> None:
    """SIGKILL at random points until it comes through. BIDML_LONG_TESTS=1: 100 kills."""
    shutil.copytree(finished.folder / "logs", tmp_path / "logs")
    config = toml_of(tmp_path)
    kills = 100 if LONG else 6
    program = [sys.executable, str(Path(__file__).with_name("kill_retraining.py"))]
    found = subprocess.run(
        [*program, str(config), "2026-11-01/2026-11-02", str(tmp_path / "runs"), str(kills), "5"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    counts = json.loads(found.stdout)
    assert counts["struck"] >= 2
    assert (counts["sha256"], counts["generation"]) == (finished.outcome.sha256, 1)
    assert not list((tmp_path / "runs" / "stages").glob(".making-*"))


def test_a_refresh_moves_the_champion(copy: Path, finished: Finished) -> None:
    """A day's rows, the champion's structure; the newest model that has not seen the window is the base, also for a job
    that died after it had published; rows are not learnt from twice."""
    day = Window.parse("2026-11-03")
    write_demo_log(copy / "logs", day, 4000, market=Market(base_ctr=0.15, n_apps=50, observed_win_rate=0.5))
    config = load_retrain_config(copy / "job.toml")

    def refreshed() -> Outcome:
        return retrain(config, day, copy / "runs", announce=lambda _: nullcontext(), refresh=True)

    first = refreshed()
    assert (first.published, first.generation) == (True, 2)
    champion, challenger = (
        read_artifact(outcome.folder / "model.onnx").blueprint for outcome in (finished.outcome, first)
    )
    assert challenger.provenance["refreshed_from"] == finished.outcome.sha256
    assert challenger.provenance["n_refresh"] == challenger.provenance["n_train"] == 3200
    for part in ("ctr.head", "win.location"):
        before, after = (operator.attrgetter(part)(blueprint) for blueprint in (champion, challenger))
        assert before.trees.leaf != after.trees.leaf
        assert replace(after.trees, leaf=before.trees.leaf) == before.trees
    again = refreshed()
    assert (again.sha256, again.published, again.generation) == (first.sha256, False, 2)
    with pytest.raises(ConfigError, match="not seen"):
        retrain(config, WINDOW, copy / "runs", announce=lambda _: nullcontext(), refresh=True)
    other = config.train.model_copy(update={"features": config.train.features[:-1]})  # type: ignore[index]
    changed = config.model_copy(update={"train": other})
    with pytest.raises(ConfigError, match="its own features"):
        retrain(changed, day, copy / "runs", announce=lambda _: nullcontext(), refresh=True)


def test_a_refused_challenger_changes_nothing(copy: Path, finished: Finished) -> None:
    """The champion stays; status.json and gate.json say why; the exit code is 4."""
    champion = (finished.outcome.folder / "model.onnx").read_bytes()
    config = load_retrain_config(copy / "job.toml")
    strict = config.gate.model_copy(update={"min_rows_ratio": 10.0})
    other = config.train.model_copy(update={"random_state": 1})
    with pytest.raises(RefusedError, match="rows learnt from"):
        job(copy, gate=strict, train=other)
    report = (copy / "runs" / str(WINDOW) / "report.html").read_text()
    for said in ("refused", "rows learnt from", "Champion and challenger", "Drift of the features"):
        assert said in report
    published = read_publication(copy / "published")
    assert published is not None
    assert (published.current.generation, published.current.sha256) == (1, finished.outcome.sha256)
    status = json.loads((copy / "runs" / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["error_kind"]) == ("failed", 4, "RefusedError")
    assert json.loads((copy / "runs" / str(WINDOW) / "gate.json").read_text())["promoted"] is False
    assert champion == (copy / "published" / published.current.file_name).read_bytes()


def test_a_champion_that_changed_meanwhile_is_not_overwritten(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The challenger was judged against another: its publication is refused."""
    shutil.rmtree(copy / "published")
    real = decision.judge

    def overtaken(*arguments: Any, **options: Any) -> Any:
        publish_bytes(copy / "published", b"somebody else's model", expected_generation=0)
        return real(*arguments, **options)

    monkeypatch.setattr(decision, "judge", overtaken)
    with pytest.raises(RefusedError, match="generation"):
        job(copy)
    published = read_publication(copy / "published")
    assert published is not None
    assert published.current.generation == 1


def test_mlflow_is_told_of_every_end(copy: Path, monkeypatch: pytest.MonkeyPatch, finished: Finished) -> None:
    """A refusal is a failed run; who is published was challenger, then champion; again: the same, nothing twice."""
    told: list[str] = []
    jobs: set[str] = set()

    class Tracking:
        def __init__(self, config: MlflowConfig, home: Path) -> None:
            assert (config.model, home) == ("bidml", copy / "runs")

        def log(self, job: str, folder: Path, *, refused: bool = False) -> None:
            assert job.startswith(f"{WINDOW} {finished.outcome.sha256} ")
            jobs.add(job)
            assert (folder / "gate.json").exists()
            told.append("refused" if refused else "promoted")

        def register(self, sha256: str, job: str) -> None:
            assert job in jobs
            told.append("challenger")

        def crown(self, sha256: str) -> None:
            published = read_publication(copy / "published")
            assert published is not None
            assert published.current.sha256 == sha256
            told.append("champion")

    monkeypatch.setattr(decision, "Tracking", Tracking)
    shutil.rmtree(copy / "published")
    strict = load_retrain_config(copy / "job.toml").gate.model_copy(update={"max_latency_ratio": 1e-9})
    with pytest.raises(RefusedError):
        job(copy, gate=strict, mlflow=MlflowConfig())
    assert told == ["refused"]
    assert job(copy, mlflow=MlflowConfig()).published
    assert told[1:] == ["promoted", "challenger", "champion"]
    assert not job(copy, mlflow=MlflowConfig()).published
    assert told[4:] == ["promoted", "challenger", "champion"]
    assert len(jobs) == 2  # another gate is another run: a run's parameters cannot be changed


@pytest.mark.parametrize(
    ("break_it", "message", "exit_code"),
    [
        ("no marker", "every day or hour of the window is complete", 3),
        ("a row is missing", "rows that their markers promise", 3),
        ("empty", "at least 1,000 rows", 3),
        ("poisoned", "quarantined", 3),
        ("no clicks", "clicked has both outcomes", 3),
        ("damaged file", "can be read to its end", 3),
    ],
)
def test_bad_data_stops_the_job(copy: Path, break_it: str, message: str, exit_code: int) -> None:
    """Before anything is fitted; the published model stays."""
    day = copy / "logs" / "date=2026-11-02"
    log = pd.read_parquet(day / "auctions.parquet")
    if break_it == "no marker":
        (day / "_SUCCESS").unlink()
    elif break_it == "a row is missing":
        write_log(log[1:].reset_index(drop=True), day / "auctions.parquet")
    elif break_it == "damaged file":
        (day / "auctions.parquet").write_bytes((day / "auctions.parquet").read_bytes()[:-100])
    else:
        for path in (copy / "logs").glob("*/auctions.parquet"):
            rows = pd.read_parquet(path)
            if break_it == "empty":
                rows = rows.assign(timestamp=rows["timestamp"] - pd.Timedelta(days=30))
            elif break_it == "poisoned":
                rows = rows.assign(bid_cpm=rows["bid_cpm"].where(rows.index % 5 != 0, -1.0))
            else:
                rows = rows.assign(
                    clicked=False, click_timestamp=pd.NaT, converted=False, conversion_timestamp=pd.NaT
                )
            write_log(rows, path)
    with pytest.raises(DataError, match=message) as caught:
        job(copy)
    assert caught.value.exit_code == exit_code
    published = read_publication(copy / "published")
    assert published is not None
    assert published.current.generation == 1


def test_poisoned_rows_are_set_aside_and_counted(copy: Path) -> None:
    """A few of them stop nothing."""
    day = copy / "logs" / "date=2026-11-01" / "auctions.parquet"
    rows = pd.read_parquet(day)
    write_log(rows.assign(bid_cpm=rows["bid_cpm"].where(rows.index != 7, -1.0)), day)
    out = copy / "stage"
    out.mkdir()
    config = load_retrain_config(copy / "job.toml")
    intake = steps_intake(config)
    steps.read_window(config, WINDOW, intake, out)
    found = json.loads((out / "data.json").read_text())
    assert found["quarantine"]["counts"] == {"bid_not_positive": 1}
    assert len(pd.read_parquet(out / "quarantine.parquet")) == 1
    assert found["rows_used"] == found["rows_read"] - 1


def steps_intake(config: RetrainConfig) -> Any:
    from training.intake import wait_for_files

    return wait_for_files(str(config.train.log.path), config.data, WINDOW)


def test_a_feature_that_is_the_click_is_refused(finished: Finished, tmp_path: Path) -> None:
    """A leak is an alarm, not a triumph."""
    config = load_retrain_config(finished.folder / "job.toml").train
    log, quarantine = check(read(f"{finished.folder}/logs", config), config)
    data = training_data(log.assign(bidfloor=log["clicked"].astype(float)), quarantine, config)
    with pytest.raises(RefusedError, match="bidfloor"):
        steps.fit_part(ModelPart.CTR, config, data, tmp_path)
    with pytest.raises(RefusedError, match="AUC"):
        steps.refuse_too_good({"ctr": {"model": {"auc": 0.99}}}, AlarmConfig())
    steps.refuse_too_good({}, AlarmConfig())


def test_one_job_at_a_time(copy: Path) -> None:
    """A second one is refused at once."""
    from training.retrain import _alone_in

    with _alone_in(copy / "runs"), pytest.raises(RefusedError, match="one job"):
        job(copy)


def test_a_dry_run_publishes_nothing(copy: Path) -> None:
    """It judges."""
    shutil.rmtree(copy / "published")
    config = load_retrain_config(copy / "job.toml")
    outcome = retrain(config, WINDOW, copy / "runs", announce=lambda _: nullcontext(), dry_run=True)
    assert not outcome.published
    assert read_publication(copy / "published") is None
    assert json.loads((outcome.folder / "gate.json").read_text())["promoted"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"gate": {"confidence": 2.0}},
        {"gate": {"unknown": 1}},
        {"more": {}},
        {"data": {"wait_minutes": -1}},
        {"train": None},
        {"train": {"log": {"path": ["a", "b"], "format": "parquet"}}},
        {"train": {"log": {"path": "a", "test_path": "b", "format": "parquet"}}},
        {"train": {"log": {"path": "a", "format": "parquet"}, "unknown": 1}},
    ],
    ids=str,
)
def test_a_wrong_configuration_is_refused(change: dict[str, Any]) -> None:
    """With its key."""
    document = {"train": {"log": {"path": "a", "format": "parquet"}}}
    parse_retrain_config(document)
    with pytest.raises(ConfigError):
        parse_retrain_config(document | change)


def test_the_demo_s_configuration_is_valid() -> None:
    """And its paths are relative to the file."""
    config = load_retrain_config(ROOT / "training" / "configs" / "demo.toml")
    assert config.publish is not None
    assert Path(config.publish.folder).is_absolute()
    assert config.train.spec is not None


def test_the_command_has_the_exit_codes_of_bidml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 configuration, 3 data; one line on stderr."""
    toml_of(tmp_path)

    def command(*arguments: object) -> list[str]:
        return ["retrain", *map(str, arguments), "--out", str(tmp_path / "runs")]

    for wrong in (("--config", tmp_path / "none.toml", "--window", "2026-11-01"),
                  ("--config", tmp_path / "job.toml", "--window", "yesterday")):  # fmt: skip
        monkeypatch.setattr(sys, "argv", command(*wrong))
        with pytest.raises(SystemExit) as stopped:
            run(main, "retrain")
        assert stopped.value.code == 2
        assert capsys.readouterr().err.startswith("retrain: ")
    arguments = command("--config", tmp_path / "job.toml", "--window", "2026-11-01")[1:]
    found = subprocess.run(
        [sys.executable, "-m", "training.retrain", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 3, found.stderr
    assert found.stderr.startswith("retrain: every day or hour of the window is complete")
    status = json.loads((tmp_path / "runs" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 3)


def test_every_error_of_a_job_is_of_the_family() -> None:
    """So that it becomes an exit code."""
    for kind in (ConfigError, DataError, RefusedError):
        assert issubclass(kind, BidmlError)
