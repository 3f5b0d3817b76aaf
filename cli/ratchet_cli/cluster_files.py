"""Where the checkpoints of a job in a cluster can be read from this machine, if they can.

Decides nothing but the place. A bucket is read where it is. A claim's volume is a folder of the node (hostPath), which
on a local cluster is this machine. Everything else is out of reach, and the error says how to get there. kubectl is
asked, so the kubeconfig counts as everywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ratchet_api.job import API_VERSION

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location


class NotHere(Exception):
    """The checkpoints cannot be read from here; `code` is the exit code of sysexits."""

    def __init__(self, message: str, code: int = os.EX_NOINPUT):
        super().__init__(message)
        self.code = code


def checkpoint_folder(job: str, namespace: str | None) -> Location:
    """The place that holds `checkpoint.directory` of a job: a bucket, or a folder of this machine. Raises NotHere."""
    from ratchet_trainer.storage import Location

    scope = ["--namespace", namespace] if namespace else []
    found = get(
        f"rltrainingjobs.{API_VERSION.partition('/')[0]}/{job}", scope, f"no file and no folder {job} here, and"
    )
    checkpoint = found["spec"]["checkpoint"]
    directory, claim = checkpoint["directory"], checkpoint.get("claimName")
    name = f"job {found['metadata']['namespace']}/{job}"
    way = f"copy the folder samples from {directory} out of its volume, and run `ratchet samples FOLDER_AROUND_IT`"
    if (place := Location.parse(directory)).on_bucket:
        return place
    if claim is None:
        if place.local.is_dir():
            return place
        raise NotHere(f"{name}: checkpoints are in {directory} of its pods, without a claim; {way}")
    scope = ["--namespace", found["metadata"]["namespace"]]
    volume = get(f"persistentvolumeclaims/{claim}", scope, f"{name}: claim {claim}:")["spec"].get("volumeName")
    if not volume:
        raise NotHere(f"{name}: claim {claim} is not bound to a volume yet, so nothing was written")
    spec = get(f"persistentvolumes/{volume}", [], f"{name}: volume {volume}:")["spec"]
    if "hostPath" in spec:
        here = Path(spec["hostPath"]["path"], *PurePosixPath(directory).parts[2:])  # mounted at the first component
        if here.is_dir():
            return Location.parse(here)
    raise NotHere(f"{name}: its volume {volume} is not on this machine; {way}")


def kubectl(about: str) -> str:
    """The path of kubectl. Raises NotHere."""
    program = shutil.which("kubectl")
    if program is None:
        raise NotHere(
            f'{about} no kubectl to ask a cluster; eval "$(ratchet cluster env)" brings one', os.EX_UNAVAILABLE
        )
    return program


def get(what: str, scope: list[str], about: str) -> dict[str, Any]:
    """An object of the cluster. Raises NotHere."""
    program = kubectl(about)
    try:
        done = subprocess.run([program, "get", what, *scope, "-o", "json"], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        raise NotHere(f"{about} the cluster did not answer within 30 s", os.EX_UNAVAILABLE) from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["kubectl failed"])[-1]
        raise NotHere(f"{about} {said}", os.EX_NOINPUT if "NotFound" in said else os.EX_UNAVAILABLE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
