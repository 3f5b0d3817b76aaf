"""A worker as the pool sees it: a process, two pipes, and how it is ended with all that it started.

Decides how workers are started (a new Python, never a fork of a process with JAX in it) and what they inherit.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from ratchet_api.verifiers import ENV_SECRET
from ratchet_trainer.algorithm.verifiers.frames import TooLong, framed, take
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec

CLEAN = ("PATH", "LANG", "LC_ALL", "TZ", "HOME")
"""What a worker for programs of a model inherits of the environment: no secrets."""


WORKER = "ratchet_trainer.algorithm.verifiers.worker"


def _inherits(spec: VerifierSpec, name: str) -> bool:
    """Whether a worker gets a variable of the trainer's: programs of a model few, nobody the secret of another."""
    if spec.name == "code":
        return name in CLEAN
    return not name.startswith(ENV_SECRET) or name == spec.settings.get("secretVariable")


class Died(Exception):
    """The worker is gone, or speaks nonsense; the message continues the sentence "its process ..."."""


class WorkerProcess:
    """A started worker. `reading`, `writing`: the descriptors to wait for; `unsent`: bytes that wait to be written."""

    def __init__(self, spec: VerifierSpec, memory_mib: int):
        down_read, self.writing = os.pipe()
        self.reading, up_write = os.pipe()
        os.set_blocking(self.writing, False)
        inherited = {n: os.environ[n] for n in os.environ if _inherits(spec, n)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(down_read), str(up_write), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(down_read, up_write),
            start_new_session=True,
            env={
                **inherited,
                "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
                "PYTHONHASHSEED": "0",
                # One thread each: there are as many workers as there is room for.
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "MALLOC_ARENA_MAX": "2",
            },
        )
        os.close(down_read)
        os.close(up_write)
        self._heard = bytearray()
        self.unsent = bytearray()
        self.send(json.dumps({"spec": spec.to_json(), "memoryMiB": memory_mib}).encode())

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, body: bytes | None = None) -> None:
        """Sends a frame, as far as it goes without waiting; without one, what is left of the last."""
        if body is not None:
            self.unsent += framed(body)
        with contextlib.suppress(BlockingIOError, BrokenPipeError):  # a dead one is found when it is read from
            while self.unsent:
                del self.unsent[: os.write(self.writing, self.unsent[: 1 << 16])]

    def readable(self) -> bool:
        """Whether there is something to be received now."""
        waiting = select.poll()
        waiting.register(self.reading, select.POLLIN)
        return bool(waiting.poll(0))

    def receive(self) -> list[dict[str, Any]]:
        """What has come, after `reading` was found readable. Raises Died."""
        part = os.read(self.reading, 1 << 16)
        if not part:
            raise Died(self.why_ended())
        self._heard += part
        messages = []
        try:
            while (frame := take(self._heard)) is not None:
                messages.append(json.loads(frame))
        except (TooLong, ValueError) as error:
            raise Died(f"wrote into the pool's pipe: {error}") from error
        if not all(isinstance(message, dict) for message in messages):
            raise Died("wrote into the pool's pipe")
        return messages

    def ended(self) -> bool:
        """Whether the process is gone; it stays a zombie, so that its number belongs to nobody else yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def why_ended(self) -> str:
        """How it ended, as the end of a sentence. Waits a moment for a process that closed its pipe and is going."""
        for _ in range(100):
            if self.ended():
                break
            time.sleep(0.01)
        state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if state is None:
            return "closed its pipe"
        if state.si_code == os.CLD_EXITED:
            return f"exited with {state.si_status}"
        try:
            return f"was ended by {signal.Signals(state.si_status).name}"
        except ValueError:
            return f"was ended by signal {state.si_status}"

    def kill(self) -> None:
        """Ends the process and its whole group, which its children are in unless they left it. Idempotent."""
        if self._process.returncode is not None:
            return
        # Before the zombie is reaped: until then the group's number is its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self.reading)
        os.close(self.writing)
