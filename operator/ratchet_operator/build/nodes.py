"""The nodes that an attempt's pods may run on: labels that they must have, taints that are tolerated, slices on pools.

Decides how a placement is said to the scheduler, in the labels and taints of GKE's TPU node pools. A ComputeClass
chooses the capacity itself, and a hard selector for one kind of capacity beside it would leave it no choice, so the two
never meet. Which placement is tried is decided in `decide/placement`.
"""

from __future__ import annotations

from typing import Any

from ratchet_api.placements import Placement
from ratchet_api.protocol import LABEL_NOTICE_SECONDS, SPOT_GRACE_SECONDS
from ratchet_api.validate import placement_shape, processes

NODE_LOSS_SECONDS = 30
"""How long a pod stays on a node that is not ready or unreachable: a blip is no reason to lose a run."""
AFFINITY_PODS = 256
"""Up to so many pods the scheduler keeps slices apart by itself; beyond, pod affinity is too slow for it."""

GKE = "cloud.google.com"
NODE_POOL = f"{GKE}/gke-nodepool"
SPOT, FLEX_START, QUEUED = f"{GKE}/gke-spot", f"{GKE}/gke-flex-start", f"{GKE}/gke-queued"
"""Labels of nodes by their capacity; their taints have the same keys. Value `true`."""
COMPUTE_CLASS = f"{GKE}/compute-class"
MAINTENANCE_TIME = f"{GKE}/scheduled-maintenance-time"
"""Label of a node whose maintenance is announced: when it begins, in Unix seconds."""
MAINTENANCE_ACTIVE, ONGOING = f"{GKE}/active-node-maintenance", "ONGOING"
"""Label of a node whose maintenance has begun, and its value."""
JOB_KEY = "jobset.sigs.k8s.io/job-key"
JOBSET_NAME = "jobset.sigs.k8s.io/jobset-name"


def node_selector(placement: Placement) -> dict[str, str]:
    """Labels that nodes must have."""
    wanted = dict(placement.node_selector)
    if placement.accelerator is not None:
        wanted[f"{GKE}/gke-tpu-accelerator"] = placement.accelerator
    if placement.topology is not None:
        wanted[f"{GKE}/gke-tpu-topology"] = placement.topology
    if placement.chips_per_node is not None:
        wanted[f"{GKE}/gke-accelerator-count"] = str(placement.chips_per_node)
    if placement.queued_provisioning:
        wanted[QUEUED] = "true"
    elif placement.capacity_type == "FlexStart":
        wanted[FLEX_START] = "true"
    elif placement.capacity_type == "Spot":
        wanted[SPOT] = "true"
    if placement.reservation is not None:
        wanted[f"{GKE}/reservation-name"] = placement.reservation
    if placement.compute_class is not None:
        wanted[COMPUTE_CLASS] = placement.compute_class
    if placement.zone is not None:
        wanted["topology.kubernetes.io/zone"] = placement.zone
    return wanted


def affinity(placement: Placement, stay_until: int | None = None) -> dict[str, Any]:
    """Keeps on-demand jobs off spot and flex-start machines, all off machines in maintenance, and each slice on one
    node pool of its own; prefers nodes whose announced maintenance does not begin before `stay_until` (Unix seconds;
    None: whatever is announced).

    That is a preference: where every node is announced, running until the maintenance begins and leaving with its
    notice costs no step, waiting for hours would.

    What JobSet's exclusive-topology annotation says through its webhook, said to the scheduler itself: the webhook
    admits the followers of a slice only after its leader was placed, which costs a second of the Job controller's
    back-off.
    `matchLabelKeys` (Kubernetes >= 1.33) fills in the key of the pod's own Job.
    """
    rules: dict[str, Any] = {}
    nodes: dict[str, Any] = {}
    musts = []
    if placement.capacity_type == "OnDemand":
        musts = [{"key": key, "operator": "NotIn", "values": ["true"]} for key in (SPOT, FLEX_START, QUEUED)]
    if placement.accelerator is not None:
        musts.append({"key": MAINTENANCE_ACTIVE, "operator": "NotIn", "values": [ONGOING]})
    if musts:
        nodes["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [{"matchExpressions": musts}]}
    if placement.accelerator is not None and stay_until is not None:
        never: dict[str, Any] = {"key": MAINTENANCE_TIME, "operator": "DoesNotExist"}
        late = {"key": MAINTENANCE_TIME, "operator": "Gt", "values": [str(stay_until)]}
        nodes["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {"weight": 100, "preference": {"matchExpressions": [expression]}} for expression in (never, late)
        ]
    if nodes:
        rules["nodeAffinity"] = nodes
    if sliced(placement) and processes(placement) <= AFFINITY_PODS:
        anyone = {"matchExpressions": [{"key": JOBSET_NAME, "operator": "Exists"}]}  # the API forbids JOB_KEY here
        together = {"labelSelector": anyone, "matchLabelKeys": [JOB_KEY], "topologyKey": NODE_POOL}
        apart = {
            "labelSelector": anyone,
            "mismatchLabelKeys": [JOB_KEY],
            "namespaceSelector": {},
            "topologyKey": NODE_POOL,
        }
        rules["podAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [together]}
        rules["podAntiAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}
    return rules


def tolerations(placement: Placement) -> list[dict[str, Any]]:
    """Taints of TPU nodes and of the capacity, and patience with a node that loses contact for a moment."""
    found: list[dict[str, Any]] = []
    if placement.accelerator is not None:
        found.append({"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"})
    taints = {"Spot": (SPOT,), "FlexStart": (FLEX_START,), None: (SPOT, FLEX_START)}.get(placement.capacity_type, ())
    for key in (*taints, *((QUEUED,) if placement.queued_provisioning else ())):
        found.append({"key": key, "operator": "Equal", "value": "true", "effect": "NoSchedule"})
    if placement.compute_class is not None:
        found.append(
            {"key": COMPUTE_CLASS, "operator": "Equal", "value": placement.compute_class, "effect": "NoSchedule"}
        )
    for trouble in ("not-ready", "unreachable"):
        taint = {"key": f"node.kubernetes.io/{trouble}", "operator": "Exists", "effect": "NoExecute"}
        found.append({**taint, "tolerationSeconds": NODE_LOSS_SECONDS})
    return found + [toleration.manifest() for toleration in placement.tolerations]


def notice_seconds(placement: Placement) -> int:
    """What the nodes give ordinary pods when they are taken: more than usual where the placement selects nodes that
    say so, which admission has made sure is a number."""
    return int(placement.node_selector.get(LABEL_NOTICE_SECONDS, SPOT_GRACE_SECONDS))


def sliced(placement: Placement) -> bool:
    """Whether a slice spans several hosts, which must then share one node pool."""
    return placement.accelerator is not None and placement_shape(placement).hosts > 1
