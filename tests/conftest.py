"""Real parts that many tests share: one control plane for the whole run, and the same with node agents."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from ratchet_cluster.cluster import Cluster

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running control plane (API server, controllers, scheduler, JobSet), without nodes unless `cluster` is used too.

    `plane.kubeconfig` is a path, `plane.env()` what a child process needs, `plane.kubectl(...)` and `plane.helm(...)`
    return text. All tests share it: work in a namespace of your own (fixture `namespace`).
    """
    one = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield one.up(nodes=False, replace_after=3, owner=os.getpid())
    finally:
        one.down(purge=True)


@pytest.fixture(scope="session")
def cluster(plane: Cluster) -> Cluster:
    """`plane` with node agents: spot pools `pool-a` and `pool-b` of two TPU hosts each, and the system node."""
    return plane.up()


@pytest.fixture
def namespace(plane: Cluster) -> Iterator[str]:
    """A fresh namespace, deleted afterwards."""
    name = f"test-{next(_numbers)}"
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")
