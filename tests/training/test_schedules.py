"""The schedules run: units that systemd accepts, a CronJob of Kubernetes' own fields, a DAG that compiles."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bidml.errors import ConfigError
from training import retrain
from training.window import Window

ROOT = Path(__file__).resolve().parents[2]
SCHEDULES = ROOT / "training" / "schedules"

# Of the batch/v1 and v1 schemas, what a CronJob may hold here; a set: the fields; a list: of such.
_CONTAINER: Final = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "env": [{"name": str, "value": str, "valueFrom": {"fieldRef": {"fieldPath": str}}}],
    "ports": [{"containerPort": int}],
    "resources": {"requests": {"cpu": str, "memory": str}, "limits": {"cpu": str, "memory": str}},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}
_POD: Final = {
    "subdomain": str,
    "restartPolicy": {"Never", "OnFailure"},
    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "fsGroup": int},
    "containers": [_CONTAINER],
    "volumes": [
        {
            "name": str,
            "configMap": {"name": str},
            "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
        }
    ],
}
_RULE: Final = {
    "action": {"FailJob", "Ignore", "Count"},
    "onExitCodes": {"containerName": str, "operator": {"In", "NotIn"}, "values": [int]},
    "onPodConditions": [{"type": str, "status": str}],
}
CRON_JOB: Final = {
    "apiVersion": {"batch/v1"},
    "kind": {"CronJob"},
    "metadata": {"name": str},
    "spec": {
        "schedule": str,
        "timeZone": str,
        "concurrencyPolicy": {"Forbid", "Allow", "Replace"},
        "startingDeadlineSeconds": int,
        "successfulJobsHistoryLimit": int,
        "failedJobsHistoryLimit": int,
        "jobTemplate": {
            "spec": {
                "completionMode": {"Indexed"},
                "completions": int,
                "parallelism": int,
                "backoffLimit": int,
                "activeDeadlineSeconds": int,
                "podFailurePolicy": {"rules": [_RULE]},
                "template": {"metadata": {"labels": {"app": str}}, "spec": _POD},
            }
        },
    },
}


def demand(document: Any, schema: Any, at: str = "$") -> None:
    """Raises `AssertionError` where a document has another field or type than its schema."""
    if isinstance(schema, dict):
        assert isinstance(document, dict), at
        assert set(document) <= set(schema), f"{at}: {set(document) - set(schema)}"
        for name, value in document.items():
            demand(value, schema[name], f"{at}.{name}")
    elif isinstance(schema, list):
        assert isinstance(document, list), at
        for i, value in enumerate(document):
            demand(value, schema[0], f"{at}[{i}]")
    elif isinstance(schema, set):
        assert document in schema, f"{at}: {document!r}"
    else:
        assert type(document) is schema, f"{at}: {document!r}"


def cron_job() -> Any:
    (document,) = yaml.safe_load_all((SCHEDULES / "kubernetes-cronjob.yaml").read_text())
    return document


def demand_command(command: list[str]) -> None:
    """A command line of `training.retrain` with options that it has."""
    assert command[:3] == [command[0], "-m", "training.retrain"]
    options = {f"--{name.replace('_', '-')}" for name in inspect.signature(retrain.main).parameters}
    given = dict(pair.split("=", 1) for pair in re.sub(r" (?!--)", "=", " ".join(command[3:])).split(" "))
    assert set(given) <= options
    assert {"--config", "--window", "--out"} <= set(given)
    Window.parse(given["--window"])


def test_the_cron_job_has_the_fields_of_kubernetes() -> None:
    """And runs a command that exists, alone, with exit codes that mean what they mean."""
    job = cron_job()
    demand(job, CRON_JOB)
    spec = job["spec"]
    assert re.fullmatch(r"[\d*/, -]+", spec["schedule"])
    assert len(spec["schedule"].split()) == 5
    assert spec["concurrencyPolicy"] == "Forbid"
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    demand_command(container["command"] + container["args"])
    rules = spec["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [2, 3, 4],
    }
    assert pod["restartPolicy"] == "Never"  # what a pod failure policy demands
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@pytest.mark.parametrize(
    "change",
    [
        lambda job: job["spec"].update(concurencyPolicy="Forbid"),
        lambda job: job["spec"].update(startingDeadlineSeconds="3600"),
        lambda job: job["spec"]["jobTemplate"]["spec"]["template"]["spec"].update(restartPolicy="Always"),
    ],
)
def test_a_broken_cron_job_would_be_found(change: Any) -> None:
    """A misspelt field, a number as text, a policy that pods of jobs cannot have."""
    job = cron_job()
    change(job)
    with pytest.raises(AssertionError):
        demand(job, CRON_JOB)


def verified(folder: Path) -> subprocess.CompletedProcess[str]:
    """By systemd, on units whose programs exist here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    units = sorted(path.name for path in folder.iterdir())
    return subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        cwd=folder,
        env={"SYSTEMD_UNIT_PATH": f"{folder}:", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    for path in [*SCHEDULES.glob("*.service"), *SCHEDULES.glob("*.timer")]:
        text = re.sub(r"(?m)^(ExecStart=)\S+", r"\1/bin/true", path.read_text())
        (tmp_path / path.name.replace("@.", "@x.")).write_text(text)
    return tmp_path


def test_the_units_are_valid(units: Path) -> None:
    """systemd says nothing of them; the service runs a command that exists; the timer belongs to it."""
    (line,) = re.findall(r"(?m)^ExecStart=(.*)$", (SCHEDULES / "bidml-retrain.service").read_text())
    demand_command(shlex.split(line))
    found = verified(units)
    ours = [text for text in found.stderr.splitlines() if "bidml" in text]
    assert ours == [], found.stderr


def test_a_broken_unit_would_be_found(units: Path) -> None:
    """A misspelt key, and a calendar that is none."""
    timer = units / "bidml-retrain.timer"
    timer.write_text(timer.read_text().replace("OnCalendar=*-*-* 03:30", "OnCalendar=every 03:77"))
    service = units / "bidml-retrain.service"
    service.write_text(service.read_text().replace("RestartSec=", "RestartSecs="))
    found = verified(units).stderr
    assert "RestartSecs" in found
    assert "03:77" in found


def test_the_documented_dag_compiles_and_calls_the_job() -> None:
    """docs/retraining.md, the block that imports airflow."""
    blocks = re.findall(r"```py\n(.*?)```", (ROOT / "docs" / "retraining.md").read_text(), re.DOTALL)
    (dag,) = [block for block in blocks if "airflow" in block]
    compile(dag, "dag.py", "exec")
    (command,) = re.findall(r'bash_command="(.*?)"', dag)
    demand_command(
        shlex.split(command.replace("{{ macros.ds_add(ds, -6) }}/{{ ds }}", "2026-11-01/2026-11-07"))
    )


def test_the_last_days_are_those_before_today() -> None:
    """In UTC; today is not over."""
    now = datetime(2026, 11, 8, 12, tzinfo=UTC)
    assert Window.parse("last-7-days", now=now) == Window.parse("2026-11-01/2026-11-07")
    assert Window.parse("last-1-days", now=now) == Window.parse("2026-11-07")
    for wrong in ("last-0-days", "last-7", "last-400-days"):
        with pytest.raises(ConfigError, match="window"):
            Window.parse(wrong, now=now)
