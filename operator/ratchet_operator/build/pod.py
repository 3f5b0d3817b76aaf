"""The trainer's pod: command, environment, volumes, and the nodes that it may run on.

Results depend on part of the environment (thread count, hash seed, locale, time zone), so that part is fixed here and
cannot be changed by the manifest. Pods hold no API credentials.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ratchet_api import protocol
from ratchet_api.exact_environment import exact_environment, performance_environment
from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.validate import placement_shape, processes
from ratchet_operator.build.names import config_map_name, coordinator, labels

GRACE_SECONDS = 30
NODE_LOSS_SECONDS = 30
"""How long a pod stays on a node that is not ready or unreachable: a blip is no reason to lose a run."""
AFFINITY_PODS = 256
"""Up to so many pods the scheduler keeps slices apart by itself; beyond, pod affinity is too slow for it."""

GKE = "cloud.google.com"
NODE_POOL = f"{GKE}/gke-nodepool"
JOB_KEY = "jobset.sigs.k8s.io/job-key"
JOBSET_NAME = "jobset.sigs.k8s.io/jobset-name"


def pod_template(
    job: dict[str, Any], spec: Spec, number: int, placement: Placement, image: str, last_step: int, node_folder: str
) -> dict[str, Any]:
    """The pod template of one attempt. `node_folder`: the nodes' folder for fast tiers, empty if there is none."""
    template, shape = spec.pod_template, placement_shape(placement)
    resources = {kind: dict(amounts) for kind, amounts in template.resources.manifest().items()}
    if shape.chips_per_node:
        for kind in ("requests", "limits"):
            resources.setdefault(kind, {})["google.com/tpu"] = str(shape.chips_per_node)
    fast = _fast_tier(job, spec, node_folder)
    account = {"serviceAccountName": template.service_account_name} if template.service_account_name else {}
    return {
        "metadata": {
            "labels": {**template.labels, **labels(job, number)},
            **({"annotations": dict(template.annotations)} if template.annotations else {}),
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **account,
            "nodeSelector": node_selector(placement),
            "affinity": affinity(placement),
            "tolerations": tolerations(placement),
            "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "trainer",
                    "image": image,
                    "command": ["ratchet", "trainer"],
                    "env": environment(job, spec, number, placement, last_step),
                    "ports": [{"name": "progress", "containerPort": protocol.PORT, "protocol": "TCP"}],
                    "resources": {kind: amounts for kind, amounts in resources.items() if amounts},
                    "volumeMounts": [
                        {"name": "job", "mountPath": _folder(protocol.JOB_FILE), "readOnly": True},
                        {"name": "word", "mountPath": _folder(protocol.WORD_FILE), "readOnly": True},
                        *({"name": name, "mountPath": place} | read for name, _, place, read in _claims(spec)),
                        *(mount for _, mount in fast),
                    ],
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
            "volumes": [
                {"name": "job", "configMap": {"name": config_map_name(job["metadata"]["name"], number)}},
                {
                    "name": "word",
                    "downwardAPI": {
                        "items": [
                            {
                                "path": protocol.WORD_FILE.rsplit("/", 1)[-1],
                                "fieldRef": {"fieldPath": f"metadata.annotations['{protocol.ANNOTATION_WORD}']"},
                            }
                        ]
                    },
                },
                *({"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim, _, _ in _claims(spec)),
                *(volume for volume, _ in fast),
            ],
        },
    }


def environment(
    job: dict[str, Any], spec: Spec, number: int, placement: Placement, last_step: int
) -> list[dict[str, Any]]:
    """Environment of the trainer: who it is, what its results and its speed depend on, then the user's own variables,
    which may replace those for speed."""
    meta = job["metadata"]
    fixed = {
        protocol.ENV_NAMESPACE: meta["namespace"],
        protocol.ENV_JOB_NAME: meta["name"],
        protocol.ENV_JOB_UID: meta["uid"],
        protocol.ENV_ATTEMPT: str(number),
        protocol.ENV_LAST_STEP: str(last_step),
        protocol.ENV_GRACE_SECONDS: str(protocol.SPOT_GRACE_SECONDS if placement.capacity == "Spot" else GRACE_SECONDS),
        protocol.ENV_PROCESSES: str(processes(placement)),
        protocol.ENV_HOSTS_PER_SLICE: str(placement_shape(placement).hosts),
        **({protocol.ENV_COORDINATOR: coordinator(meta["name"], number)} if processes(placement) > 1 else {}),
        **exact_environment(spec.pod_template.resources.requests.cpu, spec.reproducibility.exact_shards),
    }
    fixed |= performance_environment({variable.name for variable in spec.pod_template.env})
    from_pod = {
        protocol.ENV_JOBSET_UID: f"metadata.labels['{protocol.LABEL_JOBSET_UID}']",
        protocol.ENV_SLICE: "metadata.labels['jobset.sigs.k8s.io/job-index']",
        protocol.ENV_POD_IP: "status.podIP",
    }
    return [
        *({"name": name, "value": value} for name, value in fixed.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in from_pod.items()),
        *({"name": variable.name, "value": variable.value} for variable in spec.pod_template.env),
    ]


def node_selector(placement: Placement) -> dict[str, str]:
    """Labels that nodes must have."""
    wanted = dict(placement.node_selector)
    if placement.accelerator is not None and placement.topology is not None:
        wanted[f"{GKE}/gke-tpu-accelerator"] = placement.accelerator
        wanted[f"{GKE}/gke-tpu-topology"] = placement.topology
        if placement.chips_per_node is not None:
            wanted[f"{GKE}/gke-accelerator-count"] = str(placement.chips_per_node)
    if placement.capacity == "Spot":
        wanted[f"{GKE}/gke-spot"] = "true"
    if placement.zone is not None:
        wanted["topology.kubernetes.io/zone"] = placement.zone
    return wanted


def affinity(placement: Placement) -> dict[str, Any]:
    """Keeps on-demand jobs off spot machines, and each slice on one node pool of its own.

    What JobSet's exclusive-topology annotation says through its webhook, said to the scheduler itself: the webhook
    admits the followers of a slice only after its leader was placed, which costs a second of the Job controller's
    back-off.
    `matchLabelKeys` (Kubernetes >= 1.33) fills in the key of the pod's own Job.
    """
    rules: dict[str, Any] = {}
    if placement.capacity != "Spot":
        spot = {"key": f"{GKE}/gke-spot", "operator": "NotIn", "values": ["true"]}
        rules["nodeAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [spot]}]}
        }
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
    """Taints of TPU and spot nodes, and patience with a node that loses contact for a moment."""
    found: list[dict[str, Any]] = []
    if placement.accelerator is not None:
        found.append({"key": "google.com/tpu", "operator": "Exists", "effect": "NoSchedule"})
    if placement.capacity == "Spot":
        found.append({"key": f"{GKE}/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"})
    for trouble in ("not-ready", "unreachable"):
        taint = {"key": f"node.kubernetes.io/{trouble}", "operator": "Exists", "effect": "NoExecute"}
        found.append({**taint, "tolerationSeconds": NODE_LOSS_SECONDS})
    return found + [toleration.manifest() for toleration in placement.tolerations]


def mounts(spec: Spec) -> Iterator[tuple[str, str, str]]:
    """Claims that the manifest asks for, as (path in the manifest, claim, folder where it is mounted)."""
    checkpoint = spec.checkpoint
    if checkpoint.claim_name is not None:
        yield "spec.checkpoint.claimName", checkpoint.claim_name, top(checkpoint.directory)
    model = spec.model
    if model.path is not None and model.claim_name is not None:
        yield "spec.model.claimName", model.claim_name, top(model.path)
    for i, dataset in enumerate(spec.datasets):
        if dataset.jsonl is not None and dataset.jsonl.claim_name is not None:
            yield f"spec.datasets[{i}].jsonl.claimName", dataset.jsonl.claim_name, _folder(dataset.jsonl.path)


def _claims(spec: Spec) -> list[tuple[str, str, str, dict[str, bool]]]:
    """(volume, claim, folder, read-only or not), one a folder; a claim that is mounted twice is one volume a folder."""
    found: dict[str, tuple[str, str, str, dict[str, bool]]] = {}
    for path, claim, place in mounts(spec):
        checkpoint = path.startswith("spec.checkpoint")
        name = "checkpoint" if checkpoint else f"data-{len(found)}"
        found.setdefault(place, (name, claim, place, {} if checkpoint else {"readOnly": True}))
    return list(found.values())


def _fast_tier(job: dict[str, Any], spec: Spec, node_folder: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Volume and mount of the fast tier, none or one. The job's own folder in the nodes' is made by the kubelet with
    the mode of that, so a trainer that is not root can write to it; nothing else of the node is seen."""
    place, meta = spec.checkpoint.local_directory, job["metadata"]
    if place is None or not node_folder:
        return []
    volume = {"name": "local", "hostPath": {"path": node_folder, "type": "DirectoryOrCreate"}}
    below = f"{meta['namespace']}/{meta['name']}-{meta['uid']}"
    return [(volume, {"name": "local", "mountPath": place, "subPath": below})]


def top(path: str) -> str:
    """The first component of an absolute path."""
    return "/" + path.split("/")[1]


def sliced(placement: Placement) -> bool:
    """Whether a slice spans several hosts, which must then share one node pool."""
    return placement.accelerator is not None and placement_shape(placement).hosts > 1


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0]
