"""The Lease: which replica works, and until when it certainly may.

Decides leadership on the monotonic clock: the Lease was renewed when the renewing request was *sent*, and `may_write`
forbids every write once the renewal is too old, so that a process that was frozen and thawed writes nothing. The
holder's number, `leaseTransitions`, grows with each take-over and is recorded in status as the fence of what it
authorizes.

`kubernetes.aio.leaderelection` is not used: it sets no transitions, judges by the wall clock, lets a request hang for
300 s and works on for seconds after another holder was seen.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ratchet_operator.clock import Clock
from ratchet_operator.kube import Fenced, Kube, Refused, Unreachable

Raw = dict[str, Any]
log = logging.getLogger(__name__)

NAME = "ratchet-operator"


@dataclass(frozen=True)
class Terms:
    """Seconds. Another replica takes over `duration` after it saw the last renewal; the holder stops writing `deadline`
    after it sent it. The difference is what clocks that run at different speeds may eat."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 3.0


class Lease:
    """One holder's view of the Lease. `identity` names this replica: a restarted worker of the same parent process
    takes the Lease back at once, because the parent has seen its predecessor's end.
    """

    def __init__(self, kube: Kube, clock: Clock, namespace: str, identity: str, terms: Terms):
        self._kube, self._clock, self._namespace, self._identity, self._terms = kube, clock, namespace, identity, terms
        self._lease: Raw = {}
        self._until = 0.0  # monotonic: up to when writing is certainly allowed
        self._seen: tuple[Any, float] = (None, 0.0)  # what another's lease looked like, and since when
        self.fence = 0
        """`leaseTransitions` of the Lease as it is held."""

    def may_write(self) -> float:
        """Seconds for which the Lease is certainly held; raises Fenced when it is not."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise Fenced("the Lease was not renewed in time")
        return left

    @property
    def reference(self) -> Raw:
        """The Lease itself, to hang events on."""
        return self._lease

    async def acquire(self, beat: Callable[[], None]) -> None:
        """Waits until the Lease is ours. `beat` is called on every round, also while the API server fails."""
        while True:
            beat()
            try:
                if await self._try_acquire():
                    log.info("holding Lease %s/%s, transition %d", self._namespace, NAME, self.fence)
                    return
            except Unreachable as problem:
                log.warning("waiting for the Lease: %s", problem)
            except Refused as refused:
                if refused.status != 409:  # 409: another replica was faster
                    log.warning("waiting for the Lease: %s", refused)
            await asyncio.sleep(self._terms.retry)

    async def keep(self) -> str:
        """Renews until the Lease is lost; returns why."""
        while True:
            await asyncio.sleep(max(0.0, min(self._terms.retry, self._until - time.monotonic())))
            try:
                left = self.may_write()
                async with asyncio.timeout(left):
                    lost = await self._renew()
            except Fenced as fenced:
                return str(fenced)
            except (Unreachable, TimeoutError) as problem:
                log.warning("the Lease could not be renewed: %s", problem)
                continue
            except Refused as refused:
                log.warning("the Lease could not be renewed: %s", refused)
                continue
            if lost:
                self._until = 0.0
                return lost

    async def release(self) -> None:
        """Gives the Lease up, so that another replica need not wait; nothing may be written afterwards."""
        try:
            self.may_write()
            body = {**self._lease, "spec": {**self._lease["spec"], "holderIdentity": "", "renewTime": self._now()}}
            await self._kube.replace(body)
        except (Fenced, Refused, Unreachable) as problem:
            log.warning("the Lease was not released: %s", problem)
        finally:
            self._until = 0.0

    async def _try_acquire(self) -> bool:
        sent = time.monotonic()
        lease = await self._kube.get("Lease", NAME, self._namespace)
        if lease is None:
            meta = {"name": NAME, "namespace": self._namespace}
            body: Raw = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta}
            return self._took(await self._write(self._kube.create, body, self._spec(1)), sent)
        spec = lease.get("spec", {})
        holder = spec.get("holderIdentity")
        if holder and holder != self._identity:
            looks = (holder, spec.get("renewTime"), spec.get("leaseTransitions"))
            if looks != self._seen[0]:
                self._seen = (looks, time.monotonic())
            if time.monotonic() - self._seen[1] < float(spec.get("leaseDurationSeconds") or self._terms.duration):
                return False
            log.warning("%s has not renewed the Lease; taking it over", holder)
        sent = time.monotonic()
        return self._took(
            await self._write(self._kube.replace, lease, self._spec(int(spec.get("leaseTransitions") or 0) + 1)), sent
        )

    async def _write(self, write: Callable[[Raw], Any], lease: Raw, spec: Raw) -> Raw:
        # The one write that is made without holding the Lease; its resourceVersion (or its name) lets one replica win.
        self._until = time.monotonic() + self._terms.deadline
        try:
            answer: Raw = await write({**lease, "spec": spec})
        except BaseException:
            self._until = 0.0
            raise
        return answer

    def _took(self, lease: Raw, sent: float) -> bool:
        self._lease, self._until = lease, sent + self._terms.deadline
        self.fence = int(lease["spec"]["leaseTransitions"])
        return True

    async def _renew(self) -> str | None:
        """Renews once; returns why when the Lease is another's."""
        sent = time.monotonic()
        body = {**self._lease, "spec": {**self._lease["spec"], "renewTime": self._now()}}
        try:
            self._took(await self._kube.replace(body), sent)
        except Refused as refused:
            if refused.status not in (404, 409):
                raise
            there = await self._kube.get("Lease", NAME, self._namespace)
            if there is None:
                return "the Lease was deleted"
            holder, transitions = there["spec"].get("holderIdentity"), there["spec"].get("leaseTransitions")
            if (holder, transitions) != (self._identity, self.fence):
                return f"the Lease is held by {holder or 'nobody'}, transition {transitions}"
            self._lease = there  # our own renewal, whose answer was lost, or a label that somebody set
        return None

    def _spec(self, transitions: int) -> Raw:
        now = self._now()
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.duration)),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _now(self) -> str:
        return self._clock.now()[:-1] + "000Z"  # MicroTime
