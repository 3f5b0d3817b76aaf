"""Where the checkpoints of a job in a cluster can be read from this machine, if they can.

Decides nothing but the place. A bucket is read where it is. A claim's volume is a folder of the node (hostPath), which
on a local cluster is this machine. Everything else is out of reach, and the error says how to get there.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ratchet_cli.kube import Kube, KubeError, Object, connect, jobs

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location


class NotHere(Exception):
    """The checkpoints cannot be read from here; `code` is the exit code of sysexits."""

    def __init__(self, message: str, code: int = os.EX_NOINPUT):
        super().__init__(message)
        self.code = code


def checkpoint_folder(job: str, namespace: str | None, context: str | None = None) -> Location:
    """The place that holds `checkpoint.directory` of a job: a bucket, or a folder of this machine. Raises NotHere."""
    try:
        with connect(namespace, context) as kube:
            return folder_of_job(kube, jobs.get(kube, job))
    except KubeError as error:
        raise NotHere(f"no file and no folder {job} here, and {error}", error.code) from None


def folder_of_job(kube: Kube, found: Object, way: str | None = None) -> Location:
    """The same for a job that was read already. `way`: what to do where it is out of reach. Raises NotHere and
    KubeError."""
    from ratchet_trainer.storage import Location

    checkpoint = found["spec"]["checkpoint"]
    directory, claim = checkpoint["directory"], checkpoint.get("claimName")
    namespace = found["metadata"]["namespace"]
    name = f"job {namespace}/{found['metadata']['name']}"
    way = (
        way or f"copy the folder samples from {directory} out of its volume, and run `ratchet samples FOLDER_AROUND_IT`"
    )
    if (place := Location.parse(directory)).on_bucket:
        return place
    if claim is None:
        if place.local.is_dir():
            return place
        raise NotHere(f"{name}: checkpoints are in {directory} of its pods, without a claim; {way}")
    volume = _get(kube, f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}", f"{name}: claim {claim}")
    volume_name = volume["spec"].get("volumeName")
    if not volume_name:
        raise NotHere(f"{name}: claim {claim} is not bound to a volume yet, so nothing was written")
    spec = _get(kube, f"/api/v1/persistentvolumes/{volume_name}", f"{name}: volume {volume_name}")["spec"]
    if "hostPath" in spec:
        here = Path(spec["hostPath"]["path"], *PurePosixPath(directory).parts[2:])  # mounted at the first component
        if here.is_dir():
            return Location.parse(here)
    raise NotHere(f"{name}: its volume {volume_name} is not on this machine; {way}")


def _get(kube: Kube, path: str, about: str) -> Object:
    try:
        return kube.get(path)
    except KubeError as error:
        raise NotHere(f"{about}: {error}", error.code) from None
