"""The pod of a trainer, or of a worker: command, environment and volumes. The nodes that it may run on are in `nodes`.

Results depend on part of the environment (thread count, hash seed, locale, time zone), so that part is fixed here and
cannot be changed by the manifest; what a TPU needs, and what is for speed, the user may replace. Pods hold no API
credentials.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ratchet_api import protocol
from ratchet_api.exact_environment import exact_environment, performance_environment
from ratchet_api.job import Spec
from ratchet_api.log_lines import ENV_LOG_FORMAT, JSON
from ratchet_api.placements import Placement
from ratchet_api.pod_template import EnvVar
from ratchet_api.pod_volumes import SCRATCH
from ratchet_api.validate import placement_shape, processes
from ratchet_operator.build.names import coordinator, leader_host
from ratchet_operator.build.new_attempt import NewAttempt
from ratchet_operator.build.nodes import affinity, node_selector, notice_seconds, tolerations
from ratchet_operator.build.security import container_security, pod_security
from ratchet_operator.build.template_parts import added_volumes, variables_from
from ratchet_operator.build.verifiers import verifier_secrets, verifier_volumes

JOB_INDEX = "metadata.labels['jobset.sigs.k8s.io/job-index']"
MEGASCALE_PORT = 8080
"""Where the slices of a multislice job find one another, on the leader's host."""


def pod_template(new: NewAttempt) -> dict[str, Any]:
    """The pod template of an attempt, or of a worker."""
    job, spec, placement = new.job, new.spec, new.placement
    template, shape = new.template, placement_shape(placement)
    resources = {kind: dict(amounts) for kind, amounts in template.resources.manifest().items()}
    if shape.chips_per_node:
        for kind in ("requests", "limits"):
            resources.setdefault(kind, {})["google.com/tpu"] = str(shape.chips_per_node)
    further = [
        *_fast_tier(job, spec, new.values.local_directory),
        *(verifier_volumes(spec) if new.worker is None else ()),
        *added_volumes(template.volumes),
    ]
    pulled = [secret.manifest() for secret in template.image_pull_secrets]
    account = {"serviceAccountName": template.service_account_name} if template.service_account_name else {}
    priority = {"priorityClassName": new.priority_class} if new.priority_class else {}
    return {
        "metadata": {
            "labels": {**template.labels, **new.labels},
            **({"annotations": dict(template.annotations)} if template.annotations else {}),
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": template.termination_grace_period_seconds,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **account,
            **priority,
            **({"imagePullSecrets": pulled} if pulled else {}),
            "nodeSelector": node_selector(placement),
            "affinity": affinity(placement, new.stay_until),
            "tolerations": tolerations(placement),
            "securityContext": pod_security(template, new.values),
            "containers": [
                {
                    "name": "trainer",
                    "image": new.image,
                    "command": new.command,
                    **variables_from(template),
                    "env": environment(new),
                    # What every process serves; /progress is the leader's alone, and a template is of all.
                    "ports": [
                        {"name": "metrics", "containerPort": protocol.METRICS_PORT, "protocol": "TCP"},
                    ],
                    "resources": {kind: amounts for kind, amounts in resources.items() if amounts},
                    "volumeMounts": [
                        {"name": "job", "mountPath": _folder(protocol.JOB_FILE), "readOnly": True},
                        {"name": "word", "mountPath": _folder(protocol.STAGE_GATE_FILE), "readOnly": True},
                        *({"name": name, "mountPath": place} | read for name, _, place, read in _claims(new)),
                        *(mount for _, mount in further),
                    ],
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "FallbackToLogsOnError",
                    "securityContext": container_security(template, new.values),
                }
            ],
            "volumes": [
                {"name": "job", "configMap": {"name": new.config_map}},
                {
                    "name": "word",
                    "downwardAPI": {
                        "items": [
                            {
                                "path": protocol.STAGE_GATE_FILE.rsplit("/", 1)[-1],
                                "fieldRef": {"fieldPath": f"metadata.annotations['{protocol.ANNOTATION_STAGE_GATE}']"},
                            }
                        ]
                    },
                },
                *({"name": name, "persistentVolumeClaim": {"claimName": claim}} for name, claim, _, _ in _claims(new)),
                *(volume for volume, _ in further),
            ],
        },
    }


