"""`training.retrain --rank --machines` as processes: one model, published once; one that dies ends all, and a rerun
succeeds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bidml.errors import ConfigError
from bidml.score.publication import read_publication
from bidml.simulate import Market
from tests.training.ranks.threads import free_machines
from tests.training.test_retrain import ROOT, WINDOW, toml_of
from training.config import load_retrain_config
from training.demo_log import write_demo_log
from training.ranks.job import about, ranks_of
from training.ranks.meeting import Patience
from training.retrain import retrain
from training.window import Window

RUN = f"{WINDOW}".replace("/", "_")


def started(folder: Path, rank: int, machines: str, **options: str) -> subprocess.Popen[str]:
    given = {"config": str(folder / "job.toml"), "window": str(WINDOW).replace("_", "/")}
    given |= {"out": str(folder / "runs"), "rank": str(rank), "machines": machines}
    given |= {"meeting-seconds": "300", "silence-seconds": "600"} | options
    command = [
        sys.executable,
        "-m",
        "training.retrain",
        *(f"--{name}={text}" for name, text in given.items()),
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )


def places() -> str:
    return ",".join(f"{machine.host}:{machine.port}" for machine in free_machines(2))


def dask_recipe(folder: Path) -> Path:
    """The block of docs/scale.md as a program, on a local cluster of two workers."""
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "scale.md").read_text(), re.DOTALL)
    (recipe,) = [block for block in blocks if "dask" in block]
    given = {"--config": str(folder / "job.toml"), "--window": str(WINDOW).replace("_", "/")}
    job = [word for pair in {**given, "--out": str(folder / "runs")}.items() for word in pair]
    first = free_machines(2)[0].port
    for was, now in (
        (re.search(r"^JOB = .*$", recipe, re.MULTILINE).group(), f"JOB = {job!r}"),  # type: ignore[union-attr]
        ('Client("scheduler:8786")', "Client(cluster)"),
        ("12400 + rank", f"{first} + rank"),
    ):
        assert recipe.count(was) == 1
        recipe = recipe.replace(was, now)
    program = folder / "on_dask.py"
    program.write_text(
        "from dask.distributed import LocalCluster\n\nif __name__ == '__main__':\n"
        "    with LocalCluster(\n"
        "        n_workers=2, threads_per_worker=1, host='127.0.0.1', dashboard_address=None\n"
        "    ) as cluster:\n" + textwrap.indent(recipe, " " * 8)
    )
    return program


def status(folder: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    market = Market(base_ctr=0.15, n_apps=50, observed_win_rate=0.5)
    write_demo_log(folder / "logs", WINDOW, 3000, market=market)
    toml_of(folder)
    return folder


def test_a_killed_rank_ends_the_job_and_a_rerun_publishes_one_model(folder: Path) -> None:
    """Killed in its training: the other fails as a lost rank within moments, nothing is published; again, as the guide
    starts ranks on Dask, and both end well, with the same parts to the byte."""
    runs = folder / "runs"
    machines = places()
    ranks = [started(folder, rank, machines) for rank in range(2)]
    deadline = time.monotonic() + 300.0
    while not str(status(runs / "rank-1").get("stage")).startswith("fit with the others"):
        assert time.monotonic() < deadline, [process.communicate()[0] for process in ranks]
        time.sleep(0.02)
    time.sleep(0.2)
    ranks[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    said = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [1, -signal.SIGKILL], said
    assert time.monotonic() - killed < 60.0
    assert "rank 1 is gone" in said[0]
    assert {key: status(runs)[key] for key in ("state", "exit_code", "error_kind")} == {
        "state": "failed",
        "exit_code": 1,
        "error_kind": "LostRankError",
    }
    assert not (folder / "published").exists()
    assert not (runs / RUN / "model.onnx").exists()

    done = subprocess.run(
        [sys.executable, str(dask_recipe(folder))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (status(runs)["state"], status(runs / "rank-1")["state"]) == ("done", "done")
    published = read_publication(folder / "published")
    assert published is not None
    assert (published.current.generation, published.current.sha256) == (1, status(runs)["artifact"])
    for part in ("win", "ctr"):
        (stage,) = (runs / "stages").glob(f"{part}-*/part.onnx")
        assert stage.read_bytes() == (runs / "rank-1" / RUN / part / "part.onnx").read_bytes()
    assert not (runs / "rank-1" / RUN / "model.onnx").exists()
    n_rows = [json.loads(path.read_text())["rows_used"] for path in runs.glob("**/stages/read-*/data.json")]
    assert sum(n_rows) == 3000
    assert min(n_rows) > 1000


def test_ranks_are_about_the_same_but_for_their_paths_and_threads(folder: Path, tmp_path: Path) -> None:
    """What differs is refused when they meet: test_star."""
    config = load_retrain_config(folder / "job.toml")
    (tmp_path / "job.toml").write_text((folder / "job.toml").read_text())
    elsewhere = load_retrain_config(tmp_path / "job.toml")
    assert elsewhere != config
    assert about(elsewhere, WINDOW, code="1") == about(config, WINDOW, code="1")
    for was, now in (
        ('slope = "global"', 'slope = "boosted"'),
        ('source = "imp.bidfloor"', 'source = "imp.bidfloorcur"'),
        ("[gate]", "[gate]\nrandom_state = 1"),
    ):
        text = (folder / "job.toml").read_text()
        assert was in text
        (tmp_path / "job.toml").write_text(text.replace(was, now))
        assert about(load_retrain_config(tmp_path / "job.toml"), WINDOW, code="1") != about(
            config, WINDOW, code="1"
        )
    assert about(config, WINDOW, code="2") != about(config, WINDOW, code="1")
    assert about(config, Window.parse("2026-11-01"), code="1") != about(config, WINDOW, code="1")


def test_one_option_without_the_other_is_refused() -> None:
    assert ranks_of(None, None, Patience()) is None
    for rank, machines in ((0, None), (None, "a:1,b:1")):
        with pytest.raises(ConfigError, match="--rank and --machines"):
            ranks_of(rank, machines, Patience())


def test_several_machines_do_not_refresh(folder: Path, tmp_path: Path) -> None:
    """Refused before anything appears."""
    ranks = ranks_of(0, "a:1,b:1", Patience())
    with pytest.raises(ConfigError, match="one machine refreshes"):
        retrain(
            load_retrain_config(folder / "job.toml"),
            WINDOW,
            tmp_path / "runs",
            announce=lambda _: nullcontext(),
            refresh=True,
            ranks=ranks,
        )
    assert not (tmp_path / "runs").exists()
