"""The job of several machines on Kubernetes: as many places as pods, where the pods and their ports are."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.training.test_schedules import CRON_JOB, SCHEDULES, demand, demand_command
from training.ranks.meeting import machines_of, meeting_place

SERVICE = {
    "apiVersion": {"v1"},
    "kind": {"Service"},
    "metadata": {"name": str},
    "spec": {
        "clusterIP": {"None"},
        "publishNotReadyAddresses": bool,
        "selector": {"app": str},
        "ports": [{"name": str, "port": int}],
    },
}


def documents() -> tuple[Any, Any]:
    service, job = yaml.safe_load_all((SCHEDULES / "kubernetes-ranks.yaml").read_text())
    return service, job


def demand_that_ranks_meet(service: Any, job: Any) -> None:
    """Raises `AssertionError` where a pod would not be found, or another than its rank."""
    spec = job["spec"]["jobTemplate"]["spec"]
    template = spec["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert spec["backoffLimit"] % spec["completions"] == 0
    assert template["metadata"]["labels"]["app"] == service["spec"]["selector"]["app"]
    assert pod["subdomain"] == service["metadata"]["name"]
    (job_name,) = [
        env["valueFrom"]["fieldRef"]["fieldPath"] for env in container["env"] if env["name"] == "JOB"
    ]
    assert job_name == "metadata.labels['batch.kubernetes.io/job-name']"
    options = dict(arg.removeprefix("--").split("=", 1) for arg in container["args"])
    assert options["rank"] == "$(JOB_COMPLETION_INDEX)"
    machines = machines_of(options["machines"])
    assert [machine.host for machine in machines] == [
        f"$(JOB)-{rank}.{pod['subdomain']}" for rank in range(spec["completions"])
    ]
    ports = {*(machine.port for machine in machines), meeting_place(machines).port}
    assert ports == {port["port"] for port in service["spec"]["ports"]}
    assert ports == {port["containerPort"] for port in container["ports"]}


def test_the_ranks_of_the_indexed_job_find_each_other() -> None:
    """And run a command that exists, with the fields and the exit codes of the other schedule."""
    service, job = documents()
    demand(service, SERVICE)
    demand(job, CRON_JOB)
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    demand_command(container["command"] + container["args"])
    rules = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rules[0]["onExitCodes"]["values"] == [2, 3, 4]
    demand_that_ranks_meet(service, job)


@pytest.mark.parametrize(
    "change",
    [
        lambda service, job: job["spec"]["jobTemplate"]["spec"].update(completions=8),
        lambda service, job: job["spec"]["jobTemplate"]["spec"].update(parallelism=2),
        lambda service, job: job["spec"]["jobTemplate"]["spec"]["template"]["spec"].update(subdomain="other"),
        lambda service, job: service["spec"]["ports"].pop(),
    ],
)
def test_a_broken_indexed_job_would_be_found(change: Any) -> None:
    """More pods than places, pods that come later, a service of another name, a port that is closed."""
    service, job = documents()
    change(service, job)
    with pytest.raises(AssertionError):
        demand_that_ranks_meet(service, job)
