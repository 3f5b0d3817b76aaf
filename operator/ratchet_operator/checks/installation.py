"""Whether what the operator builds on is installed: the kinds JobSet and RLTrainingJob, the latter as it is here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ratchet_api.job import GROUP, KIND, PLURAL, VERSION
from ratchet_operator.checks.finding import Finding, error, warning

CHART = '"$(ratchet chart)"'
"""The chart's folder in a shell's words, wherever the program is installed."""
INSTALL = f"helm install ratchet {CHART} --namespace ratchet-system --create-namespace (docs/gke.md)"
NEEDED = (
    (
        "JobSet", "jobsets.jobset.x-k8s.io", "v1alpha2",
        "install JobSet 0.12 or newer: docs/gke.md has the line",
    ),
    (KIND, f"{PLURAL}.{GROUP}", VERSION, f"install the chart with crds.install=true: {INSTALL}"),
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


def differences(installed: Mapping[str, Any], own: Mapping[str, Any]) -> list[Finding]:
    """Whether the installed definition of RLTrainingJob has the fields that this program knows (`own`).

    Fields that are missing there would be dropped by the API server without a word.
    """
    here, there = (set(_fields(_schema(one))) for one in (own, installed))
    missing, more = _outermost(here - there), _outermost(there - here)
    about, found = f"kind {KIND}", []
    if missing:
        wrong = f"the cluster's definition is older than this program: it lacks {_listed(missing)}"
        mend = "kubectl apply --server-side --force-conflicts -f <(ratchet crd), or upgrade the chart"
        found.append(error(about, wrong, mend))
    if more:
        wrong = f"the cluster's definition is newer than this program: it has {_listed(more)}, too"
        found.append(warning(about, wrong, "upgrade this program: pip install --upgrade ratchet-rl"))
    return found


def _schema(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    versions = [v for v in definition["spec"]["versions"] if v["name"] == VERSION]
    return ((versions[0].get("schema") or {}).get("openAPIV3Schema") or {}) if versions else {}


def _fields(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, inside in (schema.get("properties") or {}).items():
        here = f"{path}.{name}" if path else name
        yield here
        yield from _fields(inside, here)
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield from _fields(items, f"{path}[]")


def _outermost(paths: set[str]) -> list[str]:
    """Those that are not inside another one."""
    return sorted(p for p in paths if not any(p.startswith((f"{q}.", f"{q}[")) for q in paths if q != p))


def _listed(paths: list[str], most: int = 3) -> str:
    rest = len(paths) - most
    return ", ".join(paths[:most]) + (f" and {rest} more" if rest > 0 else "")
