"""The followers of a run's trackers, as its trainer sees them: started, poked at each commit, heard, ended.

Decides nothing of the training, and waits for nobody but at the end of the job, and there for a bounded time. What a
follower does is in `ratchet_trainer/trackers`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

FOLLOWER = (sys.executable, "-m", "ratchet_trainer.trackers.follower")
FINISH_SECONDS = 30.0
"""How long trackers may take at the end of the job to be told of its last steps."""
LAST_SECONDS = 0.5
"""The same where the process leaves in the middle of the job: the next attempt makes up for it."""


class Tracking:
    """The followers of one attempt, on process 0; on the others, and without spec.trackers, there are none."""

    def __init__(self, progress: Progress):
        self._progress = progress
        self._shown: dict[str, dict[str, Any]] = {}
        self._followers: dict[str, subprocess.Popen[bytes]] = {}
        self._settled: set[str] = set()  # those that have their settings, which come first
        self._finishing = False
        self._lock = threading.Lock()

    def start(self, trackers: Mapping[str, Any], environment: Environment, directory: Location, spec: Any) -> None:
        """Starts one follower a tracker; `trackers` is name -> settings, `spec` the job's as plain JSON."""
        for name, settings in trackers.items():
            told = {
                "tracker": name,
                "settings": settings,
                "directory": str(directory),
                "namespace": environment.namespace,
                "name": environment.name,
                "uid": environment.uid,
                "spec": spec,
            }
            try:
                follower = subprocess.Popen(FOLLOWER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError as error:
                self._show(name, {"state": "Left", "step": None, "message": f"its process cannot be started: {error}"})
                continue
            self._followers[name] = follower
            threading.Thread(target=self._tell_and_hear, args=(name, follower, told), daemon=True).start()

    def committed(self) -> None:
        """There is more in the metric stream."""
        self._say(b"committed\n")

    def finish(self, seconds: float) -> None:
        """Lets the followers end, once they have told all that is committed or after so long."""
        deadline = time.monotonic() + seconds
        self._finishing = True
        self._say(b"finish\n")
        while any(f.poll() is None for f in self._followers.values()) and time.monotonic() < deadline:
            self._progress.alive()
            time.sleep(0.02)
        for name, follower in self._followers.items():
            if follower.poll() is None:
                shown = self._shown.get(name, {})
                log.warning(
                    "tracker %s ends with step %s: %s", name, shown.get("step"), shown.get("message") or "it is slow"
                )
                follower.kill()
        self._followers = {}
        if seconds > LAST_SECONDS and any(shown["state"] != "Following" for shown in self._shown.values()):
            time.sleep(LAST_SECONDS)  # else nobody hears of it: this is the last that /progress says

    def _tell_and_hear(self, name: str, follower: subprocess.Popen[bytes], told: dict[str, Any]) -> None:
        assert follower.stdin is not None
        assert follower.stdout is not None
        try:
            follower.stdin.write(json.dumps(told).encode() + b"\n")  # longer than a pipe holds, maybe
            follower.stdin.flush()
            os.set_blocking(follower.stdin.fileno(), False)
            self._settled.add(name)
            self._say(b"finish\n" if self._finishing else b"committed\n")
            for line in follower.stdout:
                self._show(name, json.loads(line))
        except (OSError, ValueError) as error:
            log.debug("tracker %s: %s", name, error)
        code = follower.wait()
        if code != 0 and self._followers.get(name) is follower:
            message = f"its process ended with {code}; the next attempt makes up for the steps"
            self._show(name, {"state": "Left", "step": self._shown.get(name, {}).get("step"), "message": message})

    def _show(self, name: str, said: dict[str, Any]) -> None:
        with self._lock:
            before = self._shown.get(name, {})
            self._shown = {**self._shown, name: {"name": name, **said}}
            self._progress.update(trackers=list(self._shown.values()))
        if said["state"] != "Following" and before.get("message") != said["message"]:
            log.warning("tracker %s: %s", name, said["message"])

    def _say(self, line: bytes) -> None:
        """Never waits: whoever does not read its pipe has news enough in it."""
        for name in tuple(self._settled):
            follower = self._followers.get(name)
            if follower is not None and follower.stdin is not None:
                with contextlib.suppress(OSError, ValueError):
                    os.write(follower.stdin.fileno(), line)
