"""A worker process of the pool: `python -m ratchet_trainer.algorithm.verifiers.worker READ WRITE PARENT`.

Decides what surrounds a verifier: its memory is limited, what it prints is discarded, it dies with the trainer, and
whatever it throws becomes an answer. It gets a specification and then cases, one at a time (`frames`). JAX is never
imported here.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pickle
import resource
import signal
import sys
from dataclasses import asdict
from typing import Any

from ratchet_trainer.algorithm.outcome import NoOutcome, Outcome, anomaly
from ratchet_trainer.algorithm.verifiers.frames import REPLY_MAX, framed, read_frame, write_all
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid

PR_SET_PDEATHSIG = 1
EXTRACTED_MAX = 20_000
"""Characters of an extracted answer that are sent up."""


def main(read: int, write: int, parent: int) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    start = json.loads(read_frame(read) or b"{}")
    if not start:
        return
    limit = start["memoryMiB"] * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    me = os.getpid()

    def say(message: dict[str, Any]) -> None:
        if os.getpid() != me:
            os._exit(0)  # a child that a verifier forked and let come back
        body = json.dumps(message).encode()
        write_all(
            write, framed(body if len(body) <= REPLY_MAX else json.dumps({"crash": "its outcome is huge"}).encode())
        )

    from ratchet_trainer.algorithm.verifiers.registry import build

    try:
        verify = build(VerifierSpec.from_json(start["spec"]))
    except BaseException as error:
        say({"refused": said(error)})
        return
    say({"ready": True})
    while (frame := read_frame(read)) is not None:
        try:
            case = pickle.loads(frame)
            reply: dict[str, Any] = {"outcome": plain(verify(case))}
        except ConfigurationInvalid as error:
            reply = {"refused": said(error)}
        except NoOutcome as error:
            reply = {"outcome": plain(anomaly(error.status)), "message": said(error)}
        except BaseException as error:
            reply = {"crash": said(error)}
        say(reply | {"leaving": start["spec"]["name"] != "code" and has_children()})


def plain(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON data, its text cut to a bounded length."""
    data = asdict(outcome)
    if outcome.extracted is not None:
        data["extracted"] = outcome.extracted[:EXTRACTED_MAX]
    return data


def said(error: BaseException) -> str:
    """An error in one line. Never fails, whatever the error's own __str__ does."""
    with contextlib.suppress(BaseException):
        text = str(error)
        return (text if type(error).__module__.startswith("ratchet_") else f"{type(error).__name__}: {text}")[:2000]
    return type(error).__name__


def has_children() -> bool:
    """Whether a verifier left processes behind; the pool then ends this one with all of its group."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
