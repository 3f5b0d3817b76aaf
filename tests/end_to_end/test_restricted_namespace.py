"""Operator and trainers where namespaces enforce the Pod Security Standard `restricted`, on the local cluster.

The node agents run pods as processes of this machine, as the user that started the cluster: what the API server admits
is tested, and that a run needs nothing else; not what another user id may do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import Watched, short_sums, until

from ratchet_cluster import operator_chart, pools
from ratchet_cluster.cluster import Cluster

LABEL = "pod-security.kubernetes.io/enforce=restricted"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with one spot slice of two hosts, all of whose namespaces of ours are restricted."""
    one = Cluster(tmp_path / "cluster")
    try:
        one.up([pools.make("pool-a", "tpu-v6e-slice", "2x4", 4, spot=True)], print, owner=os.getpid(), replace_after=3)
        one.kubectl("create", "namespace", operator_chart.NAMESPACE)
        one.kubectl("label", "namespace", "default", operator_chart.NAMESPACE, LABEL)
        yield one
    finally:
        one.down(purge=True)


@pytest.mark.timeout(900)
def test_a_job_runs_to_its_end_where_only_restricted_pods_are_admitted(cluster: Cluster, tmp_path: Path) -> None:
    manifest = short_sums(tmp_path / "sums.yaml")
    operator_chart.install(cluster, "replicaCount=1")
    cluster.kubectl("apply", "--filename", str(manifest))
    job = Watched(cluster)
    until(job.pods, "there are pods")
    pods = json.loads(cluster.kubectl("get", "pods", "-l", f"ratchet.dev/job-name={job.name}", "-o", "json"))["items"]
    assert {pod["spec"]["securityContext"]["runAsUser"] for pod in pods} == {10001}
    until(lambda: job.status.get("phase") == "Completed", "the job is completed", 600)
    assert job.status["counters"]["attempts"] == 1
    kept = sorted((cluster.folder / "volumes/checkpoints/sums/logs").rglob("*.log"))
    assert [file.name for file in kept] == ["process-0.log", "process-1.log"]
    assert all("leaving with 0 (Done)" in file.read_text() for file in kept)
