"""What there is of a run, from wherever it can be had: plain data, and in words what is missing.

Decides where is looked and what is said when nothing is there. A run is a job in a cluster (its object, its events), a
checkpoint folder (metrics, ledger, journal, samples), or both. Whatever cannot be read is a note for the section of the
page that would have shown it; only where there is nothing at all the command fails.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet_api.job import API_VERSION, KIND, NAME_PATTERN
from ratchet_cli.cluster_files import NotHere, folder_of_job
from ratchet_cli.ending import unreadable
from ratchet_cli.kube import KubeError, connect, jobs
from ratchet_cli.manifests import fail, read_job
from ratchet_cli.report import folder_files
from ratchet_cli.report.folder_files import FolderFiles

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

DEFAULT_FOLDER = Path(".ratchet")
CLUSTER, FOLDER, MANIFEST = "cluster", "folder", "manifest"


@dataclass
class Sources:
    """All that was found of a run."""

    name: str
    namespace: str | None = None
    manifest: dict[str, Any] | None = None
    manifest_from: str = ""
    job: dict[str, Any] | None = None
    """The object of the cluster, status included."""
    events: list[dict[str, Any]] = field(default_factory=list)
    place: str | None = None
    """Where the checkpoints are."""
    files: FolderFiles = field(default_factory=FolderFiles)
    context: str | None = None
    """Of the kubeconfig; None: the current one."""
    missing: dict[str, str] = field(default_factory=dict)
    """CLUSTER, FOLDER or MANIFEST -> why it is not there, and what to do."""


def gather(job: str, workdir: Path | None, namespace: str | None, context: str | None = None) -> Sources:
    """Everything about what JOB|FILE names. Exits as `ratchet samples` does where there is nothing."""
    from ratchet_trainer.errors import ConfigurationInvalid
    from ratchet_trainer.storage import Location

    if "://" in job:
        try:
            return of_folder(Location.parse(job))
        except ConfigurationInvalid as error:
            fail(os.EX_USAGE, str(error))
    if Path(job).is_dir():
        return of_folder(Location.parse(Path(job)))
    if job == "-" or Path(job).exists() or not re.fullmatch(NAME_PATTERN, job):
        return _of_manifest(job, workdir, namespace, context)
    return _of_job(job, workdir, namespace, context)


def of_folder(place: Location) -> Sources:
    """A working folder of `ratchet train`, or a folder of checkpoints. Exits with 66 where it holds no run."""
    found = Sources(place.name or str(place))
    found.missing[CLUSTER] = "no cluster was asked; name the job instead of the folder to have its status and events"
    _read_folder(found, place)
    if not found.files.anything:
        why = found.missing.get(FOLDER) or f"{place}: holds no run"
        fail(os.EX_NOINPUT, f"{why}; name the folder of `ratchet train` or of checkpoints, or a job")
    if (owner := found.files.owner) is not None:
        found.name, found.namespace = owner["name"], owner["namespace"]
    _take_manifest_of_folder(found)
    return found


def _of_manifest(file: str, workdir: Path | None, namespace: str | None, context: str | None) -> Sources:
    from ratchet_trainer.storage import Location

    manifest, _ = read_job(file)
    meta = manifest["metadata"]
    found = Sources(meta["name"], namespace or meta.get("namespace"), manifest, file, context=context)
    folder = workdir or DEFAULT_FOLDER / found.name
    if folder.is_dir():
        found.missing[CLUSTER] = "no cluster was asked; name the job instead of the file to have its status and events"
        _read_folder(found, Location.parse(folder))
        if found.files.anything:
            return found
    elif workdir is not None:
        fail(os.EX_NOINPUT, f"{workdir}: no such folder; name that of `ratchet train`, or leave --workdir out")
    here = f"{folder}: {'holds no run' if folder.is_dir() else 'no such folder'}; run `ratchet train {file}` here"
    try:
        _ask_cluster(found, found.name)
    except KubeError as error:
        fail(error.code, f"{here}, or apply it to a cluster: {error}")
    found.missing.pop(CLUSTER, None)
    _read_folder_of_job(found)
    return found


def _of_job(name: str, workdir: Path | None, namespace: str | None, context: str | None) -> Sources:
    from ratchet_trainer.storage import Location

    found = Sources(name, namespace, context=context)
    try:
        _ask_cluster(found, name)
    except KubeError as error:
        if workdir is None:
            hint = "; where its folder is left, name it with --workdir" if error.code == os.EX_NOINPUT else ""
            fail(error.code, f"no file and no folder {name} here, and {error}{hint}")
        found.missing[CLUSTER] = str(error)
    if workdir is None:
        _read_folder_of_job(found)
        return found
    if not workdir.is_dir():
        fail(os.EX_NOINPUT, f"{workdir}: no such folder; name one, or leave --workdir out")
    _read_folder(found, Location.parse(workdir))
    if found.job is None and not found.files.anything:
        fail(os.EX_NOINPUT, f"{found.missing.get(FOLDER, workdir)}; and of the cluster: {found.missing[CLUSTER]}")
    _take_manifest_of_folder(found)
    return found


def _ask_cluster(found: Sources, name: str) -> None:
    """The job and its events. Raises KubeError."""
    with connect(found.namespace, found.context) as kube:
        job = jobs.get(kube, name)
        found.job, found.namespace = job, job["metadata"]["namespace"]
        found.manifest, found.manifest_from = manifest_of(job), "the cluster"
        chosen = f"involvedObject.kind={KIND},involvedObject.name={name}"
        try:
            events = kube.list(f"/api/v1/namespaces/{found.namespace}/events", fieldSelector=chosen)
            found.events = sorted(events, key=lambda event: str(event.get("lastTimestamp") or ""))
        except KubeError as error:
            found.missing["events"] = f"events: {error}"


def manifest_of(job: dict[str, Any]) -> dict[str, Any]:
    """What the user asked for: without status and what the API server adds."""
    kept = {key: job["metadata"][key] for key in ("name", "namespace", "labels") if key in job["metadata"]}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": kept, "spec": job["spec"]}


def _read_folder_of_job(found: Sources) -> None:
    assert found.job is not None
    way = "copy it out of the volume and name the copy with --workdir"
    try:
        with connect(found.namespace, found.context) as kube:
            place = folder_of_job(kube, found.job, way)
    except (NotHere, KubeError) as error:
        found.missing[FOLDER] = str(error)
        return
    _read_folder(found, place)


def _read_folder(found: Sources, place: Location) -> None:
    from ratchet_trainer.errors import TrainerError

    try:
        found.place, found.files = folder_files.read(place)
    except (OSError, TrainerError) as error:
        found.missing[FOLDER] = f"{place}: cannot be read: {unreadable(error)}"
        return
    if not found.files.anything:
        found.missing[FOLDER] = f"{found.place}: no metrics, no ledger, no journal and no samples in it"


def _take_manifest_of_folder(found: Sources) -> None:
    if found.manifest is None and (spec := found.files.spec) is not None:
        meta = {"name": found.name} | ({"namespace": found.namespace} if found.namespace else {})
        found.manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "spec": spec}
        found.manifest_from = "the folder, with all defaults"
    elif found.manifest is None:
        found.missing[MANIFEST] = "the folder has no manifest; name the job or the manifest's file instead"


def spec_of(found: Sources) -> dict[str, Any]:
    """The spec, empty where there is none."""
    return (found.manifest or {}).get("spec") or {}
