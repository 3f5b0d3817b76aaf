"""Leadership on a real API server: one holder, a fence that grows, nothing written without certainty."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from faultproxy import cut, done_but_cut
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import load_kube_config

from ratchet_operator.clock import Clock
from ratchet_operator.kube import Fenced, Kube
from ratchet_operator.lease import NAME, Lease, Terms

SHORT = Terms(duration=1.0, deadline=0.7, retry=0.1)


def silent() -> None:
    pass


class Replica:
    """A holder of the Lease without an operator around it."""

    def __init__(self, world, configuration, identity):
        clock = Clock()
        self.kube = Kube(configuration, clock, identity)
        self.lease = Lease(self.kube, clock, world.namespace, identity, SHORT)
        self.kube.may_write = self.lease.may_write

    async def acquire(self):
        async with asyncio.timeout(20):
            await self.lease.acquire(silent)


@pytest_asyncio.fixture
async def replicas(world):
    configuration = Configuration()
    await load_kube_config(config_file=str(world.kubeconfig), client_configuration=configuration)
    made = []

    def make(identity):
        made.append(Replica(world, configuration, identity))
        return made[-1]

    yield make
    for replica in made:
        await replica.kube.close()


async def lease_of(world):
    return (await world.api.get(f"/apis/coordination.k8s.io/v1/namespaces/{world.namespace}/leases/{NAME}"))["spec"]


async def test_the_fence_grows_with_every_take_over(world, replicas):
    a, b = replicas("a"), replicas("b")
    await a.acquire()
    assert (a.lease.fence, (await lease_of(world))["leaseTransitions"]) == (1, 1)
    await b.acquire()  # a does not renew
    assert b.lease.fence == 2
    assert (await lease_of(world))["holderIdentity"] == "b"


async def test_a_released_lease_is_taken_at_once_and_the_loser_may_not_write(world, replicas):
    a, b = replicas("a"), replicas("b")
    await a.acquire()
    await a.lease.release()
    assert (await lease_of(world))["holderIdentity"] == ""
    with pytest.raises(Fenced):
        a.lease.may_write()
    await b.acquire()
    assert b.lease.fence == 2


async def test_a_restarted_worker_of_the_same_parent_waits_for_nobody(world, replicas):
    a, again = replicas("a"), replicas("a")
    await a.acquire()
    assert await again.lease._try_acquire()
    assert again.lease.fence == 2, "a new incarnation has a new fence"
    assert "a" in await asyncio.wait_for(a.lease.keep(), 20), "the old one sees it and stops"


async def test_a_standby_waits_while_the_holder_renews(world, replicas):
    a, b = replicas("a"), replicas("b")
    await a.acquire()
    keeping = asyncio.create_task(a.lease.keep())
    waiting = asyncio.create_task(b.acquire())
    renewals = set()
    async with asyncio.timeout(30):
        while len(renewals) < 2 * SHORT.duration / SHORT.retry:  # for twice as long as a silent holder would be spared
            renewals.add((await lease_of(world))["renewTime"])
            await asyncio.sleep(0.02)
    assert not waiting.done()
    assert not keeping.done()
    keeping.cancel()
    await waiting


async def test_without_the_server_the_holder_stops_before_another_could_start(world, replicas):
    a = replicas("a")
    await a.acquire()
    world.proxy.fault("PUT", "/leases/", cut, times=10**6)
    assert "not renewed in time" in await asyncio.wait_for(a.lease.keep(), 20)
    with pytest.raises(Fenced):
        await a.kube.create(
            {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x", "namespace": world.namespace}}
        )
    assert not [write for write in world.proxy.writes if "configmaps" in write[1]]


async def test_a_lost_answer_to_a_renewal_does_not_lose_the_lease(world, replicas):
    a = replicas("a")
    await a.acquire()
    lost = world.proxy.fault("PUT", "/leases/", done_but_cut())
    keeping = asyncio.create_task(a.lease.keep())
    await asyncio.wait_for(lost.hit.wait(), 10)
    renewed = (await lease_of(world))["renewTime"]
    async with asyncio.timeout(10):
        while (await lease_of(world))["renewTime"] == renewed:
            await asyncio.sleep(0.02)
    assert not keeping.done()
    assert a.lease.may_write() > 0
    keeping.cancel()


async def test_a_deleted_lease_stops_its_holder(world, replicas):
    a = replicas("a")
    await a.acquire()
    await world.api.delete(f"/apis/coordination.k8s.io/v1/namespaces/{world.namespace}/leases/{NAME}")
    assert "deleted" in await asyncio.wait_for(a.lease.keep(), 20)
