"""What is asked of a cluster, and which checks look at the answers.

Decides the order of questions: where one has no answer, what depends on it is not asked, and the reason is one line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from ratchet_api.crd import crd
from ratchet_api.job import GROUP, KIND, PLURAL, VERSION
from ratchet_api.protocol import LABEL_NOTICE_SECONDS, SPOT_GRACE_SECONDS
from ratchet_cli.doctor.ask import FORBIDDEN, NOT_FOUND, UNAUTHORIZED, UNKNOWN_KIND, Cluster, Raw, Unanswered
from ratchet_cli.doctor.check import Check, checks_of, error, ok, warning
from ratchet_operator.build.nodes import FLEX_START, SPOT
from ratchet_operator.checks import installation, rights, running
from ratchet_operator.checks.node_pools import ACCELERATOR, TOPOLOGY, by_pool, labels

API, OPERATOR, NODES, RIGHTS = "cluster", "operator", "nodes", "rights"
SELECTOR = "--selector=app.kubernetes.io/name=ratchet"
JOBSET_SELECTOR = "--selector=control-plane=controller-manager,app.kubernetes.io/name=jobset"


def checks(cluster: Cluster, namespace: str) -> tuple[list[Check], bool]:
    """Of the whole cluster, and whether it answers at all."""
    reach = reachable(cluster)
    if reach[-1].state == "error":
        return reach, False
    found = reach + kinds(cluster) + jobset(cluster) + operator(cluster)
    return found + pools(cluster) + caller(cluster, namespace), True


def reachable(cluster: Cluster) -> list[Check]:
    """Which context, and does its API server answer."""
    try:
        contexts = set(Cluster().run("config", "get-contexts", "--output=name").split())
        current = cluster.context or Cluster().run("config", "current-context").strip()
    except Unanswered:
        mend = (
            "gcloud container clusters get-credentials CLUSTER --location=LOCATION; a local cluster: "
            'eval "$(ratchet cluster env)"; without a cluster: ratchet doctor --local'
        )
        return [error(API, "context", "the kubeconfig names no current context", mend)]
    if current not in contexts:
        there = ", ".join(sorted(contexts)) or "none"
        mend = "name one of them with --context, or kubectl config use-context NAME"
        return [error(API, "context", f"the kubeconfig has no context {current}; there is {there}", mend)]
    try:
        version = json.loads(cluster.run("get", "--raw", "/version"))
    except Unanswered as problem:
        if problem.kind == UNAUTHORIZED:
            mend = "gcloud container clusters get-credentials CLUSTER --location=LOCATION, or log in again"
            return [error(API, f"context {current}", f"the API server does not know you: {problem}", mend)]
        if problem.kind != FORBIDDEN:
            mend = "see that it runs and can be reached from here, or take another --context: kubectl cluster-info"
            return [error(API, f"context {current}", f"no API server answers: {problem}", mend)]
        version = {"gitVersion": "version not known"}
    return [ok(API, f"context {current}", f"Kubernetes {version.get('gitVersion', '')} answers")]


def kinds(cluster: Cluster) -> list[Check]:
    """The two kinds, and whether ours is this program's."""
    names = [name for _, name, _, _ in installation.NEEDED]
    try:
        definitions = [one for name in names if (one := _perhaps(cluster, "crd", name)) is not None]
    except Unanswered as problem:
        if problem.kind == FORBIDDEN:
            return _served(cluster)
        return [error(API, "kinds", f"they cannot be read: {problem}", "kubectl get crd")]
    found = checks_of(API, installation.findings(definitions), "kinds", "JobSet and RLTrainingJob are served")
    ours = next((d for d in definitions if d["metadata"]["name"] == f"{PLURAL}.{GROUP}"), None)
    if ours is not None:
        well = f"{VERSION} is this program's, field by field"
        found += checks_of(API, installation.differences(ours, crd()), f"kind {KIND}", well)
    return found


