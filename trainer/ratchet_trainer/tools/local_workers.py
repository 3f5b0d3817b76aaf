"""The workers of a rollout fleet on this machine: `ratchet train --workers N` starts them and replaces those that end.

Decides when a worker is started again and when their failing ends the run. They are the processes that pods run, each
on a loopback address of its own; nothing but the checkpoint directory is between them and the trainer.

    DIR/local/worker-I.log, worker-I-termination
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet_api import protocol
from ratchet_api.protocol import Exit
from ratchet_trainer.process import environment

COMMAND = (sys.executable, "-m", "ratchet_trainer")
FINAL = (Exit.CONFIGURATION_INVALID, Exit.DETERMINISTIC_FAILURE, Exit.CHECKPOINT_UNREADABLE)
"""Ends that the next start would meet, too."""
FAILURES = 3
"""Times in a row that every worker must have ended so, before the run is given up."""
QUIET = (Exit.DRAINED, Exit.DONE, -signal.SIGKILL, -signal.SIGTERM)
"""Ends after which a worker starts again at once."""
LONGEST_PAUSE = 30.0


class LocalWorkers:
    """So many workers, kept until `end`."""

    def __init__(
        self,
        local: Path,
        addresses: Callable[[], str],
        env: Mapping[str, str],
        count: int,
        command: Sequence[str] = COMMAND,
    ):
        """`local`: the folder for logs; `addresses` gives a loopback address with free ports; `env`: a trainer's."""
        self._local, self._addresses, self._env, self._command = local, addresses, dict(env), command
        self.children: dict[int, subprocess.Popen[bytes]] = {}
        self._starts: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        self._due: dict[int, float] = {}
        self.wanted = count
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="workers", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> dict[str, Any] | None:
        """The termination message of a worker once all fail, one start after the other, for good."""
        if self.wanted and all(self._failures.get(i, 0) >= FAILURES for i in range(self.wanted)):
            return self.termination(0)
        return None

    def termination(self, number: int) -> dict[str, Any]:
        """The termination message of a worker's last end; empty without one."""
        try:
            found: dict[str, Any] = json.loads((self._local / f"worker-{number}-termination").read_bytes())
            return found
        except (OSError, ValueError):
            return {}

    def end(self) -> None:
        """Ends all: gracefully, then not."""
        self._ended.set()
        self._thread.join()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for child in self.children.values():
                if child.poll() is None:
                    child.send_signal(number)
            deadline = time.monotonic() + 10
            for child in self.children.values():
                try:
                    child.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    continue

    def _keep(self) -> None:
        while not self._ended.wait(0.1):
            for number, child in list(self.children.items()):
                if number >= self.wanted and child.poll() is None:
                    child.send_signal(signal.SIGTERM)
            for number in range(self.wanted):
                if (gone := self.children.get(number)) is not None and (code := gone.poll()) is not None:
                    del self.children[number]
                    self._note(number, code)
                if number not in self.children and time.monotonic() >= self._due.get(number, 0.0):
                    self._start(number)

    def _note(self, number: int, code: int) -> None:
        self._failures[number] = self._failures.get(number, 0) + 1 if code in FINAL else 0
        pause = 0.0 if code in QUIET else min(LONGEST_PAUSE, 2.0 ** self._failures[number])
        self._due[number] = time.monotonic() + pause

    def _start(self, number: int) -> None:
        start = self._starts[number] = self._starts.get(number, 0) + 1
        message = self._local / f"worker-{number}-termination"
        message.unlink(missing_ok=True)
        own = {
            protocol.ENV_WORKER: str(number),
            protocol.ENV_ATTEMPT: str(start),
            protocol.ENV_JOBSET_UID: str(uuid.uuid4()),
            protocol.ENV_PROCESSES: "1",
            protocol.ENV_PROCESS: "0",
            protocol.ENV_POD_IP: self._addresses(),
            environment.ENV_TERMINATION_LOG: str(message),
        }
        with open(self._local / f"worker-{number}.log", "ab") as log:
            self.children[number] = subprocess.Popen(
                self._command,
                env=self._env | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
