"""A rollout fleet on the local cluster: all machines of it are lost, twice, and no bit of the weights differs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from watched import ROOT, Watched, until

from ratchet_cli.demo import proof
from ratchet_cluster import operator_chart, pools
from ratchet_cluster.cluster import Cluster

pytestmark = pytest.mark.soak  # some three minutes each

SPOT = {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x2", "capacity": "Spot"}
WORKERS = 3
LOSSES: tuple[tuple[tuple[str, ...], bool], ...] = (
    # who is lost, and whether without notice; a number is a worker, t the trainer
    (("0",), False),
    (("1",), True),
    (("2",), False),
    (("t",), True),
    (("0",), True),
    (("t", "1", "2"), False),
    (("1",), False),
    (("2",), True),
)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with a spot slice of one host for each of the fleet, and two to spare."""
    one = Cluster(tmp_path / "cluster")
    machines = [pools.make(f"pool-{i}", "tpu-v6e-slice", "2x2", 4, spot=True) for i in range(WORKERS + 3)]
    try:
        one.up(machines, print, owner=os.getpid(), replace_after=3)
        yield one
    finally:
        one.down(purge=True)


class Fleet(Watched):
    """The job, with its workers."""

    def hosts(self) -> dict[str, str]:
        """Where each runs: t or the number of a worker -> node. Only what runs and is not about to end."""
        listed = self.cluster.kubectl("get", "pods", "-l", f"ratchet.dev/job-name={self.name}", "-o", "json")
        there = {node["name"] for node in self.cluster.nodes() if node["ready"]}
        found = {}
        for pod in json.loads(listed)["items"]:
            name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"] and node in there:
                who = name.removeprefix(f"{self.name}-").partition("-")[0]
                found["t" if who.startswith("a") else who.removeprefix("w")] = node
        return found

    @property
    def step(self) -> int:
        return int((self.status.get("progress") or {}).get("step") or 0)

    def whole(self) -> dict[str, str]:
        """Where all run, once all run and a step was made since."""
        hosts = until(lambda: found if len(found := self.hosts()) == WORKERS + 1 else None, "all run")
        before = self.step
        until(lambda: self.step > before, "a step is made")
        return hosts


def manifest(file: Path, lag: int) -> Path:
    job: dict[str, Any] = yaml.safe_load((ROOT / "examples/fleet.yaml").read_text())
    warm_up, reason = job["spec"]["stages"]
    warm_up["advance"]["steps"] = 30
    reason["rl"]["rollouts"]["lag"] = lag
    reason["advance"] = {"steps": 500}
    job["spec"]["placements"] = job["spec"]["rollouts"]["placements"] = [SPOT]
    job["spec"]["rollouts"]["workers"] = {"min": 1, "max": WORKERS}
    file.write_text(yaml.safe_dump(job))
    return file


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("lag", [0, 1, 2])
def test_workers_and_trainer_are_lost_and_the_weights_are_those_of_a_run_with_one_worker(
    cluster: Cluster, lag: int, tmp_path: Path
) -> None:
    file = manifest(tmp_path / "fleet.yaml", lag)
    operator_chart.install(cluster, "replicaCount=1")
    cluster.kubectl("apply", "--filename", str(file))
    job = Fleet(cluster, "fleet")
    until(lambda: job.step > 30, "the stage that samples has begun")
    for lost, abrupt in LOSSES:
        hosts = job.whole()
        for who in lost:
            cluster.preempt(hosts[who], abrupt=abrupt)
        until(lambda hosts=hosts, lost=lost: all(job.hosts().get(who) != hosts[who] for who in lost), "they are gone")
    assert job.status.get("phase") != "Completed", "the run was too short for all losses"
    until(lambda: job.status.get("phase") == "Completed", "the job is completed", 600)
    status = job.status
    assert (status["counters"]["preemptions"], status["counters"].get("failures", 0)) == (2, 0)
    assert status["rollouts"]["restarts"] >= sum(len(set(lost) - {"t"}) for lost, _ in LOSSES)

    twin = proof.undisturbed(file, tmp_path / "undisturbed", tmp_path / "cache", print)
    assert proof.weights(cluster.folder / "volumes/checkpoints/fleet") == twin["weightsSha256"]
