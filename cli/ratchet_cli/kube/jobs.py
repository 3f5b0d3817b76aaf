"""RLTrainingJobs of a cluster: one by name, or all.

Decides what a command says where there is none of that name: names that are close, the namespace that is not there,
the kind that is not installed.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator

from ratchet_api.approvals import json_patch
from ratchet_api.kind import API_VERSION, GROUP, KIND, PLURAL, VERSION
from ratchet_cli.kube.ask import MERGE_PATCH, METADATA, Kube, Object
from ratchet_cli.kube.errors import INSTALL, KindMissing, KubeError, NotFound, Refused
from ratchet_cli.kube.parts import at, each, text

PREFIXES = ("rlj", KIND.lower(), PLURAL, f"{KIND.lower()}.{GROUP}", f"{PLURAL}.{GROUP}")
"""What may stand before a name and a slash, as kubectl prints it."""
CONFLICT, TRIES = 409, 10


def path(namespace: str | None, name: str | None = None) -> str:
    """The collection of a namespace (None: of all), or one job."""
    scope = f"/namespaces/{namespace}" if namespace is not None else ""
    return f"/apis/{API_VERSION}{scope}/{PLURAL}" + (f"/{name}" if name is not None else "")


def bare(name: str) -> str:
    """`sums` of `sums` and of `rltrainingjob.ratchet.dev/sums`."""
    kind, slash, rest = name.partition("/")
    return rest if slash and kind in PREFIXES else name


def get(kube: Kube, name: str) -> Object:
    """The job. Raises NotFound with close names, KubeError."""
    name = bare(name)
    if not name or "/" in name or not name.isprintable() or name.startswith("."):
        raise NotFound(f"{name!r} is no name of a job; `ratchet status` lists those that there are", os.EX_NOINPUT)
    try:
        return kube.get(path(kube.namespace, name))
    except KindMissing as error:
        raise _not_installed(kube, error) from None
    except NotFound as error:
        raise NotFound(_not_there(kube, name), error.status) from None


def every(kube: Kube, *, all_namespaces: bool = False, selector: str | None = None) -> Iterator[Object]:
    """All jobs of the namespace, or of all of them, as they come. Raises NotFound for a namespace that does not exist,
    KubeError."""
    query: dict[str, str | int] = {"labelSelector": selector} if selector else {}
    none = True
    try:
        for page in kube.pages(path(None if all_namespaces else kube.namespace), query):
            none = none and not page
            yield from page
    except KindMissing as error:
        raise _not_installed(kube, error) from None
    if none and not all_namespaces and (missing := _no_namespace(kube)):
        raise NotFound(missing, 404)


def approved(job: Object, stage: str) -> bool:
    """Whether the end of the stage is approved."""
    return any(text(entry, "stage") == stage for entry in each(job, "spec", "approvals"))


def approve(kube: Kube, job: Object, stage: str) -> Object:
    """The job with the approval added. What somebody else has changed since it was read is read again, so that of two
    approvals at once none is lost. Raises KubeError."""
    name = str(job["metadata"]["name"])
    for left in reversed(range(TRIES)):
        if approved(job, stage):
            break
        unchanged = {"op": "replace", "path": "/metadata/resourceVersion", "value": job["metadata"]["resourceVersion"]}
        try:
            after = kube.patch(path(kube.namespace, name), [unchanged, *json_patch(job["spec"], stage)])
            if not approved(after, stage):
                raise _dropped(kube, "spec.approvals")
            return after
        except Refused as error:
            if error.status != CONFLICT or not left:
                raise
        job = get(kube, name)
    return job


def suspend(kube: Kube, name: str, wanted: bool) -> Object:
    """The job with spec.suspend set. Raises KubeError."""
    job = kube.patch(path(kube.namespace, name), {"spec": {"suspend": wanted}}, MERGE_PATCH)
    if wanted and at(job, "spec", "suspend") is not True:
        raise _dropped(kube, "spec.suspend")
    return job


def _dropped(kube: Kube, field: str) -> KubeError:
    """An API server says nothing of a field that its definition does not have: it stores the rest."""
    return KubeError(f"{kube.place} has dropped {field}: its definition {PLURAL}.{GROUP} is older; {INSTALL}")


def names(kube: Kube) -> list[str]:
    """Names of the jobs of the namespace, without what they hold. Raises KubeError."""
    answer = kube.get(path(kube.namespace), seconds=5, accept=METADATA, limit=1000)
    return [name for item in answer.get("items") or () if (name := text(item, "metadata", "name"))]


def _not_installed(kube: Kube, error: KindMissing) -> KindMissing:
    return KindMissing(f"{kube.place} has no kind {PLURAL}.{GROUP} of version {VERSION}: {INSTALL}", error.status)


def _not_there(kube: Kube, name: str) -> str:
    if missing := _no_namespace(kube):
        return f"job {name}: {missing}"
    try:
        there = names(kube)
    except KubeError:
        return f"no job {name} in namespace {kube.namespace}"
    if close := difflib.get_close_matches(name, there, n=3, cutoff=0.5):
        return f"no job {name} in namespace {kube.namespace}; did you mean {' or '.join(close)}?"
    if elsewhere := _elsewhere(kube, name):
        return f"no job {name} in namespace {kube.namespace}; there is one in {', '.join(elsewhere)}: -n {elsewhere[0]}"
    some = f"it has {', '.join(sorted(there)[:5])}" + (", ..." if len(there) > 5 else "") if there else "it has none"
    return f"no job {name} in namespace {kube.namespace}; {some}; -n NAMESPACE names another one"


def _elsewhere(kube: Kube, name: str) -> list[str]:
    try:
        found = kube.get(path(None), seconds=5, accept=METADATA, fieldSelector=f"metadata.name={name}", limit=5)
    except KubeError:
        return []
    return [place for item in found.get("items") or () if (place := text(item, "metadata", "namespace"))]


def _no_namespace(kube: Kube) -> str | None:
    """Says that the namespace does not exist; None where it does, or where that may not be asked."""
    try:
        kube.get(f"/api/v1/namespaces/{kube.namespace}", seconds=5)
    except NotFound:
        try:
            known = [text(n, "metadata", "name") or "" for n in kube.list("/api/v1/namespaces", seconds=5)]
        except KubeError:
            known = []
        close = difflib.get_close_matches(kube.namespace, known, n=2, cutoff=0.5)
        meant = f"; did you mean {' or '.join(close)}?" if close else "; `kubectl get namespaces` lists them"
        return f"namespace {kube.namespace} does not exist{meant}"
    except KubeError:
        return None
    return None