def environment(new: NewAttempt) -> list[dict[str, Any]]:
    """Environment of the trainer: who it is, what it must run on, what its results and its speed depend on, then the
    user's own variables, which may replace those for TPUs and for speed."""
    spec, template, placement = new.spec, new.template, new.placement
    meta, shape, tpu = new.job["metadata"], placement_shape(placement), placement.accelerator is not None
    grace = template.termination_grace_period_seconds
    given = {variable.name for variable in template.env}
    fixed = {
        protocol.ENV_NAMESPACE: meta["namespace"],
        protocol.ENV_JOB_NAME: meta["name"],
        protocol.ENV_JOB_UID: meta["uid"],
        protocol.ENV_ATTEMPT: str(new.number),
        **({} if new.worker is None else {protocol.ENV_WORKER: str(new.worker)}),
        protocol.ENV_LAST_STEP: str(new.last_step),
        protocol.ENV_GRACE_SECONDS: str(min(grace, notice_seconds(placement)) if placement.short_notice else grace),
        protocol.ENV_PROCESSES: str(processes(placement)),
        protocol.ENV_HOSTS_PER_SLICE: str(shape.hosts),
        **({ENV_LOG_FORMAT: JSON} if new.values.json_logs else {}),
        **(_asked(placement) if tpu else {}),
        **({protocol.ENV_COORDINATOR: coordinator(new.jobset)} if processes(placement) > 1 else {}),
        **exact_environment(template.resources.requests.cpu, spec.reproducibility.exact_shards, tpu=tpu),
    }
    # An image's HOME may be a folder that only its own user, or nobody, can write to.
    fixed |= performance_environment(given) | ({} if "HOME" in given else {"HOME": SCRATCH})
    from_pod = {
        protocol.ENV_JOBSET_UID: f"metadata.labels['{protocol.LABEL_JOBSET_UID}']",
        protocol.ENV_SLICE: JOB_INDEX,
        protocol.ENV_POD_IP: "status.podIP",
    }
    return [
        *({"name": name, "value": value} for name, value in fixed.items()),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in from_pod.items()),
        *(variable for variable in _devices_environment(new) if variable["name"] not in given),
        # A worker verifies nothing, so it holds none of the secrets of those who do.
        *(verifier_secrets(spec) if new.worker is None else ()),
        *map(_variable, template.env),
    ]


def _variable(given: EnvVar) -> dict[str, Any]:
    if given.value_from is not None:
        return {"name": given.name, "valueFrom": given.value_from.manifest()}
    return {"name": given.name, "value": given.value}


def _asked(placement: Placement) -> dict[str, str]:
    """What the trainer is to find on TPUs, which it compares with what JAX shows."""
    return {
        protocol.ENV_PLATFORM: "tpu",
        protocol.ENV_DEVICES_PER_PROCESS: str(placement_shape(placement).devices_per_host),
        protocol.ENV_SLICES: str(placement.slices),
    }


def _devices_environment(new: NewAttempt) -> Iterator[dict[str, Any]]:
    """What JAX and libtpu are told of the devices. GKE's webhook is said to add the variables of slices, too; that is
    written nowhere, so they are given."""
    placement = new.placement
    # Named, so that a TPU that does not start is an error instead of a run on the host's CPU.
    yield {"name": "JAX_PLATFORMS", "value": "cpu" if placement.accelerator is None else "tpu,cpu"}
    if placement.slices > 1:
        yield {"name": "MEGASCALE_COORDINATOR_ADDRESS", "value": leader_host(new.jobset)}
        yield {"name": "MEGASCALE_PORT", "value": str(MEGASCALE_PORT)}
        yield {"name": "MEGASCALE_NUM_SLICES", "value": str(placement.slices)}
        yield {"name": "MEGASCALE_SLICE_ID", "valueFrom": {"fieldRef": {"fieldPath": JOB_INDEX}}}


def mounts(spec: Spec) -> Iterator[tuple[str, str, str]]:
    """Claims that the manifest asks for, as (path in the manifest, claim, folder where it is mounted)."""
    checkpoint = spec.checkpoint
    if checkpoint.claim_name is not None:
        yield "spec.checkpoint.claimName", checkpoint.claim_name, top(checkpoint.directory)
    model = spec.model
    if model.path is not None and model.claim_name is not None:
        yield "spec.model.claimName", model.claim_name, top(model.path)
    for i, dataset in enumerate(spec.datasets):
        if dataset.file is not None and dataset.file.claim_name is not None:
            yield f"spec.datasets[{i}].{dataset.kind}.claimName", dataset.file.claim_name, _folder(dataset.file.path)


def _claims(new: NewAttempt) -> list[tuple[str, str, str, dict[str, bool]]]:
    """(volume, claim, folder, read-only or not), one a folder; a claim that is mounted twice is one volume a folder.
    What a worker samples is in its calls, so it sees no data sets."""
    found: dict[str, tuple[str, str, str, dict[str, bool]]] = {}
    for path, claim, place in mounts(new.spec):
        if new.worker is not None and path.startswith("spec.datasets"):
            continue
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


def _folder(path: str) -> str:
    return path.rsplit("/", 1)[0]
