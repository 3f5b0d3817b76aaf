"""Names, labels and ownership of what belongs to an attempt."""

from __future__ import annotations

from typing import Any

from ratchet_api.job import API_VERSION, KIND
from ratchet_api.protocol import (
    COORDINATOR_PORT,
    LABEL_ATTEMPT,
    LABEL_JOB,
    LABEL_JOB_UID,
    LABEL_WORKER,
    LABEL_WORKER_ATTEMPT,
    REPLICATED_JOB,
)


def jobset_name(job: str, number: int, worker: int | None = None) -> str:
    """Of a trainer's attempt, or of a worker's."""
    return f"{job}-a{number}" if worker is None else f"{job}-w{worker}-a{number}"


def config_map_name(job: str, number: int, worker: int | None = None) -> str:
    return f"{jobset_name(job, number, worker)}-job"


def leader_host(jobset: str) -> str:
    """Name of the leader's host: completion index 0 of job index 0, by the JobSet's headless service."""
    return f"{jobset}-{REPLICATED_JOB}-0-0.{jobset}"


def coordinator(jobset: str) -> str:
    """host:port of the JAX coordinator on the leader."""
    return f"{leader_host(jobset)}:{COORDINATOR_PORT}"


def labels(job: dict[str, Any], number: int, worker: int | None = None) -> dict[str, str]:
    """Whose an object is. A worker's has no label of an attempt: it is none, and nothing that is asked of attempts
    (may it still write? why did it end?) is asked of it."""
    meta = job["metadata"]
    which = {LABEL_ATTEMPT: str(number)}
    if worker is not None:
        which = {LABEL_WORKER: str(worker), LABEL_WORKER_ATTEMPT: str(number)}
    return {LABEL_JOB: meta["name"], **which, LABEL_JOB_UID: meta["uid"]}


def owner(job: dict[str, Any]) -> dict[str, Any]:
    """The ownerReference to the job: what belongs to it goes with it, without a finalizer."""
    meta = job["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
