"""Node pools: which machines the cluster pretends to have, and the Node object each of them registers.

Decides names, labels, taints and capacity, after GKE's TPU nodes; a multi-host pool is one slice and lives and dies
as one. What the nodes do: `node.py`. Which shapes exist: `ratchet_api.tpu_topologies`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from ratchet_api.tpu_topologies import ImpossibleShape, machine_type, shape
from ratchet_cluster.objects import Object

SYSTEM = "system"
REGION = "us-central2"


class PoolError(ValueError):
    """A pool that cannot be; the message says which one and what would be right."""


@dataclass(frozen=True)
class Pool:
    """One pool: one TPU slice (`accelerator`, `topology`, `chips_per_node`), or `hosts` machines without chips."""

    name: str
    accelerator: str | None = None
    topology: str | None = None
    chips_per_node: int | None = None
    hosts: int = 1
    spot: bool = False
    taint_spot: bool = False  # hand-made spot pools carry the taint only where somebody asked for it
    zone: str = f"{REGION}-b"

    @property
    def nodes(self) -> list[str]:
        """Names of the machines, in the order of their place in the slice."""
        return [f"{self.name}-{index}" for index in range(self.hosts)] if self.name != SYSTEM else [SYSTEM]


def make(
    name: str, accelerator: str | None = None, topology: str | None = None, chips_per_node: int | None = None,
    hosts: int = 1, spot: bool = False, taint_spot: bool = False, zone: str = f"{REGION}-b",
) -> Pool:  # fmt: skip
    """A checked pool; the number of TPU hosts follows from the topology. Raises `PoolError`."""
    if accelerator is None:
        return Pool(name, hosts=hosts, spot=spot, taint_spot=taint_spot, zone=zone)
    try:
        found = shape(accelerator, topology or "", chips_per_node)
    except ImpossibleShape as error:
        raise PoolError(f"pool {name}: {error}") from None
    return Pool(name, accelerator, topology, found.chips_per_node, found.hosts, spot, taint_spot, zone)


# Two slices of the same shape: whichever is preempted, the other one is the spare.
DEFAULT = tuple(make(name, "tpu-v6e-slice", "2x4", 4, spot=True) for name in ("pool-a", "pool-b"))


def parse(text: str) -> Pool:
    """`NAME=ACCELERATOR:TOPOLOGY[:CHIPS_PER_NODE][:spot]`, or `NAME=cpu:HOSTS[:spot]`. Raises `PoolError`."""
    name, _, rest = text.partition("=")
    kind, *parts = rest.split(":")
    spot = parts[-1:] == ["spot"]
    parts = parts[:-1] if spot else parts
    if not (name and kind and 1 <= len(parts) <= 2 and all(part.isdigit() for part in parts[1:])):
        raise PoolError(
            f"{text!r} is no pool; write NAME=ACCELERATOR:TOPOLOGY[:CHIPS_PER_NODE][:spot], for example "
            "pool-a=tpu-v6e-slice:2x4:4:spot, or NAME=cpu:HOSTS"
        )
    if kind == "cpu":
        if not parts[0].isdigit():
            raise PoolError(f"{text!r}: the number of hosts is missing; write {name}=cpu:2")
        return make(name, hosts=int(parts[0]), spot=spot)
    return make(name, kind, parts[0], int(parts[1]) if len(parts) == 2 else None, spot=spot)


def load(path: Path) -> list[Pool]:
    """Pools from a YAML list with the fields of `Pool` (`chipsPerNode` and `taintSpot` in camel case)."""
    names = {"chipsPerNode": "chips_per_node", "taintSpot": "taint_spot"}
    try:
        return [
            make(**{names.get(key, key): value for key, value in entry.items()})
            for entry in yaml.safe_load(path.read_text())
        ]
    except (TypeError, AttributeError) as error:
        raise PoolError(f"{path}: {error}; known fields: {', '.join(asdict(DEFAULT[0]))}") from None


def node_object(pool: Pool, name: str) -> Object:
    """The Node that machine `name` of `pool` registers."""
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/region": REGION,
        "topology.kubernetes.io/zone": pool.zone,
        "node.kubernetes.io/instance-type": "e2-standard-4",
        "cloud.google.com/gke-nodepool": pool.name,
        "cloud.google.com/gke-provisioning": "spot" if pool.spot else "standard",
    }
    taints = []
    if pool.spot:
        labels["cloud.google.com/gke-spot"] = "true"
    if pool.taint_spot:
        taints.append({"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"})
    if pool.accelerator:
        labels |= {
            "node.kubernetes.io/instance-type": machine_type(pool.accelerator, pool.chips_per_node or 0) or "",
            "cloud.google.com/gke-tpu-accelerator": pool.accelerator,
            "cloud.google.com/gke-tpu-topology": pool.topology or "",
            "cloud.google.com/gke-accelerator-count": str(pool.chips_per_node),
        }
        taints.append({"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"})
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints, "providerID": f"gce://ratchet-local/{pool.zone}/{name}"},
    }


def capacity(pool: Pool) -> dict[str, str]:
    """What the scheduler may hand out. Generous: a pod asks for a TPU host's processors and gets a process."""
    found = {"cpu": "180", "memory": "720Gi", "ephemeral-storage": "100Gi", "pods": "250"}
    return found | ({"google.com/tpu": str(pool.chips_per_node)} if pool.accelerator else {})


def by_name(pools: list[Pool]) -> dict[str, Pool]:
    """name -> pool. Raises `PoolError` for a name that is used twice or reserved."""
    found: dict[str, Pool] = {}
    for pool in pools:
        if pool.name in found or pool.name == SYSTEM:
            raise PoolError(f"pool {pool.name}: the name is {'reserved' if pool.name == SYSTEM else 'used twice'}")
        found[pool.name] = pool
    return found
