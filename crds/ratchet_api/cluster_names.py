"""Whether what a manifest adds to pods, JobSets and node selectors can be there: labels, taints, variables, amounts.

Decides what the API server or Kueue would refuse only when an attempt is made, or would take for something else. Said
beforehand it costs nobody an attempt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from ratchet_api.exact_environment import exact_environment
from ratchet_api.job import QUEUE_LABEL, Spec
from ratchet_api.placements import Placement, Toleration
from ratchet_api.pod_template import PodTemplate
from ratchet_api.pod_volumes import impossible_mounts
from ratchet_api.protocol import LABEL_NOTICE_SECONDS

Found = Iterator[tuple[str, str]]
"""Path and message of each problem."""

OWN_DOMAINS = ("ratchet.dev", "jobset.sigs.k8s.io", "batch.kubernetes.io", "kubernetes.io", "k8s.io")
FOR_ALL = "app.kubernetes.io"
"""The domain of the labels that Kubernetes recommends to everybody (Common labels): name, part-of, managed-by."""
KUEUE = "kueue.x-k8s.io"
QUEUE = QUEUE_LABEL
PREBUILT = f"{KUEUE}/prebuilt-workload-name"
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
NOTICE = re.compile(r"([1-9][0-9]{0,2}|[12][0-9]{3}|3[0-5][0-9]{2}|3600)")
WORDS = "letters, digits, '-', '_' and '.', at most 63, beginning and ending with a letter or digit"
DNS = "lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
SCALE = {"": 1.0, "m": 1e-3, "k": 1e3, **{unit: 1e3 ** (i + 2) for i, unit in enumerate("MGTPE")}} | {
    f"{unit}i": 1024.0 ** (i + 1) for i, unit in enumerate("KMGTPE")
}


def impossible_names(spec: Spec) -> Found:
    """What no pod, JobSet or node can be called."""
    added = spec.job_set_template
    for kind, given in (
        *((f"{path}.{name}", getattr(template, name)) for path, template in pod_templates(spec) for name in ADDED),
        *((f"spec.jobSetTemplate.{name}", getattr(added, name)) for name in ADDED),
    ):
        yield from _added(kind, given, labels=kind.endswith("labels"))
    yield from _queue(spec)
    for path, placement in placements(spec):
        yield from _placed(path, placement)
    yield from _objects(spec)
    for path, template in pod_templates(spec):
        yield from _pods(path, template)


ADDED = "labels", "annotations"


def placements(spec: Spec) -> Iterator[tuple[str, Placement]]:
    """Path and value of each placement, the trainer's and the workers'."""
    for i, placement in enumerate(spec.placements):
        yield f"spec.placements[{i}]", placement
    for i, placement in enumerate(spec.rollouts.placements if spec.rollouts is not None else ()):
        yield f"spec.rollouts.placements[{i}]", placement


def pod_templates(spec: Spec) -> Iterator[tuple[str, PodTemplate]]:
    """Path and value of what is added to pods, the trainer's and the workers'."""
    yield "spec.podTemplate", spec.pod_template
    if spec.rollouts is not None:
        yield "spec.rollouts.podTemplate", spec.rollouts.pod_template


def _added(path: str, given: Mapping[str, str], *, labels: bool) -> Found:
    for key, value in given.items():
        domain = key.split("/")[0] if "/" in key else ""
        if domain != FOR_ALL and any(domain == own or domain.endswith("." + own) for own in OWN_DOMAINS):
            yield path, f"{key} belongs to Kubernetes or to Ratchet; use a domain of yours"
        if not is_key(key) or (labels and not is_value(value)):
            yield path, _no_label(key, value)


def _queue(spec: Spec) -> Found:
    path, labels = "spec.jobSetTemplate.labels", spec.job_set_template.labels
    if PREBUILT in labels:
        yield path, f"{PREBUILT} names one Workload for ever, but every attempt has one of its own; leave it out"
    if QUEUE in labels and not is_name(labels[QUEUE]):
        yield path, f"{QUEUE}: {labels[QUEUE]!r} is no name of a LocalQueue; {DNS}"
    for key in labels:
        domain, _, name = key.partition("/")
        if domain == KUEUE and key != QUEUE and difflib.get_close_matches(name, ["queue-name"]):
            yield path, f"{key} is no label of Kueue, which would let the job pass; did you mean {QUEUE}?"
    for path, template in pod_templates(spec):
        if QUEUE in template.labels:
            yield (
                f"{path}.labels",
                f"{QUEUE}: all pods of an attempt are admitted at once, by its JobSet; write it into "
                "jobSetTemplate.labels",
            )


def _placed(path: str, placement: Placement) -> Found:
    said = {
        "accelerator": placement.accelerator,
        "topology": placement.topology,
        "reservation": placement.reservation,
        "zone": placement.zone,
    }
    for name, value in said.items():
        if value is not None and not LABEL.fullmatch(value):
            yield f"{path}.{name}", f"{value!r} is no value of a node's label; {WORDS}"
    for key, value in placement.node_selector.items():
        if not is_key(key) or not is_value(value):
            yield f"{path}.nodeSelector", _no_label(key, value)
        if key == LABEL_NOTICE_SECONDS and not NOTICE.fullmatch(value):
            words = f"{key}: {value!r} is no number of seconds from 1 to 3600; write the one that the nodes have"
            yield f"{path}.nodeSelector", words
    for i, toleration in enumerate(placement.tolerations):
        if (message := _untolerable(toleration)) is not None:
            yield f"{path}.tolerations[{i}]", message


def _untolerable(toleration: Toleration) -> str | None:
    key, value = toleration.key or "", toleration.value or ""
    if not key and toleration.operator == "Equal":
        return "a toleration of every taint needs operator: Exists; or name the key of one"
    if value and toleration.operator == "Exists":
        return f"operator Exists takes no value; leave {value!r} out, or take operator: Equal"
    if key and not is_key(key):
        return f"key {key!r} is no key of a taint; {WORDS}, after DOMAIN/ if there is one"
    if not is_value(value):
        return f"value {value!r} is no value of a taint; {WORDS}"
    return None


def _objects(spec: Spec) -> Found:
    names = {
        "spec.checkpoint.claimName": spec.checkpoint.claim_name,
        "spec.model.claimName": spec.model.claim_name,
    }
    for path, name in names.items():
        if name is not None and not is_name(name):
            yield path, f"{name!r} is no name of an object; {DNS}"
    if spec.image is not None and (not spec.image.isprintable() or " " in spec.image):
        yield "spec.image", f"{spec.image!r} has blanks or control characters; write REPOSITORY:TAG without them"


def _pods(path: str, template: PodTemplate) -> Found:
    names = {
        "serviceAccountName": template.service_account_name,
        "priorityClassName": template.priority_class_name,
    }
    for field, name in names.items():
        if name is not None and not is_name(name):
            yield f"{path}.{field}", f"{name!r} is no name of an object; {DNS}"
    if (template.priority_class_name or "").startswith("system-"):
        words = f"{template.priority_class_name} is for the cluster itself; use a class of yours"
        yield f"{path}.priorityClassName", words
    for name in ("cpu", "memory"):
        asked, most = getattr(template.resources.requests, name), getattr(template.resources.limits, name)
        if asked is not None and most is not None and amount(asked) > amount(most):
            yield f"{path}.resources.requests.{name}", f"{asked} is more than the limit, {most}; raise the limit"
    for i, source in enumerate(template.env_from):
        place, reference = f"{path}.envFrom[{i}]", source.secret_ref or source.config_map_ref
        if source.prefix.startswith("RATCHET_"):
            yield f"{place}.prefix", "variables that begin with RATCHET_ are Ratchet's own; use another prefix"
        if reference is not None and not is_name(reference.name):
            yield place, f"{reference.name!r} is no name of an object; {DNS}"
    yield from impossible_mounts(path, template.volumes)
    for i, variable in enumerate(template.env):
        place = f"{path}.env[{i}]"
        if variable.name.startswith("RATCHET_") or variable.name in exact_environment(None):
            yield (
                f"{place}.name",
                f"{variable.name} is set by Ratchet, because results depend on it"
                + (f"; set {path[5:]}.resources.requests.cpu" if variable.name == "NPROC" else "; leave it out"),
            )
        if "\0" in variable.value:
            yield f"{place}.value", f"{variable.name} has a character 0, which no variable can hold; leave it out"


def _no_label(key: str, value: str) -> str:
    return f"{key}: {value!r} is no label; {WORDS}"


def is_key(text: str) -> bool:
    """Whether a label, an annotation or a taint may have that key."""
    domain, slash, name = text.rpartition("/")
    return bool(LABEL.fullmatch(name)) and (not slash or is_name(domain))


def is_value(text: str) -> bool:
    """Whether a label or a taint may have that value."""
    return not text or bool(LABEL.fullmatch(text))


def is_name(text: str) -> bool:
    """Whether an object may be called so."""
    return len(text) <= 253 and bool(SUBDOMAIN.fullmatch(text))


def amount(quantity: str) -> float:
    """A Kubernetes quantity as a number."""
    number = quantity.rstrip("mkKMGTPEi")
    return float(number) * SCALE[quantity[len(number) :]]
