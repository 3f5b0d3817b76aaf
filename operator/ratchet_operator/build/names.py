"""Names, labels and ownership of what belongs to an attempt."""

from __future__ import annotations

from typing import Any

from ratchet_api.job import API_VERSION, KIND
from ratchet_api.protocol import COORDINATOR_PORT, LABEL_ATTEMPT, LABEL_JOB, LABEL_JOB_UID, REPLICATED_JOB


def jobset_name(job: str, number: int) -> str:
    return f"{job}-a{number}"


def config_map_name(job: str, number: int) -> str:
    return f"{jobset_name(job, number)}-job"


def leader_host(job: str, number: int) -> str:
    """Name of the leader's host: completion index 0 of job index 0, by the JobSet's headless service."""
    jobset = jobset_name(job, number)
    return f"{jobset}-{REPLICATED_JOB}-0-0.{jobset}"


def coordinator(job: str, number: int) -> str:
    """host:port of the JAX coordinator on the leader."""
    return f"{leader_host(job, number)}:{COORDINATOR_PORT}"


def labels(job: dict[str, Any], number: int) -> dict[str, str]:
    meta = job["metadata"]
    return {LABEL_JOB: meta["name"], LABEL_ATTEMPT: str(number), LABEL_JOB_UID: meta["uid"]}


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