def _served(cluster: Cluster) -> list[Check]:
    """Without the right to read definitions: what the API server says that it serves, which everybody may ask."""
    found = []
    for kind, name, version, how in installation.NEEDED:
        group = name.partition(".")[2]
        try:
            cluster.run("get", "--raw", f"/apis/{group}/{version}")
            said = f"{version} is served; whether it is this program's cannot be seen without the right to get crd"
            found.append(ok(API, f"kind {kind}", said))
        except Unanswered:
            found.append(error(API, f"kind {kind}", f"the API server does not serve {group}/{version}", how))
    return found


def _perhaps(cluster: Cluster, *what: str) -> Raw | None:
    """An object; None where there is none. Raises Unanswered for any other reason."""
    try:
        return cluster.get(*what)
    except Unanswered as problem:
        if problem.kind in (NOT_FOUND, UNKNOWN_KIND):
            return None
        raise


def jobset(cluster: Cluster) -> list[Check]:
    """The controller of JobSets, where it runs as a Deployment of the usual labels."""
    try:
        found = cluster.items("deployments", "--all-namespaces", JOBSET_SELECTOR)
    except Unanswered:
        return []
    if not found:
        return []  # it may run elsewhere, as on the local cluster
    version = running.version_of(found[0]) or "version not known"
    place = found[0]["metadata"]["namespace"]
    if not (found[0].get("status") or {}).get("readyReplicas"):
        said = f"{version}: none of its pods is ready, so no attempt gets pods"
        return [error(API, "JobSet controller", said, f"kubectl get pods --namespace {place}")]
    return [ok(API, "JobSet controller", f"{version} is ready in {place}")]


def operator(cluster: Cluster) -> list[Check]:
    """Is one at work, and is it of this version."""
    version = metadata.version("ratchet-rl")
    asked: dict[str, list[Raw]] = {}
    for kind in ("deployments", "pods"):
        try:
            asked[kind] = cluster.items(kind, "--all-namespaces", SELECTOR)
        except Unanswered as problem:
            mend = "ask somebody who may: kubectl get deployments,pods --all-namespaces " + SELECTOR
            return [warning(OPERATOR, "operator", f"it cannot be looked at: {problem}", mend)]
    try:
        chosen = f"--field-selector=metadata.name={running.LEASE}"
        leases = cluster.items("leases", "--all-namespaces", chosen)
    except Unanswered as problem:
        return [warning(OPERATOR, "operator", f"its Lease cannot be read: {problem}", "ask somebody who may")]
    found = running.findings(asked["deployments"], asked["pods"], leases, version, datetime.now(UTC))
    places = ", ".join(sorted({d["metadata"]["namespace"] for d in asked["deployments"]})) or "outside the cluster"
    checks = checks_of(OPERATOR, found, "operator", f"version {version} works in {places}, its Lease is fresh")
    return checks + [check for one in asked["deployments"] for check in _its_rights(cluster, one)]


def _its_rights(cluster: Cluster, deployment: Raw) -> list[Check]:
    """Whether its service account may do what it does, where the caller may ask that."""
    place, spec = deployment["metadata"]["namespace"], deployment["spec"]["template"]["spec"]
    account = spec.get("serviceAccountName") or "default"
    about = f"service account {place}/{account}"
    watched = _watched(spec)
    found: list[Check] = []
    for namespace in watched or [place]:
        user = f"system:serviceaccount:{place}:{account}"
        try:
            allowed = _allowed(cluster, rights.OPERATOR, namespace if watched else None, user)
        except Unanswered as problem:
            mend = f"ask somebody who may: kubectl auth can-i --list --as={user} --namespace {namespace}"
            return [warning(RIGHTS, about, f"what it may do cannot be asked: {problem}", mend)]
        where = namespace if watched else "all"
        mend = rights.GIVE_OPERATOR.format(namespace=place)
        findings = rights.findings(about, rights.OPERATOR, allowed, mend, where)
        found += checks_of(RIGHTS, findings, about, f"may do all that the operator does (namespaces: {where})")
    return found


def _watched(pod: Raw) -> list[str]:
    """The namespaces that the chart has told the operator to watch; none: all."""
    env = {e["name"]: e.get("value") or "" for c in pod["containers"] for e in c.get("env") or ()}
    return [name for name in env.get("RATCHET_WATCH_NAMESPACES", "").split(",") if name]


