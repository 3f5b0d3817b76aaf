"""Replicas, restarts and ends: one works, the other takes over, a fenced one writes nothing."""

from __future__ import annotations

import os
import signal

from faultproxy import cut
from running_operator import until
from scripted_trainer import Pace

SHORT = {"RATCHET_LEASE_SECONDS": "3"}


async def lease(world):
    path = f"/apis/coordination.k8s.io/v1/namespaces/{world.namespace}/leases/ratchet-operator"
    return (await world.api.get(path))["spec"]


async def test_the_standby_takes_over_from_a_dead_replica(world):
    first = await (await world.operator("first", **SHORT)).leads()
    second = await world.operator("second", **SHORT)
    await until("the standby is healthy", lambda: second.get("/healthz")[0] == 200)
    assert second.metric("ratchet_leader ") == 0
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    await first.stop(signal.SIGKILL)
    await second.leads()
    assert (await lease(world))["leaseTransitions"] == 2
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert status["attempt"]["number"] == 1, "the running attempt went on"
    assert status["attempt"]["fence"] == 1


async def test_a_frozen_replica_that_thaws_writes_nothing(world):
    first = await (await world.operator("first", **SHORT)).leads()
    second = await world.operator("second", **SHORT)
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    frozen = first.worker
    os.kill(frozen, signal.SIGSTOP)
    await second.leads()
    world.kubelet.pace["sums"].stop_at = None
    await world.completed()
    written = writes_of(world, first)
    os.kill(frozen, signal.SIGCONT)
    await until("the thawed worker ends", lambda: first.worker != frozen)
    assert writes_of(world, first) == written
    assert second.metric("ratchet_leader ") == 1


async def test_clocks_that_differ_by_ten_minutes_do_not_move_the_lease(world):
    """One replica sees the time five minutes early, the other five minutes late."""
    world.excused = {"I6": "the second replica's times are ten minutes before those of the first"}
    world.proxy.skew = lambda actor: 300.0 if "/first_" in actor else -300.0
    first = await (await world.operator("first", **SHORT)).leads()
    second = await world.operator("second", **SHORT)
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    looked = 0

    async def count(request):
        nonlocal looked
        looked += 1

    world.proxy.fault("GET", "/leases/ratchet-operator$", count, times=10**6)
    await until("the standby has looked for longer than the Lease lasts", lambda: looked > 12)
    assert (first.metric("ratchet_leader "), second.metric("ratchet_leader ")) == (1, 0)
    await first.stop(signal.SIGKILL)
    await second.leads()
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert (status["attempt"]["number"], status["counters"].get("failures", 0)) == (1, 0)


async def test_sigterm_gives_the_lease_up(world):
    operator = await (await world.operator()).leads()
    assert await operator.stop(signal.SIGTERM) == 0
    assert (await lease(world))["holderIdentity"] == ""


async def test_sigterm_ends_a_standby(world):
    await (await world.operator("first")).leads()
    second = await world.operator("second")
    await until("the standby is healthy", lambda: second.get("/healthz")[0] == 200)
    assert await second.stop(signal.SIGTERM) == 0


async def test_a_killed_worker_is_back_and_works_on(world):
    operator = await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    killed = operator.worker
    os.kill(killed, signal.SIGKILL)
    await until("another worker", lambda: operator.worker not in (None, killed))
    await operator.leads()
    world.kubelet.pace["sums"].stop_at = None
    await world.completed()
    assert (await lease(world))["leaseTransitions"] == 2, "its own Lease, taken at once under a new fence"


async def test_the_worker_does_not_outlive_its_parent(world):
    operator = await (await world.operator()).leads()
    worker = operator.worker
    os.kill(operator.pid, signal.SIGKILL)
    await until("the worker is gone", lambda: not alive(worker))


async def test_health_holds_while_the_api_server_is_away(world):
    operator = await (await world.operator("first", **SHORT)).leads()
    standby = await world.operator("second", **SHORT)
    await until("the standby is healthy", lambda: standby.get("/healthz")[0] == 200)
    away = world.proxy.fault("GET|POST|PUT|PATCH|DELETE", "", cut, times=10**6)
    await until("requests fail", lambda: away.hits > 20)
    await until("the holder gives up for want of a renewal", lambda: "not renewed in time" in operator.log)
    assert standby.get("/healthz")[0] == 200
    away.times = 0
    replicas = (operator, standby)
    await until("one of them leads", lambda: sum(it.metric("ratchet_leader ") for it in replicas) == 1)


async def test_wrong_configuration_ends_it_at_once(world):
    operator = await world.operator(RATCHET_METRICS_PORT="eighty")
    assert await operator.process.wait() == 78
    assert "RATCHET_METRICS_PORT" in operator.log


async def test_a_cluster_without_credentials_is_named(world, tmp_path):
    operator = await world.operator(KUBECONFIG=str(tmp_path / "nowhere"))
    assert await operator.process.wait() == 78
    assert "KUBECONFIG" in operator.log


def writes_of(world, operator):
    return [write for write in world.proxy.writes if f"/{operator.name}_" in write[3]]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
