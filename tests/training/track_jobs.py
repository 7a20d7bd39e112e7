"""Jobs that tell MLflow of their run directories at the same moment, network cut: `track_jobs.py HOME [--no-lock]`.

The processes are forks of one that has imported mlflow and done nothing with it. Prints how each ended, and what
MLflow holds then.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import socket
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from training import tracking
from training.config import MlflowConfig


def no_network(*arguments: Any) -> None:
    raise AssertionError(f"a job connects to nothing; found {arguments[1:]}")


socket.socket.connect = no_network  # type: ignore[method-assign, assignment]
socket.getaddrinfo = no_network  # type: ignore[assignment]


def tell(home: Path, folder: Path, name: str) -> dict[str, Any]:
    """Logs, registers, crowns: twice, as a job that is run again."""
    told = tracking.Tracking(MlflowConfig(), home)
    sha256 = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    found = [
        (told.log(name, folder), told.register(sha256, name), told.crown(sha256), told.crown("0" * 64))
        for _ in range(2)
    ]
    assert found[0] == found[1]
    return {"run": found[0][0], "version": found[0][1], "crowned": found[0][2]}


def look(home: Path) -> dict[str, Any]:
    import mlflow

    uri = f"sqlite:///{home / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    (experiment,) = (e for e in client.search_experiments() if e.name == "bidml")
    return {
        "runs": [
            {
                "id": run.info.run_id,
                "status": run.info.status,
                "params": run.data.params,
                "metrics": run.data.metrics,
                "digests": [i.dataset.source for i in run.inputs.dataset_inputs],
                "files": sorted(f.path for f in client.list_artifacts(run.info.run_id)),
            }
            for run in client.search_runs([experiment.experiment_id])
        ],
        "versions": {v.version: v.source for v in client.search_model_versions("name = 'bidml'")},
        "aliases": client.get_registered_model("bidml").aliases,
    }


def job(home: Path, folder: Path, go: Any, ends: Any) -> None:
    go.wait()
    ends.put(tell(home, folder, f"job {folder.name}"))


def main() -> None:
    home = Path(sys.argv[1])
    if "--no-lock" in sys.argv:
        tracking._alone_with = lambda uri: nullcontext()  # type: ignore[assignment, misc]
    tracking._import_mlflow()
    folders = sorted(path.parent for path in home.glob("*/model.onnx"))
    processes = multiprocessing.get_context("fork")
    go, ends = processes.Barrier(len(folders)), processes.SimpleQueue()
    jobs = [processes.Process(target=job, args=(home, folder, go, ends)) for folder in folders]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    codes = [each.exitcode for each in jobs]
    told = [ends.get() for code in codes if code == 0]
    print(json.dumps({"codes": codes, "told": told, "held": look(home) if not any(codes) else None}))


if __name__ == "__main__":
    main()
