"""The command that makes a node pool for a placement, so that a finding can be mended by copying a line."""

from __future__ import annotations

from ratchet_api.placements import Placement
from ratchet_api.tpu_topologies import machine_type
from ratchet_api.validate import placement_shape

CAPACITY = {
    "Spot": "--spot",
    "FlexStart": "--flex-start --reservation-affinity=none",
    "Reserved": "--reservation-affinity=specific --reservation={reservation}",
    "OnDemand": "",
}
"""What `gcloud container node-pools create` is told of the capacity."""
GKE_OWN = ("cloud.google.com/", "kubernetes.io/", "topology.kubernetes.io/", "node.kubernetes.io/")
"""Labels that GKE sets itself."""


def node_pool_command(placement: Placement, name: str = "POOL") -> str | None:
    """One `gcloud` line for one slice of the placement, with CLUSTER, LOCATION and ZONE to be filled in.

    None where there is no such line: a CPU placement, a ComputeClass, which makes its pools itself, and accelerators
    that this version does not know or that need more than a line (tpu7, tpu7x: a placement policy). Raises
    ImpossibleShape.
    """
    if placement.accelerator is None or placement.compute_class is not None or placement.accelerator.startswith("tpu7"):
        return None
    shape = placement_shape(placement)
    machine = machine_type(placement.accelerator, shape.chips_per_node)
    if machine is None:
        return None
    capacity = CAPACITY[placement.capacity_type or "OnDemand"].format(reservation=placement.reservation)
    queued = "--enable-queued-provisioning --num-nodes=0 --enable-autoscaling --min-nodes=0"
    nodes = f"{queued} --max-nodes={shape.hosts}" if placement.queued_provisioning else f"--num-nodes={shape.hosts}"
    own = {key: value for key, value in sorted(placement.node_selector.items()) if not key.startswith(GKE_OWN)}
    labels = ",".join(f"{key}={value}" for key, value in own.items())
    parts = (
        f"gcloud container node-pools create {name} --cluster=CLUSTER --location=LOCATION",
        f"--node-locations={placement.zone or 'ZONE'}",
        f"--machine-type={machine}",
        f"--tpu-topology={placement.topology}" if shape.hosts > 1 else "",
        nodes,
        capacity,
        "--workload-metadata=GKE_METADATA",
        f"--node-labels={labels}" if labels else "",
    )
    return " ".join(part for part in parts if part)
