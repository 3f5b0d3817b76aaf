"""What can go wrong, as one tree; the text of each is what the commands print."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ratchet_cli.ending import Ending, endings_raised
from ratchet_cli.kube import KubeError, NotFound


class RatchetError(Exception):
    """Base of all errors of this package."""


class InvalidJob(RatchetError):
    """A manifest that the API server would refuse. `problems`: one line for each thing that is wrong."""

    def __init__(self, problems: list[str]):
        super().__init__("\n".join(problems))
        self.problems = problems


class ClusterError(RatchetError):
    """The cluster cannot be reached, refuses, or lacks what is needed."""


class JobNotFound(ClusterError):
    """There is no job of that name."""


class JobFailed(RatchetError):
    """The job that is waited for has failed, so what is waited for will not come."""


class WaitTimeout(RatchetError, TimeoutError):
    """What is waited for has not come in time; the job goes on."""


class TrainingStopped(RatchetError):
    """Training on this machine has ended before the job was done. `code`: of sysexits, as `ratchet train` exits with;
    75 means that the same call goes on."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class ApprovalNeeded(TrainingStopped):
    """A stage has ended whose end needs an approval. `stage`: its name."""

    def __init__(self, message: str, code: int, stage: str):
        super().__init__(message, code)
        self.stage = stage


class NothingToRead(RatchetError):
    """Metrics or samples that are not there, or out of reach from this machine."""


@contextmanager
def cluster_errors() -> Iterator[None]:
    """Errors of the cluster as errors of this package."""
    try:
        yield
    except NotFound as error:
        raise JobNotFound(str(error)) from None
    except KubeError as error:
        raise ClusterError(str(error)) from None


@contextmanager
def endings_as(kind: type[RatchetError]) -> Iterator[None]:
    """The end of a command as an error; InvalidJob gets its lines as problems."""
    try:
        with endings_raised():
            yield
    except Ending as ending:
        raise InvalidJob(list(ending.lines)) if kind is InvalidJob else kind("\n".join(ending.lines)) from None
