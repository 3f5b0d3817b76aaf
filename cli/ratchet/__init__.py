"""Ratchet in Python: build jobs, submit, watch and read them, or train them on this machine.

    import ratchet

    job = ratchet.load("examples/minimal.yaml")
    run = ratchet.train(job)                        # here
    ratchet.metrics(run)                            # a DataFrame where pandas is installed

    there = ratchet.submit(job, namespace="team")   # in the cluster of the kubeconfig
    there.wait("Completed", timeout=3600)

All errors are `RatchetError`s with the texts of the commands; a type of the spec that is given a wrong value raises
pydantic's ValidationError. Docs: docs/python.md.
"""

from ratchet import spec
from ratchet.cluster import Job, get, jobs, submit
from ratchet.errors import (
    ApprovalNeeded,
    ClusterError,
    InvalidJob,
    JobFailed,
    JobNotFound,
    NothingToRead,
    RatchetError,
    TrainingStopped,
    WaitTimeout,
)
from ratchet.local import Run, run_of, train
from ratchet.manifest import RLTrainingJob, load
from ratchet.reading import metrics, samples
from ratchet.spec import *  # noqa: F403

__all__ = [
    "ApprovalNeeded",
    "ClusterError",
    "InvalidJob",
    "Job",
    "JobFailed",
    "JobNotFound",
    "NothingToRead",
    "RLTrainingJob",
    "RatchetError",
    "Run",
    "TrainingStopped",
    "WaitTimeout",
    "get",
    "jobs",
    "load",
    "metrics",
    "run_of",
    "samples",
    "submit",
    "train",
]
__all__ += spec.__all__
