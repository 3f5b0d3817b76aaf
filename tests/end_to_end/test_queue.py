"""A job in a queue of the real Kueue: it waits for quota, is admitted, is preempted by the queue, returns, completes.

The first run on a machine compiles Kueue, which takes minutes.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import Watched, short_sums, until

from ratchet_cli.demo import proof
from ratchet_cluster import operator_chart, pools
from ratchet_cluster.cluster import Cluster

pytestmark = pytest.mark.soak  # Kueue is compiled first, some 7 minutes on two cores

QUEUE = "kueue.x-k8s.io/queue-name"

QUEUES = """
apiVersion: kueue.x-k8s.io/v1beta2
kind: ResourceFlavor
metadata: {name: v6e}
spec: {nodeLabels: {cloud.google.com/gke-tpu-accelerator: tpu-v6e-slice}}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: ClusterQueue
metadata: {name: chips}
spec:
  namespaceSelector: {}
  preemption: {withinClusterQueue: LowerPriority}
  resourceGroups:
  - coveredResources: [google.com/tpu]
    flavors: [{name: v6e, resources: [{name: google.com/tpu, nominalQuota: 8}]}]
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: LocalQueue
metadata: {name: research, namespace: default}
spec: {clusterQueue: chips}
---
apiVersion: kueue.x-k8s.io/v1beta2
kind: WorkloadPriorityClass
metadata: {name: urgent}
value: 1000
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with Kueue, one spot slice of two hosts, and queue `research` with the quota of that slice."""
    one = Cluster(tmp_path_factory.mktemp("queues"))
    try:
        one.up([pools.make("pool-a", "tpu-v6e-slice", "2x4", 4, spot=True)], print, kueue=True, owner=os.getpid())
        one.kubectl("apply", "-f", "-", stdin=QUEUES)
        yield one
    finally:
        one.down(purge=True)


def other_work(name: str, script: str, **labels: str) -> str:
    """A JobSet in the same queue that takes half of the quota."""
    container = {
        "name": "main", "image": "other", "command": ["bash", "-c", script],
        "resources": {"requests": {"google.com/tpu": "4"}, "limits": {"google.com/tpu": "4"}},
    }  # fmt: skip
    toleration = {"operator": "Exists"}
    pod = {"restartPolicy": "Never", "containers": [container], "tolerations": [toleration]}
    replicated = {"name": "work", "replicas": 1, "template": {"spec": {"backoffLimit": 0, "template": {"spec": pod}}}}
    return json.dumps(
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": name, "namespace": "default", "labels": {QUEUE: "research", **labels}},
            "spec": {"replicatedJobs": [replicated]},
        }
    )


@pytest.mark.timeout(3600)  # Kueue is compiled here unless it is there
def test_kueue_runs_beside_the_plane_and_is_started_again(cluster: Cluster) -> None:
    first = cluster.status()["processes"]
    assert "kueue" in first
    os.kill(first["kueue"], signal.SIGKILL)
    until(lambda: cluster.status()["missing"] == ["kueue"], "it is missed")
    cluster.up()
    second = cluster.status()["processes"]
    assert second.pop("kueue") != first.pop("kueue")
    assert second == first


@pytest.mark.timeout(3600)
def test_a_job_that_its_queue_preempts_returns_with_the_weights_of_an_undisturbed_one(
    cluster: Cluster, tmp_path: Path
) -> None:
    operator_chart.install(cluster, "replicaCount=1")
    manifest = short_sums(tmp_path / "sums.yaml", jobSetTemplate={"labels": {QUEUE: "research"}})
    job = Watched(cluster)

    cluster.kubectl("apply", "-f", "-", stdin=other_work("earlier", "sleep 3600"))
    until(lambda: "earlier" in cluster.kubectl("get", "pods"), "other work holds the quota")
    cluster.kubectl("apply", "--filename", str(manifest))
    message = job.placed(1, "WaitingForQuota")
    assert "waits for quota in queue research" in message
    told = message.partition("kubectl ")[2].split()
    until(lambda: "insufficient" in cluster.kubectl(*told), "the command of the message says what is in its way")
    assert job.pods() == []

    cluster.kubectl("delete", "jobset", "earlier")
    job.placed(1, "AllPodsScheduled")
    job.makes_step(1, 30)

    urgent = other_work("urgent", "sleep 3", **{"kueue.x-k8s.io/priority-class": "urgent"})
    cluster.kubectl("apply", "-f", "-", stdin=urgent)
    until(lambda: job.status["attempt"]["number"] == 2, "the queue takes attempt 1 back, attempt 2 queues")
    (record,) = job.status["attempts"]
    assert (record["verdict"], record["chargedTo"], record["notice"]) == ("QueueEvicted", "preemptions", "graceful")
    assert record["endStep"] >= 30
    assert record.get("stepsLost", 0) == 0

    until(lambda: job.status.get("phase") == "Completed", "the job is completed")
    status = job.status
    assert status["attempt"]["number"] == 2
    assert status["attempt"]["admittedTime"] > status["attempt"]["queuedTime"]
    assert status["attempts"][0].get("stepsLost", 0) == 0
    counters = status["counters"]
    assert {name: counters.get(name, 0) for name in ("attempts", "preemptions", "failures", "stepsLost")} == {
        "attempts": 2, "preemptions": 1, "failures": 0, "stepsLost": 0,
    }  # fmt: skip
    assert {"Queued", "Admitted", "QueueEvicted", "Completed"} <= set(job.events())

    checkpoints = cluster.folder / "volumes" / "checkpoints" / "sums"
    twin = proof.undisturbed(manifest, tmp_path / "undisturbed", checkpoints / "cache", print)
    assert proof.weights(checkpoints) == twin["weightsSha256"]
