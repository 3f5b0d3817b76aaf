"""The ends of logs that trainers left beside the checkpoints, for attempts whose pods are gone.

Decides only whether they can be read from this machine, as for `ratchet samples`: a bucket, or a claim's volume that is
a folder here.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_cli.cluster_files import NotHere, folder_of_job
from ratchet_cli.kube import Kube, KubeError, Object


def kept_logs(kube: Kube, job: Object, attempt: int, process: int) -> Iterator[tuple[str, list[str]]]:
    """(place, lines) of what is kept of a process of an attempt. Raises Unreadable."""
    try:
        from ratchet_trainer.errors import TrainerError
        from ratchet_trainer.process.kept_log import read
    except ImportError as error:  # the package without the trainer's extra
        raise Unreadable(f"{error.name} is not installed; pip install 'ratchet-rl[trainer]'") from None
    try:
        folder = folder_of_job(kube, job, WAY)
        found = read(folder, attempt, process)
    except (NotHere, KubeError, OSError, TrainerError) as error:
        raise Unreadable(str(error)) from None
    for place, data in found:
        yield str(place), data.decode(errors="replace").splitlines()


WAY = "look into the folder logs beside the checkpoints"


class Unreadable(Exception):
    """Kept logs cannot be read from here; the message says why."""
