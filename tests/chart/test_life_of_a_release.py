"""From the first installation to the last: jobs that run notice nothing of upgrade, rollback, uninstall and return."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from checking import check
from rendering import CHART, ROOT

from ratchet_cli.demo.watch import Leader
from ratchet_cluster import operator_chart
from ratchet_cluster.cluster import Cluster

T = TypeVar("T")
BEFORE = "216b352"
"""Commit with the chart before the present one."""
RELEASE, NAMESPACE = operator_chart.RELEASE, operator_chart.NAMESPACE
PLACE = ("--namespace", NAMESPACE)
READY = ("--wait", "--timeout", "180s", "--set", "replicaCount=1")
PATIENCE = 180.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with nodes on which nothing of Ratchet is."""
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield one.up(owner=os.getpid())
    finally:
        one.down(purge=True)


@pytest.fixture(scope="module")
def chart_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it was, out of git."""
    folder = tmp_path_factory.mktemp("before")
    done = subprocess.run(["git", "-C", ROOT, "archive", BEFORE, "helm/ratchet"], capture_output=True)
    if done.returncode:
        pytest.skip(f"commit {BEFORE} is not in this clone: {done.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", folder], input=done.stdout, check=True)
    return folder / "helm/ratchet"


def until(what: Callable[[], T], about: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {about}"
        time.sleep(0.1)
    return found


class Running:
    """A job that trains for as long as it is let."""

    def __init__(self, cluster: Cluster, name: str = "long"):
        self.cluster, self.name, self.leader = cluster, name, Leader(cluster, "default", name)

    def begin(self) -> None:
        manifest = yaml.safe_load((ROOT / "examples/minimal.yaml").read_text())
        manifest["metadata"]["name"] = self.name
        manifest["spec"]["stages"] = manifest["spec"]["stages"][:1]
        manifest["spec"]["stages"][0]["advance"] = {"steps": 100000}
        manifest["spec"]["checkpoint"] |= {"directory": f"/checkpoints/{self.name}", "everySteps": 50}
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(manifest))
        until(lambda: self.step > 3, "the first steps of the job")
        self.pods = self._pods()

    @property
    def step(self) -> int:
        return ((self.leader.progress(1) or {}).get("step")) or 0

    def untouched(self) -> None:
        """Goes on with the same pod, whose next steps are waited for, and counts no loss."""
        before = self.step
        until(lambda: self.step > before, f"a step after {before}")
        assert self._pods() == self.pods
        status = self._get("rltrainingjob", self.name)["status"]
        assert (status["phase"], status["attempt"]["number"]) == ("Running", 1)
        assert status.get("counters", {}).get("stepsLost", 0) == 0

    def steps_written(self) -> list[int]:
        """Steps in the job's records, in their order."""
        records = self.cluster.folder / "volumes/checkpoints" / self.name / "metrics.jsonl"
        return [json.loads(line)["step"] for line in records.read_text().splitlines()]

    def _pods(self) -> list[str]:
        found = self.cluster.kubectl("get", "pods", "-l", f"ratchet.dev/job-name={self.name}", "-o", "json")
        return [pod["metadata"]["uid"] for pod in json.loads(found)["items"]]

    def _get(self, kind: str, name: str) -> dict[str, Any]:
        return json.loads(self.cluster.kubectl("get", kind, name, "-o", "json"))


def leader(cluster: Cluster) -> str:
    """Who holds the Lease; empty when nobody does."""
    path = "jsonpath={.spec.holderIdentity}"
    return cluster.kubectl("get", "lease", "ratchet-operator", *PLACE, "-o", path, check=False).strip()


def test_a_running_job_notices_nothing_of_upgrade_rollback_uninstall_and_return(own, chart_before):
    own.helm("install", RELEASE, str(chart_before), *PLACE, "--create-namespace", *READY)
    job = Running(own)
    job.begin()
    first = leader(own)

    own.helm("upgrade", RELEASE, str(CHART), *PLACE, *READY)
    until(lambda: leader(own) not in ("", first), "the new operator holds the Lease")
    job.untouched()
    said = own.helm("test", RELEASE, *PLACE, "--logs")
    for words in ("RLTrainingJob is served", "JobSet is served", "is held", "1 replica(s) are healthy"):
        assert f"{words}\n" in said
    assert "FAIL" not in said
    assert own.kubectl("get", "pods", *PLACE, "-l", "app.kubernetes.io/component=test", "-o", "name") == ""

    second = leader(own)
    own.helm("rollback", RELEASE, "1", *PLACE, "--wait", "--timeout", "180s")
    until(lambda: leader(own) not in ("", second), "the old operator holds the Lease")
    job.untouched()

    own.helm("uninstall", RELEASE, *PLACE, "--wait")
    job.untouched()
    assert own.kubectl("get", "pods", *PLACE, "-o", "name") == ""

    notes = own.helm("install", RELEASE, str(CHART), *PLACE, *READY)
    assert "kubectl apply -f job.yaml" in notes
    assert "no Prometheus operator" in notes
    assert "no JobSet" not in notes
    until(lambda: leader(own).startswith(RELEASE), "the operator that came back holds the Lease")
    job.untouched()
    written = job.steps_written()
    assert written == list(range(written[0], written[0] + len(written))), "each step once"
    own.kubectl("delete", "rltrainingjob", job.name)


@pytest.mark.soak
def test_without_jobset_notes_and_test_say_what_to_do(own):
    own.helm("upgrade", "--install", RELEASE, str(CHART), *PLACE, "--create-namespace", *READY)
    own.kubectl("delete", "crd", "jobsets.jobset.x-k8s.io")
    until(lambda: "jobsets" not in own.kubectl("api-resources", "-o", "name", check=False), "JobSet is gone")
    notes = own.helm("upgrade", RELEASE, str(CHART), *PLACE, *READY)
    assert "WARNING: this cluster has no JobSet" in notes
    done = check(own, NAMESPACE)
    assert done.returncode == 1
    assert "FAIL JobSet is served: the API server does not know JobSet: install JobSet 0.12 or newer" in done.stdout
    assert "ok   RLTrainingJob is served" in done.stdout


@pytest.mark.soak
def test_an_uninstall_with_everything_takes_definition_and_jobs_along(own):
    own.helm(
        "upgrade", "--install", RELEASE, str(CHART), *PLACE, "--create-namespace", *READY, "--set", "crds.keep=false"
    )
    own.helm("uninstall", RELEASE, *PLACE, "--wait")
    assert "rltrainingjobs" not in own.kubectl("get", "crd", "-o", "name")
