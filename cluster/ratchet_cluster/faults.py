"""What can happen to a node pool: preemption with and without notice, announced maintenance.

Decides the order of the signs, after GKE's spot machines: the Node says that it shuts down and carries the taint, the
pods get SIGTERM and what is left of 15 s, each pod's status (Failed, Terminated, DisruptionTarget) is published once
its containers have ended, then the machines fall silent, their Nodes are deleted, and after a delay machines of the
same names but new uids join. Without notice there is only SIGKILL and silence, until the node controller misses the
lease. A multi-host pool goes as one, because it is one slice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from ratchet_cluster.api import insist
from ratchet_cluster.node import DEAD, UP, Node
from ratchet_cluster.pod import Pod

NOTICE = 15.0  # of 30 s the last 15 belong to critical pods
UNTIL_DELETED = 1.0  # between the last pod's end and the deletion of the Node
UNTIL_REPLACED = 10.0  # until the pool has machines again; minutes in a cloud
MESSAGE = "Pod was terminated in response to imminent node shutdown."
SHUTDOWN = {"phase": "Failed", "reason": "Terminated", "message": MESSAGE}
MAINTENANCE = "cloud.google.com/scheduled-maintenance-time"


@dataclass(frozen=True)
class Site:
    """What a fault needs of the agents: the pods on a node, how a pod is forgotten and how a machine joins."""

    pods_on: Callable[[Node], list[Pod]]
    forget: Callable[[Pod], Awaitable[None]]
    join: Callable[[Node], Awaitable[None]]
    replace_after: float = UNTIL_REPLACED


async def graceful(site: Site, nodes: Iterable[Node]) -> None:
    """Preemption with notice, up to and including the replacement."""
    nodes = list(nodes)
    pods = [pod for node in nodes for pod in site.pods_on(node)]
    for pod in pods:
        own = float(pod.object["spec"].get("terminationGracePeriodSeconds", 30))
        pod.terminate(min(own, NOTICE), override=SHUTDOWN, disruption=("TerminationByKubelet", MESSAGE))
    await asyncio.gather(*(insist(node.shut_down) for node in nodes))
    await asyncio.gather(*(pod.finished.wait() for pod in pods))
    await asyncio.sleep(UNTIL_DELETED)
    for node in nodes:
        node.die()
    for pod in pods:
        await site.forget(pod)
    await asyncio.gather(*(insist(node.remove) for node in nodes))
    await _replace(site, nodes)


async def abrupt(site: Site, nodes: Iterable[Node]) -> None:
    """Loss without notice, up to and including the replacement."""
    nodes = list(nodes)
    pods = [pod for node in nodes for pod in site.pods_on(node)]
    for node in nodes:
        node.die()
    for pod in pods:
        pod.abandon()
    for pod in pods:
        await site.forget(pod)
    while any(await asyncio.gather(*(insist(node.is_ready) for node in nodes))):
        await asyncio.sleep(0.2)
    await asyncio.gather(*(insist(node.remove) for node in nodes))
    await _replace(site, nodes)


async def announce(nodes: Iterable[Node], seconds: float) -> None:
    """Maintenance in `seconds`, as GKE announces it: a label with the time on every node of the pool."""
    when = str(int(time.time() + seconds))
    await asyncio.gather(*(node.label(MAINTENANCE, when) for node in nodes))


async def _replace(site: Site, nodes: list[Node]) -> None:
    await asyncio.sleep(site.replace_after)
    await asyncio.gather(*(site.join(node) for node in nodes if node.state == DEAD))


def strikable(nodes: Iterable[Node]) -> bool:
    """Whether the pool is whole: one that is going already cannot be preempted again."""
    return all(node.state == UP for node in nodes)
