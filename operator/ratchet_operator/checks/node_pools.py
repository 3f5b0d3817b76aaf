"""Whether there are nodes for a job's placements.

Compares what the operator would ask of nodes (`build.nodes`) with the nodes that are there: labels, taints, chips, and
whether enough of them form the slices. A pool that is scaled up from nothing has no nodes to be seen, so that none is
there is a warning where the placement's capacity comes on demand of a pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.tpu_topologies import ImpossibleShape, Shape, shape
from ratchet_api.validate import placement_shape
from ratchet_operator.build.nodes import NODE_POOL, node_selector, tolerations
from ratchet_operator.checks.finding import Finding, error, warning
from ratchet_operator.checks.gcloud import node_pool_command
from ratchet_operator.decide.observed_node import TAINT_MAINTENANCE, TAINT_TERMINATION

Raw = Mapping[str, Any]

ACCELERATOR, TOPOLOGY = "cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology"
COUNT = "cloud.google.com/gke-accelerator-count"
SLICE = (ACCELERATOR, TOPOLOGY, COUNT)
"""Labels that say what slice a TPU node belongs to, from the most telling on."""
PASSING = ("node.kubernetes.io/", TAINT_TERMINATION, TAINT_MAINTENANCE)
"""Taints that go away by themselves begin like this."""


def findings(spec: Spec, nodes: Iterable[Raw]) -> list[Finding]:
    """What is wrong with the nodes for this job; empty when every placement has its slices."""
    nodes = list(nodes)
    by_hosts = {(p.accelerator, p.topology) for p in spec.placements if p.hosts is not None}
    found = list(_contradictions(nodes, by_hosts))
    for placement in spec.placements:
        found += _of_placement(placement, nodes)
    return found


def _of_placement(placement: Placement, nodes: list[Raw]) -> Iterator[Finding]:
    about, wanted = f"placement {placement.name}", node_selector(placement)
    try:
        one = placement_shape(placement)
    except ImpossibleShape as impossible:
        yield error(about, str(impossible), f"correct {impossible.field}")
        return
    matching = [node for node in nodes if all(labels(node).get(key) == value for key, value in wanted.items())]
    if not matching:
        yield _none_matches(placement, wanted, nodes)
        return
    obstacles: dict[tuple[str, str], list[Raw]] = {}
    usable = []
    for node in matching:
        if (obstacle := _obstacle(node, placement, one)) is None:
            usable.append(node)
        else:
            obstacles.setdefault(obstacle, []).append(node)
    short = list(_too_few(placement, one, usable, matching)) if usable else []
    if short or not usable:  # what keeps from nodes that are not needed does not matter
        for (wrong, mend), there in obstacles.items():
            more = f" and {len(there) - 1} more" if len(there) > 1 else ""
            yield error(f"{about}, node {name(there[0])}{more}", wrong, mend)
    yield from short


def _none_matches(placement: Placement, wanted: dict[str, str], nodes: list[Raw]) -> Finding:
    """The label that keeps the nearest node from matching: the one with the fewest that differ."""
    about = f"placement {placement.name}"
    said = warning if placement.compute_class is not None or placement.capacity_type == "FlexStart" else error
    first = placement.accelerator
    if first is not None:
        nodes = [node for node in nodes if labels(node).get(ACCELERATOR) == first]
    if not nodes:
        wrong = f"no node has {ACCELERATOR}={first}" if first else "there are no nodes"
        return said(about, wrong, _make(placement))
    differences = [{key: value for key, value in wanted.items() if labels(node).get(key) != value} for node in nodes]
    fewest = min(differences, key=len)
    if TOPOLOGY in wanted and all(TOPOLOGY in missing for missing in differences):
        there = ", ".join(sorted({labels(node).get(TOPOLOGY, "none") for node in nodes}))
        wrong = f"no {first} node has topology {wanted[TOPOLOGY]} (label {TOPOLOGY}); there is {there}"
        return said(about, wrong, f"correct the placement's topology, or {_make(placement)}")
    differing = ", ".join(f"{key}={value}" for key, value in sorted(fewest.items()))
    wrong = f"no node has all labels that it selects; the nearest lacks {differing}"
    return said(about, wrong, f"correct the placement, or {_make(placement)}")


def _make(placement: Placement) -> str:
    command = node_pool_command(placement)
    if placement.compute_class is not None:
        return f"see that ComputeClass {placement.compute_class} exists and may make such nodes"
    return f"make a node pool: {command}" if command else "make such a node pool (docs/gke.md)"


def _obstacle(node: Raw, placement: Placement, one: Shape) -> tuple[str, str] | None:
    """Why the scheduler will not take a node whose labels match, and the way out."""
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not _tolerated(taint, placement):
            key = taint["key"]
            mend = (
                "wait until the node is well again"
                if key.startswith(PASSING)
                else "name it in the placement's tolerations"
            )
            return f"has the taint {key}={taint.get('value', '')}:{taint['effect']}", mend
    chips = int(((node.get("status") or {}).get("allocatable") or {}).get("google.com/tpu", 0))
    if chips < one.chips_per_node:
        wrong = f"offers {chips} of {one.chips_per_node} chips (google.com/tpu)"
        return wrong, "wait for the TPU device plugin, or look at its pod in kube-system"
    return None


def _tolerated(taint: Raw, placement: Placement) -> bool:
    for it in tolerations(placement):
        if it.get("effect") not in (None, "", taint["effect"]):
            continue
        if it.get("key") is not None and it["key"] != taint.get("key"):
            continue
        if it.get("operator") == "Exists" or it.get("value", "") == taint.get("value", ""):
            return it.get("tolerationSeconds") is None  # a node that is lost is left soon
    return False


def _too_few(placement: Placement, one: Shape, usable: list[Raw], matching: list[Raw]) -> Iterator[Finding]:
    about = f"placement {placement.name}"
    if placement.accelerator is None or one.hosts == 1:
        wanted = one.hosts * placement.slices
        if len(usable) < wanted:
            yield error(about, f"{len(usable)} of {wanted} nodes are there", "enlarge the node pool (--num-nodes)")
        return
    pools = by_pool(usable)
    whole = [pool for pool, members in pools.items() if len(members) >= one.hosts]
    for pool in sorted(set(pools) - set(whole)):
        wrong = f"{len(pools[pool])} of the {one.hosts} nodes of a slice {placement.topology} are there"
        if len(by_pool(matching)[pool]) >= one.hosts:
            wrong = f"{len(pools[pool])} of the {one.hosts} nodes of a slice {placement.topology} can be used"
        yield error(
            f"{about}, node pool {pool}",
            wrong,
            "wait until GKE has made all of them, a slice comes whole or not at all; a pool that was made with fewer "
            f"has to be made again with --num-nodes={one.hosts}",
        )
    if len(whole) < placement.slices and not set(pools) - set(whole):
        wrong = f"{len(whole)} of {placement.slices} node pools are there, and each slice needs one of its own"
        yield error(about, wrong, _make(placement))


def _contradictions(nodes: list[Raw], by_hosts: set[tuple[str | None, str | None]]) -> Iterator[Finding]:
    """Node pools whose labels say what cannot be, as far as the tables know: somebody has set them by hand, or the
    slice is newer than the tables. `by_hosts`: accelerators and topologies of placements that do not need the tables.
    """
    for pool, members in by_pool(nodes).items():
        said = {tuple(labels(node).get(key) for key in SLICE) for node in members if ACCELERATOR in labels(node)}
        about = f"node pool {pool}"
        if len(said) > 1:
            yield error(about, f"its nodes differ in {', '.join(SLICE)}", "make the pool again and leave them to GKE")
        for accelerator, topology, count in said if len(said) == 1 else ():
            chips = int(count) if count and count.isdecimal() else None
            try:
                one = shape(accelerator or "", topology or "", chips)
            except ImpossibleShape as impossible:
                if impossible.field == "topology" and not {(accelerator, topology), (accelerator, None)} & by_hosts:
                    wrong = f"its label {TOPOLOGY} is {topology}, which is not known here: {impossible}"
                    mend = (
                        "if somebody has set it by hand, make the pool again and leave its labels to GKE; for a slice "
                        "that is newer than this release, name hosts and chipsPerNode in the placement"
                    )
                    yield warning(about, wrong, mend)
                continue
            if 1 < one.hosts < len(members):
                wrong = f"its label {TOPOLOGY} is {topology}, which has {one.hosts} nodes; the pool has {len(members)}"
                yield error(about, wrong, "make the pool again with --tpu-topology, and leave its labels to GKE")


def by_pool(nodes: Iterable[Raw]) -> dict[str, list[Raw]]:
    """Nodes by the name of their pool; those of none are left out."""
    found: dict[str, list[Raw]] = {}
    for node in nodes:
        if pool := labels(node).get(NODE_POOL):
            found.setdefault(pool, []).append(node)
    return found


def labels(node: Raw) -> dict[str, str]:
    return (node.get("metadata") or {}).get("labels") or {}


def name(node: Raw) -> str:
    return str(node["metadata"]["name"])
