"""A job's run in MLflow: parameters, data digests, metrics, plots, report, artifact; the registered model's aliases.

By default a sqlite database beside the runs, no server; any tracking URI in production. Offline: MLflow's telemetry is
switched off, nothing looks at git or the network. Nothing is pickled: the model version points at model.onnx, a plain
file. The publication folder decides what bidders load; aliases tell of it.

Idempotent: a job run again finds its run and its model version by their tags. On sqlite every job writes alone, under
a lock beside the database, so that jobs that start together neither create it twice nor find it locked.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bidml.errors import ConfigError
from training.config import MlflowConfig

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
MODEL_FILE: Final = "model.onnx"

_SQLITE: Final = "sqlite:///"
_MOST_PARAMETERS: Final = 100  # of one request, by MLflow's rule
_MOST_METRICS: Final = 1000
_LONGEST_PARAMETER: Final = 6000
_LONGEST_DIGEST: Final = 36
_JOB: Final = "bidml.job"
_SHA256: Final = "bidml.sha256"


class Tracking:
    """Where runs and model versions go. `home`: the folder of the default database and of its runs' files."""

    def __init__(self, config: MlflowConfig, home: str | Path) -> None:
        self._config = config
        home = Path(home).resolve()
        self._uri = config.tracking_uri or f"{_SQLITE}{home / 'mlflow.db'}"
        self._files = None if config.tracking_uri else f"{home.as_uri()}/mlflow-artifacts"

    def log(self, job: str, folder: Path, *, refused: bool = False) -> str:
        """The id of the run of `job` (a digest of what makes it this job), made or completed from a run directory.

        Parameters are its config.json, metrics its metrics.json and gate.json, datasets the digests in data.json; its
        files become artifacts. Raises `ConfigError` without MLflow.
        """
        document = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
        with self._client() as client:
            experiment = self._experiment(client)
            run = self._run_of(client, job)
            if run is None:
                made = client.create_run(experiment, run_name=folder.name, tags={_JOB: job})
                run = str(made.info.run_id)
            gate = document.get("gate", {"checks": [], "promoted": None, "reasons": []})
            checks = {check["name"]: check["value"] for check in gate["checks"]}
            _log_numbers(client, run, document["config"], {**document["metrics"], "gate": checks})
            _log_datasets(client, run, {folder.name: document["data"]["data_sha256"]})
            client.set_tag(run, "bidml.promoted", str(gate["promoted"]))
            client.set_tag(run, "bidml.reasons", "; ".join(gate["reasons"])[:_LONGEST_PARAMETER])
            for path in sorted(folder.iterdir()):
                client.log_artifact(run, str(path))
            client.set_terminated(run, "FAILED" if refused else "FINISHED")
            return run

    def register(self, sha256: str, job: str) -> str:
        """The version of the registered model that is this artifact, which `job` logged; it becomes @challenger."""
        with self._client() as client:
            self._create_model(client)
            version = self._version_of(client, sha256)
            if version is None:
                run = self._run_of(client, job)
                assert run is not None, "a job logs before it registers"
                source = f"{client.get_run(run).info.artifact_uri}/{MODEL_FILE}"
                made = client.create_model_version(
                    self._config.model, source, run_id=run, tags={_SHA256: sha256}
                )
                version = str(made.version)
            client.set_registered_model_alias(self._config.model, CHALLENGER, version)
            return version

    def crown(self, sha256: str) -> str | None:
        """@champion goes to the version that is this artifact, after it was published or rolled back to.

        It is no longer @challenger. None when it was never registered: then no alias changes.
        """
        with self._client() as client:
            version = self._version_of(client, sha256)
            if version is None:
                return None
            client.set_registered_model_alias(self._config.model, CHAMPION, version)
            aliases = client.get_registered_model(self._config.model).aliases
            if str(aliases.get(CHALLENGER)) == version:
                client.delete_registered_model_alias(self._config.model, CHALLENGER)
            return version

    # ---- the client ----

    @contextmanager
    def _client(self) -> Iterator[MlflowClient]:
        mlflow = _import_mlflow()
        with _alone_with(self._uri):
            yield mlflow.MlflowClient(
                tracking_uri=self._uri, registry_uri=self._config.registry_uri or self._uri
            )

    def _experiment(self, client: MlflowClient) -> str:
        name = self._config.experiment
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(client.create_experiment(name, artifact_location=self._files))
            except Exception:
                found = client.get_experiment_by_name(name)  # on a server another job may have been quicker
                if found is None:
                    raise
        return str(found.experiment_id)

    def _run_of(self, client: MlflowClient, job: str) -> str | None:
        found = client.search_runs([self._experiment(client)], f"tags.`{_JOB}` = '{job}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create_model(self, client: MlflowClient) -> None:
        name = self._config.model
        if client.search_registered_models(f"name = '{name}'"):
            return
        try:
            client.create_registered_model(name)
        except Exception:
            if not client.search_registered_models(f"name = '{name}'"):
                raise

    def _version_of(self, client: MlflowClient, sha256: str) -> str | None:
        found = client.search_model_versions(
            f"name = '{self._config.model}' and tags.`{_SHA256}` = '{sha256}'", max_results=1
        )
        return str(found[0].version) if found else None


def _log_numbers(
    client: MlflowClient, run: str, parameters: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Metrics that are no finite number are left out; the same again is the same."""
    from mlflow.entities import Metric, Param

    texts = [Param(key, str(value)[:_LONGEST_PARAMETER]) for key, value in flat(parameters)]
    for first in range(0, len(texts), _MOST_PARAMETERS):
        client.log_batch(run, params=texts[first : first + _MOST_PARAMETERS])
    numbers = [
        Metric(key, float(value), timestamp=0, step=0)
        for key, value in flat(metrics)
        if isinstance(value, int | float) and math.isfinite(value)
    ]
    for first in range(0, len(numbers), _MOST_METRICS):
        client.log_batch(run, metrics=numbers[first : first + _MOST_METRICS])


def _log_datasets(client: MlflowClient, run: str, digests: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            dataset=Dataset(name, digest[:_LONGEST_DIGEST], source_type="sha256", source=digest),
            tags=[InputTag("sha256", digest)],
        )
        for name, digest in digests.items()
    ]
    client.log_inputs(run, inputs)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(a.b.c, value) of nested mappings; keys as MLflow takes them: other characters become _.

    >>> list(flat({"a": {"b": 1, "c d?": 2}}))
    [('a.b', 1), ('a.c d_', 2)]
    """
    for key, value in tree.items():
        name = prefix + "".join(c if c.isalnum() or c in "_-. /" else "_" for c in str(key))
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name[:250], value


def _import_mlflow() -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    try:
        import mlflow
    except ImportError:
        raise ConfigError(
            "a configuration with [mlflow] finds the package mlflow",
            value="not installed",
            remedy='pip install "bidml[train,mlflow]", or remove the section',
        ) from None
    return mlflow


@contextmanager
def _alone_with(uri: str) -> Iterator[None]:
    """On sqlite one process at a time."""
    if not uri.startswith(_SQLITE):
        yield
        return
    database = Path(uri.removeprefix(_SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(f"{database}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
