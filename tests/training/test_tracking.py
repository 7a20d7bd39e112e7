"""MLflow: jobs that start together share a database that none of them has made, offline, and pickle nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bidml.errors import ConfigError
from training import tracking
from training.config import MlflowConfig
from training.tracking import Tracking, flat

ROOT = Path(__file__).resolve().parents[2]
N_JOBS = 4


def run_directory(home: Path, number: int) -> Path:
    folder = home / f"2026-11-0{number}"
    folder.mkdir()
    documents: dict[str, Any] = {
        "config": {"train": {"ctr": {"n_trees": 100 + number}, "features": "x" * 10_000}},
        "metrics": {"ctr": {"model": {"log_loss": 0.25, "auc": float("nan"), "kind": "no number"}}},
        "gate": {
            "promoted": True,
            "reasons": [],
            "checks": [{"name": "surplus, relative to the champion's", "value": 0.5}],
        },
        "data": {"data_sha256": f"{number:064x}"},
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    (folder / "model.onnx").write_bytes(b"not a pickle %d" % number)
    (folder / "report.html").write_text("<p>")
    (folder / "reliability_of_pctr.svg").write_text("<svg/>")
    return folder


def together(home: Path, *options: str) -> dict[str, Any]:
    """How jobs ended that met a missing database at the same moment."""
    for number in range(1, N_JOBS + 1):
        run_directory(home, number)
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/training/track_jobs.py"), str(home), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "false", "CI": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return {**document, "stderr": done.stderr}


def test_jobs_that_start_together_share_a_new_database(tmp_path: Path) -> None:
    """Each has one run and one version, however often it tells; one is champion; nothing connects anywhere."""
    ends = together(tmp_path)
    assert ends["codes"] == [0] * N_JOBS, ends["stderr"]
    told, found = ends["told"], ends["held"]
    assert {run["id"] for run in found["runs"]} == {each["run"] for each in told}
    assert len(found["runs"]) == len(found["versions"]) == N_JOBS
    assert sorted(each["version"] for each in told) == sorted(map(str, found["versions"]))
    assert list(found["aliases"]) == ["champion"]
    for run in found["runs"]:
        assert run["status"] == "FINISHED"
        assert run["params"]["train.ctr.n_trees"] in {"101", "102", "103", "104"}
        assert run["metrics"] == {
            "ctr.model.log_loss": 0.25,
            "gate.surplus_ relative to the champion_s": 0.5,
        }
        assert [len(digest) for digest in run["digests"]] == [64]
        assert {"model.onnx", "report.html", "reliability_of_pctr.svg", "gate.json"} <= set(run["files"])
    for source in found["versions"].values():
        assert Path(source.removeprefix("file://")).read_bytes().startswith(b"not a pickle")
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not {name for name in names if name == "MLmodel" or name.endswith((".pkl", ".pickle"))}


@pytest.mark.skipif(not os.environ.get("BIDML_LONG_TESTS"), reason="its broken twin: set BIDML_LONG_TESTS=1")
def test_without_the_lock_they_would_not(tmp_path: Path) -> None:
    """The check above is not blind."""
    assert any(together(tmp_path, "--no-lock")["codes"])


def test_without_mlflow_the_section_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the remedy."""
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"bidml\[train,mlflow\]"):
        Tracking(MlflowConfig(), tmp_path).crown("0" * 64)


def test_other_uris_get_no_lock_and_no_folder(tmp_path: Path) -> None:
    """A server excludes its clients itself."""
    assert Tracking(MlflowConfig(tracking_uri="http://tracking:5000"), tmp_path)._files is None
    with tracking._alone_with("http://tracking:5000"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nested_names_become_one() -> None:
    """As MLflow takes them."""
    assert dict(flat({"a": {"b": {"c%": 1}}, "d": [2]})) == {"a.b.c_": 1, "d": [2]}
