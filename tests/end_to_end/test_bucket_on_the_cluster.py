"""A job on the local cluster whose checkpoints are in a bucket; its nodes go twice, with notice and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched import Watched, short_sums, until

from ratchet_cli.demo import proof
from ratchet_cluster import operator_chart, pools
from ratchet_cluster.cluster import Cluster
from ratchet_cluster.object_stores import ObjectStore

pytestmark = pytest.mark.soak  # some three minutes each


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with one spot slice of two hosts."""
    one = Cluster(tmp_path / "cluster")
    try:
        one.up([pools.make("pool-a", "tpu-v6e-slice", "2x4", 4, spot=True)], print, owner=os.getpid(), replace_after=3)
        yield one
    finally:
        one.down(purge=True)


@pytest.fixture(params=["gs", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ObjectStore, str]]:
    store = ObjectStore.begin(request.param, tmp_path / request.param)
    store.make_bucket("checkpoints")
    yield store, f"{request.param}://checkpoints/sums"
    store.stop()


@pytest.mark.timeout(1800)
def test_a_job_that_is_preempted_twice_comes_to_the_weights_of_an_undisturbed_one_on_a_path(
    cluster: Cluster, bucket: tuple[ObjectStore, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, url = bucket
    env = [{"name": name, "value": value} for name, value in store.env().items()]
    manifest = short_sums(
        tmp_path / "sums.yaml", checkpoint={"directory": url, "everySteps": 10}, podTemplate={"env": env}
    )
    operator_chart.install(cluster, "replicaCount=1")
    cluster.kubectl("apply", "--filename", str(manifest))
    job = Watched(cluster)
    for attempt, (step, abrupt) in enumerate([(10, False), (40, True)], 1):
        job.makes_step(attempt, step)
        cluster.preempt(next(node["name"] for node in cluster.nodes() if node["pods"] and node["pool"]), abrupt=abrupt)
    until(lambda: job.status.get("phase") == "Completed", "the job is completed")
    status = job.status
    assert [record["notice"] for record in status["attempts"][:2]] == ["graceful", "abrupt"]
    assert status["counters"]["preemptions"] == 2
    assert status["attempts"][0].get("stepsLost", 0) == 0
    assert not (cluster.folder / "volumes" / "checkpoints" / "sums").exists(), "nothing is on a path"

    for name, value in store.env().items():
        monkeypatch.setenv(name, value)
    twin = proof.undisturbed(manifest, tmp_path / "undisturbed", tmp_path / "cache", print)
    assert proof.weights(url) == twin["weightsSha256"]
