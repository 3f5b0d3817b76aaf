"""Pods that have ended and are gone, as their deletion in the watch showed them.

A pod that is deleted goes as soon as its kubelet has written how it ended: whoever lists a moment later finds neither
the pod nor its exit code, and the strongest evidence of an end would be lost by chance. Decides which are kept (those
that had ended, by their own word) and for how long. None of them can write any more, so nothing waits for one.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.queue import Key

Raw = dict[str, Any]

KEPT_SECONDS = 300.0
"""Longer than a verdict is provisional; who restarts the operator meanwhile loses them, as those of lost events."""


class GonePods:
    """`hear` takes what the watch says, `beside` gives a job's."""

    def __init__(self) -> None:
        self._pods: dict[Key, dict[str, Raw]] = {}
        self._ages: deque[tuple[float, Key, str]] = (
            deque()
        )  # of all jobs, the oldest first: also of those nobody asks for

    def hear(self, job: str, pod: Raw) -> None:
        """The event of a deletion; `job` is the name on its label. What no Job made tells of no trainer."""
        seen = Pod(pod)
        if seen.ended and seen.made_by_job:
            key = (seen.namespace, job)
            self._pods.setdefault(key, {})[seen.uid] = pod | {"gone": True}
            self._ages.append((time.monotonic(), key, seen.uid))
        self._forget_old()

    def beside(self, key: Key, live: list[Raw]) -> list[Raw]:
        """`live`, and the job's pods that are gone."""
        self._forget_old()
        there = {pod["metadata"]["uid"] for pod in live}
        return [*live, *(pod for uid, pod in self._pods.get(key, {}).items() if uid not in there)]

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._pods.pop(key, None)

    def _forget_old(self) -> None:
        since = time.monotonic() - KEPT_SECONDS
        while self._ages and self._ages[0][0] < since:
            _, key, uid = self._ages.popleft()
            own = self._pods.get(key, {})
            own.pop(uid, None)
            if not own:
                self._pods.pop(key, None)
