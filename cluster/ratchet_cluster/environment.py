"""The environment and the command line of a container, as a kubelet computes them.

Decides values only: what the pod declares, what its references resolve to, and what GKE's webhook would have injected
for a TPU slice. Fetching the referenced objects: `pod.py`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ratchet_cluster.objects import Object

JOBSET = "jobset.sigs.k8s.io"
INDEX = "batch.kubernetes.io/job-completion-index"
EXPECTED = ("RATCHET_PLATFORM", "RATCHET_DEVICES_PER_PROCESS", "RATCHET_SLICES")
"""What the operator has a trainer compare with the devices that it finds."""
DEFAULT_COMMAND = ("ratchet",)  # the entry point of this project's image
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]$")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")


class MissingReference(Exception):
    """A config map, secret, key or field that the pod refers to is not there."""


@dataclass(frozen=True)
class References:
    """What the pod may refer to: decoded data of config maps and secrets by name; None where the object is absent."""

    config_maps: Mapping[str, Mapping[str, bytes] | None] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, bytes] | None] = field(default_factory=dict)

    def data(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        return (self.config_maps if kind == "ConfigMap" else self.secrets).get(name)


def decode(item: Object) -> dict[str, bytes]:
    """The content of a ConfigMap or Secret object, key -> bytes."""
    texts = {key: value.encode() for key, value in (item.get("data") or {}).items()}
    if item.get("kind") == "Secret":
        return {key: base64.b64decode(value) for key, value in texts.items()}
    return texts | {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}


def field_value(pod: Object, path: str) -> str:
    """The value of a `fieldRef`; whole maps in the format of downward-API files. Raises `MissingReference`."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    if match := _SUBSCRIPT.match(path):
        value: str = (metadata.get(match[1]) or {}).get(match[2], "")
        return value
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = sorted((metadata.get(path.split(".")[1]) or {}).items())
        return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in pairs)
    values = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": status.get("hostIP"),
        "status.podIP": status.get("podIP"),
        "status.podIPs": status.get("podIP"),
    }
    if path not in values:
        raise MissingReference(f"field {path} is not supported")
    return values[path] or ""


def resolve(pod: Object, container: Object, references: References, inherited: Mapping[str, str]) -> dict[str, str]:
    """The container's environment: `inherited`, then `envFrom`, then `env`, later ones seeing earlier ones as $(NAME).

    `pod` carries podIP and hostIP in its status already. Raises `MissingReference`.
    """
    found = dict(inherited)
    for source in container.get("envFrom") or []:
        kind = "ConfigMap" if "configMapRef" in source else "Secret"
        reference = source.get("configMapRef") or source["secretRef"]
        for key, value in _referred(references, kind, reference).items():
            found[source.get("prefix", "") + key] = value.decode(errors="replace")
    for entry in container.get("env") or []:
        text = _value(pod, entry, references, found)
        if text is not None:
            found[entry["name"]] = text
    return found


def _value(pod: Object, entry: Object, references: References, known: Mapping[str, str]) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return expand(entry.get("value", ""), known)
    if "fieldRef" in source:
        return field_value(pod, source["fieldRef"]["fieldPath"])
    for name, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if name in source:
            data = _referred(references, kind, source[name])
            key = source[name]["key"]
            if key in data:
                return data[key].decode(errors="replace")
            if source[name].get("optional"):
                return None
            raise MissingReference(
                f"couldn't find key {key} in {kind} {pod['metadata']['namespace']}/{source[name]['name']}"
            )
    raise MissingReference(f"env {entry['name']}: {', '.join(source)} is not supported by the local node agents")


def _referred(references: References, kind: str, reference: Object) -> Mapping[str, bytes]:
    data = references.data(kind, reference["name"])
    if data is None:
        if reference.get("optional"):
            return {}
        raise MissingReference(f'{kind.lower()} "{reference["name"]}" not found')
    return data


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` by its value and `$$` by `$`; an unknown name stays as it stands, as the API documents."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return known.get(match[1], match[0])

    return _REFERENCE.sub(replace, text)


def command_line(container: Object, env: Mapping[str, str]) -> list[str]:
    """`command` and `args` with their $(NAME) replaced; without a command, the entry point of this project's image."""
    command = container.get("command") or list(DEFAULT_COMMAND)
    return [expand(part, env) for part in [*command, *(container.get("args") or [])]]


def without_chips(container: Object, env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container that wants chips, on a machine that has none: JAX runs on its CPU, with as many
    threads as CPUs are requested, and what the pod expects of its devices is not asked."""
    if "tpu" not in env.get("JAX_PLATFORMS", "").split(","):
        return dict(env)
    cpu = ((container.get("resources") or {}).get("requests") or {}).get("cpu", "1")
    threads = int(float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu))
    kept = {name: value for name, value in env.items() if name not in EXPECTED}
    return {"NPROC": str(max(1, threads))} | kept | {"JAX_PLATFORMS": "cpu"}


def referred_names(pod: Object) -> dict[str, set[str]]:
    """{"ConfigMap": names, "Secret": names} that the containers' environment refers to."""
    names: dict[str, set[str]] = {"ConfigMap": set(), "Secret": set()}
    for container in [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]:
        for source in container.get("envFrom") or []:
            if "configMapRef" in source:
                names["ConfigMap"].add(source["configMapRef"]["name"])
            if "secretRef" in source:
                names["Secret"].add(source["secretRef"]["name"])
        for entry in container.get("env") or []:
            source = entry.get("valueFrom") or {}
            if "configMapKeyRef" in source:
                names["ConfigMap"].add(source["configMapKeyRef"]["name"])
            if "secretKeyRef" in source:
                names["Secret"].add(source["secretKeyRef"]["name"])
    return names


def wants_tpu(pod: Object) -> bool:
    """Whether any container asks for chips."""
    return any("google.com/tpu" in ((c.get("resources") or {}).get("limits") or {}) for c in pod["spec"]["containers"])


def injected(pod: Object, parallelism: int | None) -> dict[str, str]:
    """What GKE adds for a TPU pod, and JAX_PLATFORMS=cpu because there is no chip here.

    TPU_WORKER_ID and TPU_WORKER_HOSTNAMES for a pod of an Indexed Job of `parallelism` pods with a subdomain;
    MEGASCALE_* for a JobSet with more than one slice.
    """
    found = {"JAX_PLATFORMS": "cpu"}
    metadata = pod["metadata"]
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    if not wants_tpu(pod):
        return found
    index = annotations.get(INDEX, labels.get(INDEX))
    subdomain, job = pod["spec"].get("subdomain"), labels.get("batch.kubernetes.io/job-name")
    if index is None or not subdomain or not job or not parallelism:
        return found | {"TPU_WORKER_ID": "0", "TPU_WORKER_HOSTNAMES": "localhost"}
    found["TPU_WORKER_ID"] = index
    found["TPU_WORKER_HOSTNAMES"] = ",".join(f"{job}-{place}.{subdomain}" for place in range(parallelism))
    known = annotations | labels
    slices = int(known.get(f"{JOBSET}/replicatedjob-replicas", "1"))
    if slices > 1:
        first = f"{known[f'{JOBSET}/jobset-name']}-{known[f'{JOBSET}/replicatedjob-name']}-0-0.{subdomain}"
        found |= {
            "MEGASCALE_NUM_SLICES": str(slices),
            "MEGASCALE_SLICE_ID": known[f"{JOBSET}/job-index"],
            "MEGASCALE_COORDINATOR_ADDRESS": first,
        }
    return found
