"""Whether a job can be run as it stands: what neither the types nor the API server can refuse.

Looks at what `ratchet validate` says, too (`ratchet_api.validate`), what the operator's own values allow, and what
would collide inside the pod or keep it off every node. Each problem has its path and a way out; no object is made while
there is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_api.cluster_names import placements, pod_templates
from ratchet_api.job import Spec
from ratchet_api.pod_volumes import SYSTEM_FOLDERS
from ratchet_api.validate import Problem, semantic_problems, too_deep
from ratchet_operator.build.nodes import FLEX_START, QUEUED, SPOT, node_selector
from ratchet_operator.build.pod import mounts, top
from ratchet_operator.build.security import user
from ratchet_operator.snapshot import Snapshot, Values

SPEC_LIMIT = 256 << 10

DETOUR = "a part of the path is empty, . or ..; write the path without it, and without a / at its end"


def problems(spec: Spec, values: Values) -> tuple[Problem, ...]:
    """Everything that keeps this job from being run; empty when it is accepted."""
    if deep := tuple(too_deep(spec)):
        return deep  # nothing else can be asked of it
    return (
        *_size(spec),
        *semantic_problems(spec),
        *_storage(spec),
        *_fast_tier(spec, values),
        *_added_volumes(spec),
        *_account(spec, values),
        *_root(spec, values),
        *_contradictions(spec),
    )


def taken(snapshot: Snapshot) -> tuple[Problem, ...]:
    """Whether another job works in the job's checkpoint directory."""
    if snapshot.directory_owner is None:
        return ()
    text = f"job {snapshot.directory_owner} works in it; let it end, delete it, or choose another directory"
    return (Problem("spec.checkpoint.directory", text),)


def _size(spec: Spec) -> Iterator[Problem]:
    size = len(spec.model_dump_json(by_alias=True, exclude_none=True).encode())
    if size > SPEC_LIMIT:
        yield Problem("spec", f"is {size} bytes as JSON, at most {SPEC_LIMIT} fit into the attempt's job file")


def _storage(spec: Spec) -> Iterator[Problem]:
    checkpoint = spec.checkpoint
    if checkpoint.directory.startswith("/"):
        if checkpoint.claim_name is None:
            yield Problem(
                "spec.checkpoint.claimName",
                f"missing: without it {checkpoint.directory} would be lost with the pod; name a PersistentVolumeClaim "
                "that all hosts can mount",
            )
        yield from _mountable("spec.checkpoint.directory", checkpoint.directory, "/checkpoints")
    if spec.model.path is not None and spec.model.claim_name is not None:
        yield from _mountable("spec.model.path", spec.model.path, "/models")
    places: dict[str, str] = {}
    for path, claim, mount in mounts(spec):
        if places.setdefault(mount, claim) != claim:
            yield Problem(
                path, f"claims {places[mount]} and {claim} would both be mounted at {mount}; use another folder"
            )
    for i, dataset in enumerate(spec.datasets):
        if dataset.file is not None and dataset.file.claim_name is not None:
            path, place = f"spec.datasets[{i}].{dataset.kind}.path", dataset.file.path
            if not place.startswith("/") or place.count("/") < 2:
                yield Problem(path, "a file of a claim is given as /FOLDER/FILE; the claim is mounted at /FOLDER")
            elif place.split("/")[1] in SYSTEM_FOLDERS:
                yield Problem(path, "the claim would be mounted over a folder that the system needs; use /data/FILE")
            elif _detours(place):
                yield Problem(path, DETOUR)


def _fast_tier(spec: Spec, values: Values) -> Iterator[Problem]:
    path, place = "spec.checkpoint.localDirectory", spec.checkpoint.local_directory
    if place is None:
        return
    if not values.local_directory:
        yield Problem(
            path, "no folder of the nodes is given to jobs; the chart's value trainer.localDirectory names one"
        )
    yield from _mountable(path, place, "/local", "the node's folder")
    for _, claim, mount in mounts(spec):
        if f"{place}/".startswith(f"{mount}/") or f"{mount}/".startswith(f"{place}/"):
            yield Problem(path, f"claim {claim} is mounted at {mount}; use another folder, for example /local")


def _added_volumes(spec: Spec) -> Iterator[Problem]:
    """Volumes that would cover a claim or the fast tier, or would be covered by one."""
    own = [(mount, f"claim {claim}") for _, claim, mount in mounts(spec)]
    if spec.checkpoint.local_directory is not None:
        own.append((spec.checkpoint.local_directory, "the fast tier"))
    for path, template in pod_templates(spec):
        for i, volume in enumerate(template.volumes):
            place = volume.mount_path
            for mount, what in own:
                if f"{place}/".startswith(f"{mount}/") or f"{mount}/".startswith(f"{place}/"):
                    text = f"{what} is mounted at {mount}; use another folder, for example /scratch"
                    yield Problem(f"{path}.volumes[{i}].mountPath", text)


def _mountable(path: str, folder: str, better: str, what: str = "the claim") -> Iterator[Problem]:
    place = top(folder)
    if place[1:] in SYSTEM_FOLDERS or place == "/":
        yield Problem(path, f"{what} would be mounted at {place}, which the system needs; use a folder below {better}")
    elif _detours(folder):
        yield Problem(path, DETOUR)


def _detours(path: str) -> bool:
    """Whether a path leads elsewhere than its text says; the claim is mounted where the text says."""
    return any(part in ("", ".", "..") for part in path.split("/")[1:])


def _account(spec: Spec, values: Values) -> Iterator[Problem]:
    for path, template in pod_templates(spec):
        account = template.service_account_name
        if account is not None and account not in values.service_accounts:
            allowed = ", ".join(values.service_accounts) or "none"
            yield Problem(
                f"{path}.serviceAccountName",
                f"{account} is not allowed (allowed: {allowed}); the chart's value trainer.serviceAccounts lists them",
            )


def _root(spec: Spec, values: Values) -> Iterator[Problem]:
    for path, template in pod_templates(spec):
        if user(template, values) == 0 and not values.allow_root:
            yield Problem(
                f"{path}.runAsUser",
                "0 is root, which no trainer may be here; name another user, for example 10001 (the chart's value "
                "trainer.allowRoot would allow it)",
            )


def _contradictions(spec: Spec) -> Iterator[Problem]:
    """Labels that nodes must have and, by what else the placement says, must not have."""
    for place, placement in placements(spec):
        path, selected = f"{place}.nodeSelector", node_selector(placement)
        for key, value in placement.node_selector.items():
            if selected[key] != value:
                text = f"{key}: {value!r} contradicts the placement's own fields, by which it is {selected[key]!r}"
                yield Problem(path, f"{text}; leave it out")
            elif placement.capacity_type == "OnDemand" and key in (SPOT, FLEX_START, QUEUED) and value == "true":
                yield Problem(path, f"{key}: capacity OnDemand keeps off such nodes; set capacity instead")