def caller(cluster: Cluster, namespace: str) -> list[Check]:
    """What the one who asks may do in the namespace of the jobs."""
    try:
        allowed = _allowed(cluster, rights.USER, namespace, None)
    except Unanswered as problem:
        mend = f"kubectl auth can-i --list --namespace {namespace}"
        return [warning(RIGHTS, "you", f"what you may do cannot be asked: {problem}", mend)]
    found = rights.findings("you", rights.USER, allowed, rights.GIVE_USER.format(namespace=namespace), namespace)
    return checks_of(RIGHTS, found, "you", f"may make, change and watch jobs in namespace {namespace}")


def _allowed(
    cluster: Cluster, asked: tuple[rights.Right, ...], namespace: str | None, user: str | None
) -> dict[rights.Right, bool]:
    """Raises Unanswered."""
    specs: list[dict[str, Any]] = []
    for right in asked:
        resource, _, sub = right.resource.partition("/")
        attributes = {"verb": right.verb, "group": right.group, "resource": resource}
        if sub:
            attributes["subresource"] = sub
        if namespace is not None and resource != "nodes":
            attributes["namespace"] = namespace
        specs.append({"resourceAttributes": attributes} | ({"user": user} if user else {}))
    kind = "SubjectAccessReview" if user else "SelfSubjectAccessReview"
    return dict(zip(asked, cluster.review(specs, kind), strict=True))


def pools(cluster: Cluster) -> list[Check]:
    """What TPU slices there are, one line a node pool; what a job needs of them is looked at with its manifest."""
    try:
        nodes = cluster.items("nodes")
    except Unanswered as problem:
        mend = (
            "have an administrator allow it: kubectl create clusterrole node-viewer --verb=get,list --resource=nodes "
            "&& kubectl create clusterrolebinding node-viewer --clusterrole=node-viewer --user=NAME"
        )
        return [warning(NODES, "nodes", f"they cannot be listed: {problem}", mend)]
    tpus = [node for node in nodes if ACCELERATOR in labels(node)]
    if not tpus:
        mend = "jobs on CPUs run; for TPUs make a node pool (docs/gke.md), and see `ratchet doctor FILE`"
        return [warning(NODES, "TPU node pools", "no node has a TPU now; pools may be scaled to nothing", mend)]
    by_name = by_pool(tpus)
    lost = [node for node in tpus if node not in [n for members in by_name.values() for n in members]]
    found = [_pool(name, members) for name, members in sorted(by_name.items())]
    if lost:
        mend = "leave the labels of GKE's node pools as they are"
        found.append(warning(NODES, "TPU nodes", f"{len(lost)} belong to no node pool by their labels", mend))
    return found


def _pool(name: str, members: Sequence[Mapping[str, Any]]) -> Check:
    said = labels(members[0])
    kind = "spot" if said.get(SPOT) == "true" else "flex-start" if said.get(FLEX_START) == "true" else "on demand"
    grace = said.get(LABEL_NOTICE_SECONDS, str(SPOT_GRACE_SECONDS))
    notice = f", pods get {grace} s when it goes" if kind == "spot" else ""
    words = f"{said[ACCELERATOR]} {said.get(TOPOLOGY, '')}, {len(members)} nodes, {kind}{notice}"
    unready = [n["metadata"]["name"] for n in members if not _ready(n)]
    taints = sorted({t["key"] for n in members for t in (n.get("spec") or {}).get("taints") or ()} - _usual())
    if unready:
        mend = f"wait until they are well again: kubectl describe node {unready[0]}"
        return warning(NODES, f"node pool {name}", f"{words}; not ready: {', '.join(unready)}", mend)
    if taints:
        mend = "where they stay, name them in a placement's tolerations"
        return warning(NODES, f"node pool {name}", f"{words}; taints {', '.join(taints)}", mend)
    return ok(NODES, f"node pool {name}", words)


def _usual() -> set[str]:
    """Taints that every job of the capacity tolerates."""
    return {"google.com/tpu", SPOT, FLEX_START}


def _ready(node: Mapping[str, Any]) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
