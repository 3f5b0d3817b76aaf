"""Names and numbers that operator and trainer must agree on: labels, files, variables, exit codes, limits.

The documents that pass between them are typed in `documents`. Both sides import these two and nothing of each other.
"""

from __future__ import annotations

from enum import IntEnum

V = 1
"""Version that `/progress`, stage gate, journal and termination message carry."""

PORT = 8490
"""Port of the leader's `/progress` and `/healthz`. Not one of libtpu's: 8080 and 8081 are Megascale's, 8431
and the ones after it its metrics, 8470 to 8479 connect the chips of a slice."""

METRICS_PORT = 8491
"""Port of every process's `/metrics`: one of its own, so that a network policy can open it to Prometheus alone."""

COORDINATOR_PORT = 8482
"""Port of the JAX coordinator on the leader."""

LABEL_JOB = "ratchet.dev/job-name"
LABEL_ATTEMPT = "ratchet.dev/attempt"
LABEL_JOB_UID = "ratchet.dev/job-uid"
LABEL_WORKER = "ratchet.dev/worker"
"""Number of a worker of the rollout fleet. Its objects have this label and the next one instead of LABEL_ATTEMPT, so
whoever looks for trainers by attempt never meets a worker."""
LABEL_WORKER_ATTEMPT = "ratchet.dev/worker-attempt"
LABEL_JOBSET_UID = "jobset.sigs.k8s.io/jobset-uid"
ANNOTATION_STAGE_GATE = "ratchet.dev/word"

REPLICATED_JOB = "s"
"""Name of the replicated job of an attempt; several pinned slices are s0, s1, ..."""

JOB_FILE = "/etc/ratchet/job/job.json"
"""The attempt's ConfigMap: a `documents.JobFile`."""

STAGE_GATE_FILE = "/etc/ratchet/word/word"
"""The leader's annotation `ratchet.dev/word`, a `documents.StageGate`, from a downward-API volume."""

ENV_NAMESPACE = "RATCHET_NAMESPACE"
ENV_JOB_NAME = "RATCHET_JOB_NAME"
ENV_JOB_UID = "RATCHET_JOB_UID"
ENV_ATTEMPT = "RATCHET_ATTEMPT"
ENV_WORKER = "RATCHET_WORKER"
"""Number of the worker; absent in trainers. ENV_ATTEMPT is then the number of the worker's own JobSet."""
ENV_JOBSET_UID = "RATCHET_JOBSET_UID"
ENV_LAST_STEP = "RATCHET_LAST_STEP"
ENV_PROCESSES = "RATCHET_PROCESSES"
"""Number of processes (pods) of the attempt."""
ENV_PROCESS = "RATCHET_PROCESS"
"""Global index of this process; absent on Kubernetes, where it follows from slice and completion index."""
ENV_COORDINATOR = "RATCHET_COORDINATOR"
"""host:port of the JAX coordinator; absent for one process."""
ENV_SLICE = "RATCHET_SLICE"
"""Index of the slice (job index) that this pod belongs to."""
ENV_HOSTS_PER_SLICE = "RATCHET_HOSTS_PER_SLICE"
ENV_PLATFORM = "RATCHET_PLATFORM"
"""What JAX must run on, `tpu` or `cpu`; absent: whatever is there."""
ENV_DEVICES_PER_PROCESS = "RATCHET_DEVICES_PER_PROCESS"
"""JAX devices of each process; absent: whatever is there."""
ENV_SLICES = "RATCHET_SLICES"
"""TPU slices of the attempt; absent: whatever is there."""
ENV_GRACE_SECONDS = "RATCHET_GRACE_SECONDS"
"""Seconds from SIGTERM to SIGKILL, at least; SPOT_GRACE_SECONDS where it is not said."""
ENV_POD_IP = "RATCHET_POD_IP"
"""Address that the process's servers listen on; status.podIP on Kubernetes, else 127.0.0.1."""
ENV_JOB_FILE = "RATCHET_JOB_FILE"
"""Replaces JOB_FILE outside Kubernetes."""
ENV_STAGE_GATE_FILE = "RATCHET_WORD_FILE"
"""Replaces STAGE_GATE_FILE outside Kubernetes."""

BUDGET_SPENT = "BudgetSpent"
"""Reason of the termination message of a trainer that leaves because its stage may sample no more."""
NO_WORKERS = "NoWorkers"
"""The same of a trainer that leaves because too few workers of its fleet were there for spec.rollouts.waitSeconds."""

SPOT_GRACE_SECONDS = 15
"""What a spot node that is taken away leaves a pod, whatever its terminationGracePeriodSeconds."""

LABEL_NOTICE_SECONDS = "ratchet.dev/notice-seconds"
"""Label of nodes whose kubelet gives ordinary pods longer than that: the whole number of seconds, of
shutdownGracePeriodSeconds less shutdownGracePeriodCriticalPodsSeconds in the node pool's system configuration."""
TERMINATION_MESSAGE_LIMIT = 4096
PROGRESS_LIMIT = 64 * 1024
STAGE_GATE_LIMIT = 48 * 1024
BOUNDARY_WAIT_SECONDS = 60
"""How long a trainer waits at the stage gate before it leaves with 75."""


class Exit(IntEnum):
    """Exit codes of the trainer (the command line's own codes are another list)."""

    DONE = 0
    CONFIGURATION_INVALID = 64
    DETERMINISTIC_FAILURE = 65
    PEER_LOST = 69
    INTERNAL = 70
    HUNG = 71
    ACCELERATOR_UNAVAILABLE = 72
    FENCED = 73
    STORAGE_UNAVAILABLE = 74
    DRAINED = 75
    CHECKPOINT_UNREADABLE = 77


PROGRESS_PHASES = (
    "start",
    "restore",
    "compile",
    "generate",
    "await",
    "verify",
    "update",
    "evaluate",
    "save",
    "boundary",
    "drain",
    "done",
)

SLOW_PHASES = ("start", "restore", "compile")
"""Phases that may take SLOW_PHASE_SECONDS without a sign of life, whatever `restart.progressDeadlineSeconds` says."""
SLOW_PHASE_SECONDS = 3600
