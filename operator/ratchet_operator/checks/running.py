"""Whether an operator is at work: its Deployment, its pods and its Lease, and of which version it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from ratchet_operator.checks.finding import Finding, error, warning
from ratchet_operator.checks.installation import CHART, INSTALL

Raw = Mapping[str, Any]

LEASE = "ratchet-operator"
ABOUT = "operator"
VERSION_LABEL = "app.kubernetes.io/version"


def findings(
    deployments: Iterable[Raw], pods: Iterable[Raw], leases: Iterable[Raw], version: str, now: datetime
) -> list[Finding]:
    """What keeps jobs from being worked on. `leases`: those named `ratchet-operator`; `version`: this program's."""
    deployments, pods, leases = list(deployments), list(pods), list(leases)
    if not deployments:
        if any(_fresh(lease, now) for lease in leases):
            return []  # it runs outside the cluster, or under labels of its own
        return [error(ABOUT, "there is no Deployment with app.kubernetes.io/name=ratchet", INSTALL)]
    found = [finding for one in deployments for finding in _of_deployment(one, pods, version)]
    places = {d["metadata"]["namespace"] for d in deployments}
    own = [lease for lease in leases if lease["metadata"]["namespace"] in places]
    return found + list(_of_leases(own, places, now))


def _of_deployment(deployment: Raw, pods: Iterable[Raw], version: str) -> Iterator[Finding]:
    meta, status = deployment["metadata"], deployment.get("status") or {}
    about, place = f"{ABOUT} {meta['namespace']}/{meta['name']}", f"--namespace {meta['namespace']}"
    wanted, ready = deployment["spec"].get("replicas", 1), status.get("readyReplicas", 0)
    if wanted == 0:
        yield error(
            about, "it is scaled to 0 replicas", f"kubectl scale deployment {meta['name']} {place} --replicas=2"
        )
    elif ready == 0:
        why = next((said for pod in pods if (said := _why(pod))), "none of its pods is ready")
        yield error(about, why, f"kubectl describe pods {place} --selector=app.kubernetes.io/name=ratchet")
    elif ready < wanted:
        wrong = f"{ready} of {wanted} pods are ready; one works, the others stand by"
        yield warning(about, wrong, f"kubectl get pods {place} --selector=app.kubernetes.io/name=ratchet")
    installed = version_of(deployment)
    if installed is not None and installed != version:
        yield warning(
            about, f"it is version {installed}, this program is {version}",
            f"helm upgrade {meta['name']} {CHART} {place}, or install ratchet-rl=={installed} here",
        )  # fmt: skip


def version_of(deployment: Raw) -> str | None:
    """What its label says, else the tag of its image."""
    said = (deployment["metadata"].get("labels") or {}).get(VERSION_LABEL)
    if said:
        return str(said)
    containers = deployment["spec"]["template"]["spec"]["containers"]
    image = str(containers[0].get("image", "")).partition("@")[0]
    tag = image.rpartition(":")[2]
    return tag if ":" in image and "/" not in tag else None


def _why(pod: Raw) -> str | None:
    """Why a pod is not ready."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting")
        if waiting:
            return f"pod {pod['metadata']['name']} waits: {waiting.get('reason')}: {waiting.get('message', '')}".rstrip(
                ": "
            )
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"pod {pod['metadata']['name']} has no node: {condition.get('message', '')}"
    return None


def _of_leases(leases: list[Raw], places: set[str], now: datetime) -> Iterator[Finding]:
    place = sorted(places)[0]
    about = f"Lease {place}/{LEASE}"
    look = f"kubectl logs --namespace {place} --selector=app.kubernetes.io/name=ratchet --tail=20"
    if not leases:
        yield error(about, "there is none, so no operator has ever worked here", look)
    elif not any(_fresh(lease, now) for lease in leases):
        ages = [age for lease in leases if (age := _age(lease, now)) is not None]
        wrong = f"nobody has renewed it for {min(ages):.0f} s" if ages else "nobody holds it"
        yield error(about, f"{wrong}: no operator works", look)


def _age(lease: Raw, now: datetime) -> float | None:
    """Seconds since it was renewed; None where nobody holds it."""
    spec = lease.get("spec") or {}
    if not spec.get("holderIdentity") or not spec.get("renewTime"):
        return None
    renewed = datetime.fromisoformat(str(spec["renewTime"]).replace("Z", "+00:00"))
    return (now - renewed).total_seconds()


def _fresh(lease: Raw, now: datetime) -> bool:
    age = _age(lease, now)
    # Two clocks are compared, so a Lease counts for twice as long as for the operators themselves.
    return age is not None and age <= 2 * float((lease.get("spec") or {}).get("leaseDurationSeconds") or 15)
