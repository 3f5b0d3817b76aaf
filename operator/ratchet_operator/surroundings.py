"""What an attempt finds in its namespace, read just before it is created: claims, ConfigMaps, ResourceQuotas.

Decides what is asked for and how long an answer is good. Many jobs name the same claim and share their namespace's
quotas, so answers are kept for a moment. What may not be read, or is not answered, is left out: it then stops nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from ratchet_api.job import Spec
from ratchet_operator.decide.preflight import wanted
from ratchet_operator.kube import Kube, Refused, Unreachable
from ratchet_operator.snapshot import Surroundings

Raw = dict[str, Any]
log = logging.getLogger(__name__)

FRESH_SECONDS = 2.0
FORBIDDEN_SECONDS = 300.0
"""How long is not asked again for what may not be read: a role of an older chart."""
QUOTAS = ""
"""In the place of a name: all of them."""


class Namespaces:
    """The surroundings of jobs, with a short memory."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._known: dict[tuple[str, str, str], tuple[float, asyncio.Future[Any]]] = {}

    async def of(self, namespace: str, spec: Spec) -> Surroundings:
        """What is there of what the job names, and the quotas."""
        names = list(wanted(spec))
        *objects, quotas = await asyncio.gather(
            *(self._ask(namespace, kind, name) for kind, name in names), self._ask(namespace, "ResourceQuota", QUOTAS)
        )
        told = {name: found for name, found in zip(names, objects, strict=True) if found is not _UNKNOWN}
        return Surroundings(told, () if quotas is _UNKNOWN else tuple(quotas))

    async def _ask(self, namespace: str, kind: str, name: str) -> Any:
        self._forget()
        key = (namespace, kind, name)
        if key not in self._known:
            self._known[key] = (time.monotonic() + FRESH_SECONDS, asyncio.ensure_future(self._read(key)))
        return await asyncio.shield(self._known[key][1])

    async def _read(self, key: tuple[str, str, str]) -> Any:
        namespace, kind, name = key
        try:
            if name == QUOTAS:
                return await self._kube.list(kind, namespace)
            return await self._kube.get(kind, name, namespace)
        except Refused as refused:
            if refused.status == 403:
                log.warning("not looked at before attempts start: %s", refused)
                self._known[key] = (time.monotonic() + FORBIDDEN_SECONDS, self._known[key][1])
            return _UNKNOWN
        except Unreachable:
            return _UNKNOWN

    def _forget(self) -> None:
        now = time.monotonic()
        for key in [key for key, (until, asked) in self._known.items() if until < now and asked.done()]:
            del self._known[key]


_UNKNOWN = object()
