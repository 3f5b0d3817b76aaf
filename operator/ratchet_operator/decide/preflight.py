"""What keeps an attempt's pods from ever starting, looked at before its JobSet is created and a slice is taken.

Decides about claims and ConfigMaps that the pods mount or read and that are not there, and about ResourceQuotas that
leave no room for the whole gang: half of one would hold a slice and wait. Nothing here ends a job: it waits, says so in
the condition Placed, and is looked at again. Secrets are not looked at: the right to see that one exists is the right
to read it (docs/decisions/0031). What could not be looked at stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet_api.cluster_names import QUEUE, amount
from ratchet_api.job import Spec
from ratchet_operator.checks.objects import named
from ratchet_operator.snapshot import Raw, Surroundings

AGAIN_SECONDS = 5.0
LOOKED_AT = {"persistentvolumeclaim": "PersistentVolumeClaim", "configmap": "ConfigMap"}
"""Kinds that are looked at, as `checks.objects` and as the API call them."""
REASONS = MISSING, NO_ROOM = "MissingObjects", "ResourceQuotaFull"
"""Reasons of Placed."""
SHOWN = 3


def wanted(spec: Spec) -> dict[tuple[str, str], str]:
    """(kind, name) of what the pods need -> where the manifest names it."""
    return {(LOOKED_AT[kind], name): where for (kind, name), where in named(spec).items() if kind in LOOKED_AT}


def in_the_way(spec: Spec, jobset: Raw, there: Surroundings | None) -> tuple[str, str] | None:
    """Reason and message of the first thing that keeps this JobSet's pods from starting; None if nothing is known."""
    if there is None:
        return None
    for reason, found in ((MISSING, list(_missing(spec, there))), (NO_ROOM, list(_forbidden(jobset, there)))):
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            return reason, "; ".join(found[:SHOWN]) + more + "; looked at again every few seconds"
    return None


def _missing(spec: Spec, there: Surroundings) -> Iterator[str]:
    for (kind, name), where in wanted(spec).items():
        if (kind, name) not in there.objects:
            continue
        found = there.objects[kind, name]
        if found is None:
            yield f"{where}: the namespace has no {kind} {name}; make it, or correct its name"
        elif kind == "PersistentVolumeClaim" and (found.get("status") or {}).get("phase") == "Lost":
            yield f"{where}: the volume of {kind} {name} is gone; kubectl describe pvc {name} says more"


def _forbidden(jobset: Raw, there: Surroundings) -> Iterator[str]:
    asked = asked_of_quotas(jobset)
    queued = QUEUE in (jobset["metadata"].get("labels") or {})
    for quota in there.quotas:
        name, spec, status = quota["metadata"]["name"], quota.get("spec") or {}, quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue  # for some pods only
        for resource, hard in sorted((status.get("hard") or spec.get("hard") or {}).items()):
            wants, most = asked.get(resource, 0.0), _number(hard)
            used = _number((status.get("used") or {}).get(resource, "0"))
            if not wants or most is None or used is None:
                continue
            words = f"ResourceQuota {name} allows {hard} of {resource}"
            if wants > most:
                yield f"{words}, the attempt's pods want {wants:g}; ask for less, or have it raised"
            elif wants > most - used and not queued:  # a queue lets the JobSet go when there is room
                yield f"{words}, {status['used'][resource]} of it in use, and the attempt's pods want {wants:g}"


def asked_of_quotas(jobset: Raw) -> dict[str, float]:
    """What the Jobs and pods of a JobSet count for in a ResourceQuota, by the quota's names of resources. The JobSet
    itself the API server refuses at once, before anything is taken (`refusals.creation`)."""
    total: dict[str, float] = {}

    def add(resource: str, much: float) -> None:
        total[resource] = total.get(resource, 0.0) + much

    for replicated in jobset["spec"]["replicatedJobs"]:
        slices, job = float(replicated["replicas"]), replicated["template"]["spec"]
        pods = slices * job["parallelism"]
        add("count/jobs.batch", slices)
        add("pods", pods)
        add("count/pods", pods)
        for container in job["template"]["spec"]["containers"]:
            limits: Mapping[str, str] = (container.get("resources") or {}).get("limits") or {}
            requests = {**limits, **((container.get("resources") or {}).get("requests") or {})}
            for resource, quantity in requests.items():
                add(f"requests.{resource}", pods * amount(quantity))
                if resource in ("cpu", "memory"):
                    add(resource, pods * amount(quantity))
            for resource in ("cpu", "memory"):
                if resource in limits:
                    add(f"limits.{resource}", pods * amount(limits[resource]))
    return total


def _number(quantity: Any) -> float | None:
    """A quantity as the API server writes it; None for a form that is not known here."""
    text = str(quantity)
    try:
        return float(text) if "e" in text.lower().rstrip("ei") else amount(text)
    except (ValueError, KeyError):
        return None
