"""Whether a job can be run as it stands: what neither the types nor the API server can refuse.

Looks at shapes and divisibility (`ratchet_api.validate`), what the operator's own values allow, and what would collide
inside the pod. Each problem has its path and a way out; no object is made while there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ratchet_api.canonical import canonical
from ratchet_api.exact_environment import exact_environment
from ratchet_api.job import Spec
from ratchet_api.protocol import LABEL_NOTICE_SECONDS
from ratchet_api.validate import Problem, semantic_problems
from ratchet_operator.build.pod import mounts, top
from ratchet_operator.snapshot import Values

OWN_DOMAINS = ("ratchet.dev", "jobset.sigs.k8s.io", "batch.kubernetes.io", "kubernetes.io", "k8s.io")
SYSTEM_FOLDERS = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib64",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
)

BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
PREBUILT = "kueue.x-k8s.io/prebuilt-workload-name"
SPEC_LIMIT = 256 << 10
KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
VALUE = re.compile(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
NOTICE = re.compile(r"^([1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600)$")
WORDS = "letters, digits, '-', '_' and '.', at most 63, beginning and ending with a letter or digit"
SCALE = {"": 1.0, "m": 1e-3, "k": 1e3, **{unit: 1e3 ** (i + 2) for i, unit in enumerate("MGTPE")}} | {
    f"{unit}i": 1024.0 ** (i + 1) for i, unit in enumerate("KMGTPE")
}

DETOUR = "a part of the path is empty, . or ..; write the path without it, and without a / at its end"


def problems(spec: Spec, values: Values) -> tuple[Problem, ...]:
    """Everything that keeps this job from being run; empty when it is accepted."""
    return (
        *_size(spec),
        *semantic_problems(spec),
        *_storage(spec),
        *_fast_tier(spec, values),
        *_template(spec, values),
    )


def _size(spec: Spec) -> Iterator[Problem]:
    size = len(canonical(spec.manifest()))
    if size > SPEC_LIMIT:
        yield Problem("spec", f"is {size} bytes as JSON, at most {SPEC_LIMIT} fit into the attempt's job file")


def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number."""
    number = quantity.rstrip("mkKMGTPEi")
    return float(number) * SCALE[quantity[len(number) :]]


def _storage(spec: Spec) -> Iterator[Problem]:
    checkpoint = spec.checkpoint
    if not checkpoint.directory.startswith("/"):
        yield from _on_bucket("spec.checkpoint.directory", checkpoint.directory)
    else:
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


def _on_bucket(path: str, place: str) -> Iterator[Problem]:
    scheme, _, rest = place.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not BUCKET.fullmatch(bucket):
        yield Problem(path, f"{bucket!r} is no bucket's name; write {scheme}://BUCKET/PREFIX")
    elif not prefix.strip("/"):
        yield Problem(path, f"a prefix of the job's own is missing; write {scheme}://{bucket}/PREFIX")
    elif _detours(f"/{prefix.rstrip('/')}"):
        yield Problem(path, "a part of the prefix is empty, . or ..; write it without that part")


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


def _mountable(path: str, folder: str, better: str, what: str = "the claim") -> Iterator[Problem]:
    place = top(folder)
    if place[1:] in SYSTEM_FOLDERS or place == "/":
        yield Problem(path, f"{what} would be mounted at {place}, which the system needs; use a folder below {better}")
    elif _detours(folder):
        yield Problem(path, DETOUR)


def _detours(path: str) -> bool:
    """Whether a path leads elsewhere than its text says; the claim is mounted where the text says."""
    return any(part in ("", ".", "..") for part in path.split("/")[1:])


def _template(spec: Spec, values: Values) -> Iterator[Problem]:
    template = spec.pod_template
    account = template.service_account_name
    if account is not None and account not in values.service_accounts:
        allowed = ", ".join(values.service_accounts) or "none"
        yield Problem(
            "spec.podTemplate.serviceAccountName",
            f"{account} is not allowed (allowed: {allowed}); the chart's value trainer.serviceAccounts lists them",
        )
    if (template.priority_class_name or "").startswith("system-"):
        path = "spec.podTemplate.priorityClassName"
        yield Problem(path, f"{template.priority_class_name} is for the cluster itself; use a class of yours")
    added = spec.job_set_template
    if PREBUILT in added.labels:
        words = f"{PREBUILT} names one Workload for ever, but every attempt has one of its own; leave it out"
        yield Problem("spec.jobSetTemplate.labels", words)
    for kind, given in (
        ("podTemplate.labels", template.labels),
        ("podTemplate.annotations", template.annotations),
        ("jobSetTemplate.labels", added.labels),
        ("jobSetTemplate.annotations", added.annotations),
    ):
        for key in given:
            domain = key.split("/")[0] if "/" in key else ""
            if any(domain == own or domain.endswith("." + own) for own in OWN_DOMAINS):
                yield Problem(f"spec.{kind}", f"{key} belongs to Kubernetes or to Ratchet; use a domain of yours")
            if not KEY.match(key) or (kind.endswith("labels") and not VALUE.match(given[key])):
                yield Problem(f"spec.{kind}", f"{key}: {given[key]!r} is no label; {WORDS}")
    for i, placement in enumerate(spec.placements):
        for key, value in placement.node_selector.items():
            if not KEY.match(key) or not VALUE.match(value):
                yield Problem(f"spec.placements[{i}].nodeSelector", f"{key}: {value!r} is no label; {WORDS}")
            if key == LABEL_NOTICE_SECONDS and not NOTICE.match(value):
                words = f"{key}: {value!r} is no number of seconds from 1 to 3600; write the one that the nodes have"
                yield Problem(f"spec.placements[{i}].nodeSelector", words)
    for name in ("cpu", "memory"):
        asked, most = getattr(template.resources.requests, name), getattr(template.resources.limits, name)
        if asked is not None and most is not None and amount(asked) > amount(most):
            path = f"spec.podTemplate.resources.requests.{name}"
            yield Problem(path, f"{asked} is more than the limit, {most}; raise the limit")
    for i, variable in enumerate(template.env):
        if variable.name.startswith("RATCHET_") or variable.name in exact_environment(None):
            yield Problem(
                f"spec.podTemplate.env[{i}].name",
                f"{variable.name} is set by Ratchet, because results depend on it"
                + ("; set podTemplate.resources.requests.cpu" if variable.name == "NPROC" else ""),
            )
