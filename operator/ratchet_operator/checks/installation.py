"""Whether what the operator builds on is installed: the kinds JobSet and RLTrainingJob."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ratchet_api.job import GROUP, KIND, PLURAL, VERSION
from ratchet_operator.checks.finding import Finding, error

NEEDED = (
    (
        "JobSet", "jobsets.jobset.x-k8s.io", "v1alpha2",
        "install JobSet 0.12 or newer: docs/gke.md has the line",
    ),
    (KIND, f"{PLURAL}.{GROUP}", VERSION, "install the chart with crds.install=true (helm install ratchet ...)"),
)  # fmt: skip
"""Kind, name of its CustomResourceDefinition, version that is asked for, and how it is installed."""


def findings(definitions: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """What is missing among the cluster's CustomResourceDefinitions."""
    by_name = {definition["metadata"]["name"]: definition for definition in definitions}
    return [finding for need in NEEDED for finding in _of_kind(by_name.get(need[1]), *need)]


def _of_kind(definition: Mapping[str, Any] | None, kind: str, name: str, version: str, how: str) -> Iterator[Finding]:
    about = f"kind {kind}"
    if definition is None:
        yield error(about, f"there is no CustomResourceDefinition {name}", how)
        return
    served = [v["name"] for v in definition["spec"]["versions"] if v.get("served")]
    if version not in served:
        yield error(about, f"version {version} is not served, only {', '.join(served) or 'none'}", how)
        return
    conditions = (definition.get("status") or {}).get("conditions") or ()
    if not any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
        yield error(about, "its CustomResourceDefinition is not established", f"kubectl describe crd {name} says why")
