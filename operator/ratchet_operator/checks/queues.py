"""Whether the queue that a job's JobSets name exists and can let them in: Kueue's LocalQueue and its ClusterQueue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ratchet_operator.checks.finding import Finding, error

Raw = Mapping[str, Any]
LABEL = "kueue.x-k8s.io/queue-name"


def findings(queue: str, namespace: str, local: Iterable[Raw] | None, cluster: Iterable[Raw]) -> list[Finding]:
    """`local`: LocalQueues of the namespace; None where the cluster has no such kind."""
    about = f"queue {queue}"
    if local is None:
        wrong = f"the manifest names it ({LABEL}), and Kueue is not installed: attempts would wait for ever"
        return [error(about, wrong, "install Kueue, or leave the label out of spec.jobSetTemplate.labels")]
    local = list(local)
    mine = next((q for q in local if q["metadata"]["name"] == queue), None)
    if mine is None:
        there = ", ".join(sorted(q["metadata"]["name"] for q in local)) or "none"
        wrong = f"there is no LocalQueue of that name in namespace {namespace}; there is {there}"
        return [error(about, wrong, "correct the label, or have the queue made")]
    name = mine["spec"]["clusterQueue"]
    above = next((q for q in cluster if q["metadata"]["name"] == name), None)
    if above is None:
        wrong = f"its ClusterQueue {name} does not exist"
        return [error(about, wrong, f"have it made: kubectl describe localqueue {queue} --namespace {namespace}")]
    active = [c for c in (above.get("status") or {}).get("conditions") or () if c["type"] == "Active"]
    if active and active[0]["status"] != "True":
        wrong = f"its ClusterQueue {name} is not active: {active[0].get('message', '')}"
        return [error(about, wrong, f"kubectl describe clusterqueue {name}")]
    return []
