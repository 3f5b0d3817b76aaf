"""Events on jobs: what `kubectl describe` tells of the past.

Decides how often an event is written: the same words on the same job become a count, and one job cannot flood the API
server. What is worth an event is decided in `decide`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from ratchet_operator import metrics
from ratchet_operator.clock import Clock
from ratchet_operator.kube import Kube, Refused, Unreachable
from ratchet_operator.plan import Event

Raw = dict[str, Any]
log = logging.getLogger(__name__)

COMPONENT = "ratchet-operator"
REMEMBERED = 2000
SAME_SECONDS = 600.0
BURST = 25
REFILL_SECONDS = 60.0
"""As client-go: 25 events an object at once, then one a minute."""


@dataclass
class _Written:
    name: str
    count: int
    at: float


class Events:
    """Writes events; a failure to write one is logged and counted, never more."""

    def __init__(self, kube: Kube, clock: Clock, instance: str):
        self._kube, self._clock, self._instance = kube, clock, instance
        self._written: OrderedDict[tuple[str, str, str], _Written] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[float, float]] = OrderedDict()  # uid -> tokens, as of

    async def post(self, regarding: Raw, event: Event) -> None:
        """One event on any object (a job, or the Lease)."""
        meta = regarding["metadata"]
        log.log(
            logging.WARNING if event.type == "Warning" else logging.INFO,
            "%s/%s %s: %s", meta.get("namespace"), meta["name"], event.reason, event.message,
        )  # fmt: skip
        if not self._allowed(meta["uid"]):
            metrics.EVENTS_DROPPED.inc()
            return
        try:
            await self._write(regarding, event)
        except (Refused, Unreachable) as problem:
            metrics.EVENTS_DROPPED.inc()
            log.warning("an event could not be written: %s", problem)

    async def _write(self, regarding: Raw, event: Event) -> None:
        meta = regarding["metadata"]
        key = (meta["uid"], event.reason, event.message)
        now = self._clock.now()[:19] + "Z"
        known = self._written.get(key)
        if known and time.monotonic() - known.at < SAME_SECONDS:
            known.count, known.at = known.count + 1, time.monotonic()
            self._written.move_to_end(key)
            await self._kube.patch("Event", meta["namespace"], known.name, {"count": known.count, "lastTimestamp": now})
            return
        name = f"{meta['name']}.{uuid.uuid4().hex[:16]}"
        body: Raw = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": regarding["apiVersion"], "kind": regarding["kind"], "namespace": meta["namespace"],
                "name": meta["name"], "uid": meta["uid"], "resourceVersion": meta.get("resourceVersion", ""),
            },
            "type": event.type, "reason": event.reason, "message": event.message[:1024],
            "firstTimestamp": now, "lastTimestamp": now, "count": 1,
            "source": {"component": COMPONENT}, "reportingComponent": COMPONENT, "reportingInstance": self._instance,
        }  # fmt: skip
        await self._kube.create(body)
        self._written[key] = _Written(name, 1, time.monotonic())
        while len(self._written) > REMEMBERED:
            self._written.popitem(last=False)

    def _allowed(self, uid: str) -> bool:
        now = time.monotonic()
        tokens, since = self._tokens.get(uid, (float(BURST), now))
        tokens = min(float(BURST), tokens + (now - since) / REFILL_SECONDS)
        self._tokens[uid] = (max(0.0, tokens - 1), now)
        self._tokens.move_to_end(uid)
        while len(self._tokens) > REMEMBERED:
            self._tokens.popitem(last=False)
        return tokens >= 1
