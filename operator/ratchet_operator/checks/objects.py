"""Whether what a job names in its namespace is there: claims, ConfigMaps, Secrets, the service account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.validate import processes
from ratchet_operator.build.verifiers import verifier_secrets, verifier_volumes
from ratchet_operator.checks.finding import Finding, error, warning

Raw = Mapping[str, Any]
Name = tuple[str, str]
"""Kind as kubectl takes it, and name."""


def named(spec: Spec) -> dict[Name, str]:
    """What a job names -> where it names it."""
    found: dict[Name, str] = {}
    if spec.checkpoint.claim_name:
        found["persistentvolumeclaim", spec.checkpoint.claim_name] = "spec.checkpoint.claimName"
    if spec.model.claim_name:
        found.setdefault(("persistentvolumeclaim", spec.model.claim_name), "spec.model.claimName")
    for i, dataset in enumerate(spec.datasets):
        if dataset.file is not None and dataset.file.claim_name:
            found.setdefault(("persistentvolumeclaim", dataset.file.claim_name), f"spec.datasets[{i}]")
    for mounted, _ in verifier_volumes(spec):
        found["configmap", mounted["configMap"]["name"]] = "a verifier or a reward"
    for filled in verifier_secrets(spec):
        found["secret", filled["valueFrom"]["secretKeyRef"]["name"]] = "a verifier or a reward"
    template, of = spec.pod_template, "spec.podTemplate"
    for i, variable in enumerate(template.env):
        if variable.value_from is not None:
            found.setdefault(("secret", variable.value_from.secret_key_ref.name), f"{of}.env[{i}]")
    for i, source in enumerate(template.env_from):
        for kind, reference in (("secret", source.secret_ref), ("configmap", source.config_map_ref)):
            if reference is not None and not reference.optional:
                found.setdefault((kind, reference.name), f"{of}.envFrom[{i}]")
    for i, secret in enumerate(template.image_pull_secrets):
        found.setdefault(("secret", secret.name), f"{of}.imagePullSecrets[{i}]")
    for i, volume in enumerate(template.volumes):
        where = f"{of}.volumes[{i}]"
        if volume.secret is not None:
            found.setdefault(("secret", volume.secret.secret_name), where)
        if volume.config_map is not None:
            found.setdefault(("configmap", volume.config_map.name), where)
        if volume.persistent_volume_claim is not None:
            found.setdefault(("persistentvolumeclaim", volume.persistent_volume_claim.claim_name), where)
    account = spec.pod_template.service_account_name
    found["serviceaccount", account or "default"] = "spec.podTemplate.serviceAccountName" if account else "every pod"
    return found


def findings(spec: Spec, namespace: str, there: Mapping[Name, Raw | None]) -> list[Finding]:
    """`there`: what was found of `named`; None is missing; what may not be looked at is left out."""
    found = []
    for (kind, name), where in named(spec).items():
        if (kind, name) not in there:
            continue
        if there[kind, name] is None:
            found.append(
                error(
                    f"{kind} {name}",
                    f"{where} names it, and namespace {namespace} has none",
                    _make(kind, name, namespace),
                )
            )
        elif kind == "persistentvolumeclaim":
            found += _of_claim(spec, name, there[kind, name] or {}, namespace)
    return found


def _make(kind: str, name: str, namespace: str) -> str:
    place = f"--namespace {namespace}"
    return {
        "persistentvolumeclaim": f"make a claim {name} {place} (docs/gke.md), or correct its name",
        "configmap": f"kubectl create configmap {name} {place} --from-file=FOLDER",
        "secret": f"kubectl create secret generic {name} {place} --from-literal=KEY=VALUE",
    }.get(kind, f"kubectl create {kind} {name} {place}")


def _of_claim(spec: Spec, name: str, claim: Raw, namespace: str) -> Iterator[Finding]:
    about, phase = f"persistentvolumeclaim {name}", (claim.get("status") or {}).get("phase")
    look = f"kubectl describe persistentvolumeclaim {name} --namespace {namespace}"
    if phase == "Lost":
        yield error(about, "its volume is gone", look)
    elif phase != "Bound":
        yield warning(about, f"it is {phase or 'not bound'}: no volume yet; some classes wait for the first pod", look)
    modes = set((claim.get("spec") or {}).get("accessModes") or ())
    hosts = max(processes(placement) for placement in spec.placements)
    shared = name == spec.checkpoint.claim_name and hosts > 1
    if shared and modes and not modes & {"ReadWriteMany"}:
        wrong = f"its access modes are {', '.join(sorted(modes))}, and {hosts} hosts write to it"
        yield error(
            about, wrong, "take a class with ReadWriteMany (Filestore), or a bucket: directory: gs://BUCKET/NAME"
        )
