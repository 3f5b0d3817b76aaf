"""What one manifest needs of a cluster: nodes, queue, objects in its namespace, the bucket of its checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from ratchet_api.job import Spec
from ratchet_cli.doctor.ask import FORBIDDEN, NOT_FOUND, UNKNOWN_KIND, Cluster, Raw, Unanswered
from ratchet_cli.doctor.check import Check, checks_of, error, ok, warning
from ratchet_operator.checks import buckets, node_pools, objects, queues

AREA = "manifest"


def checks(cluster: Cluster, spec: Spec, namespace: str) -> list[Check]:
    """Everything that the manifest names, looked for in the cluster."""
    nodes: list[Raw] | None = None
    found: list[Check] = []
    try:
        nodes = cluster.items("nodes")
        names = ", ".join(p.name for p in spec.placements)
        found += checks_of(AREA, node_pools.findings(spec, nodes), "placements", f"there are nodes for {names}")
    except Unanswered as problem:
        mend = "ask somebody who may list nodes to run this"
        found.append(warning(AREA, "placements", f"nodes cannot be listed: {problem}", mend))
    return (
        found
        + _queue(cluster, spec, namespace)
        + _objects(cluster, spec, namespace)
        + bucket(spec, namespace, cluster, nodes or [])
    )


def _queue(cluster: Cluster, spec: Spec, namespace: str) -> list[Check]:
    queue = spec.job_set_template.labels.get(queues.LABEL)
    if queue is None:
        return []
    local: list[Raw] | None
    try:
        local = cluster.items("localqueues.kueue.x-k8s.io", "--namespace", namespace)
        above = cluster.items("clusterqueues.kueue.x-k8s.io")
    except Unanswered as problem:
        if problem.kind != UNKNOWN_KIND:
            mend = f"kubectl get localqueues --namespace {namespace}"
            return [warning(AREA, f"queue {queue}", f"it cannot be looked at: {problem}", mend)]
        local, above = None, []
    found = queues.findings(queue, namespace, local, above)
    return checks_of(AREA, found, f"queue {queue}", "it is there, and its ClusterQueue takes jobs")


def _objects(cluster: Cluster, spec: Spec, namespace: str) -> list[Check]:
    there: dict[objects.Name, Raw | None] = {}
    found: list[Check] = []
    for kind, name in objects.named(spec):
        if kind == "secret":
            there[kind, name] = {}  # nobody needs the right to read secrets for this: only whether it is there
            try:
                cluster.run("get", kind, name, "--namespace", namespace, "-o", "name")
            except Unanswered as problem:
                if problem.kind == NOT_FOUND:
                    there[kind, name] = None
                else:
                    del there[kind, name]
                    mend = f"kubectl get secret {name} --namespace {namespace}"
                    found.append(warning(AREA, f"secret {name}", f"it cannot be looked at: {problem}", mend))
            continue
        try:
            there[kind, name] = cluster.get(kind, name, "--namespace", namespace)
        except Unanswered as problem:
            if problem.kind == NOT_FOUND:
                there[kind, name] = None
                continue
            said = "you may not look at it" if problem.kind == FORBIDDEN else str(problem)
            found.append(warning(AREA, f"{kind} {name}", said, f"kubectl get {kind} {name} --namespace {namespace}"))
    names = ", ".join(name for _, name in there)
    return found + checks_of(AREA, objects.findings(spec, namespace, there), f"namespace {namespace}", f"has {names}")


def bucket(spec: Spec, namespace: str, cluster: Cluster | None, nodes: list[Raw]) -> list[Check]:
    """Whether the place of checkpoints can be reached: from here with your rights, and by the pods as far as the
    cluster tells."""
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.storage import Location

    directory = spec.checkpoint.directory
    try:
        place = Location.parse(directory)
    except TrainerError as problem:
        return [error(AREA, "checkpoints", str(problem), "correct spec.checkpoint.directory")]
    if not place.on_bucket:
        if spec.checkpoint.claim_name is None:
            said = f"{directory} is a folder of each pod, without a claim: it goes with the pod"
            mend = "name a claim (spec.checkpoint.claimName) or a bucket (directory: gs://BUCKET/NAME)"
            return [warning(AREA, "checkpoints", said, mend)]
        return []
    found = [_listed(place)]
    if cluster is not None and str(place).startswith("gs://"):
        found += _identity(str(place), spec, namespace, cluster, nodes)
    return found


def _listed(place: Any) -> Check:
    from ratchet_trainer import storage
    from ratchet_trainer.errors import TrainerError

    try:
        storage.names(place)
    except (OSError, TrainerError) as problem:
        mend = "see that it exists and that you may read it; on GCS: gcloud auth application-default login"
        return error(AREA, "checkpoints", f"{place} cannot be read from this machine: {problem}", mend)
    return ok(AREA, "checkpoints", f"{place} can be read from this machine, with your rights")


def _identity(place: str, spec: Spec, namespace: str, cluster: Cluster, nodes: list[Raw]) -> list[Check]:
    name = spec.pod_template.service_account_name or "default"
    manifest: Raw | None = None
    try:
        manifest = cluster.get("serviceaccount", name, "--namespace", namespace)
    except Unanswered as problem:
        if problem.kind != NOT_FOUND:
            mend = f"kubectl get serviceaccount {name} --namespace {namespace}"
            return [warning(AREA, f"service account {name}", f"it cannot be looked at: {problem}", mend)]
    bucket_name = place.removeprefix("gs://").partition("/")[0]
    location, note = _location(bucket_name)
    account = buckets.Account(namespace, name, manifest)
    found = buckets.findings(buckets.StorageLocation(bucket_name, location), account, nodes)
    well = "its service account is bound to a Google one"
    return note + checks_of(AREA, found, f"bucket {bucket_name}", well)


def _location(name: str) -> tuple[str, list[Check]]:
    """Where the bucket is; empty, with a line that says so, where gcloud cannot tell."""
    program = shutil.which("gcloud")
    mend = f"gcloud storage buckets describe gs://{name}"
    about = f"bucket {name}"
    if program is None:
        return "", [warning(AREA, about, "its region is not known here: there is no gcloud", mend)]
    command = [program, "storage", "buckets", "describe", f"gs://{name}", "--format=json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60)
        return str(json.loads(done.stdout)["location"]), []
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError):
        return "", [warning(AREA, about, "gcloud does not say where it is", mend)]
