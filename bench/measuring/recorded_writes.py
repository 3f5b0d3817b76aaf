"""The writes that an operator makes for one job, recorded, and made again for other jobs by a client that only writes.

Recorded is what passes the tests' fault proxy. Made again, names, uids and resource versions are those of the new job:
a write needs the answers of those before it, and waits for nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from faultproxy import FaultProxy, Request

from ratchet_cluster.api import Api, ApiError

Raw = dict[str, Any]


@dataclass(frozen=True)
class Write:
    """One request, and what the API server called the object that it made."""

    method: str
    path: str
    body: str
    uid: str
    content: str


@dataclass
class Recorder:
    """Begins to record when made; `writes` grows until `stop`."""

    proxy: FaultProxy
    writes: list[Write] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._fault = self.proxy.fault("POST|PUT|PATCH|DELETE", ".", self._hear, times=float("inf"))

    def stop(self) -> list[Write]:
        self.proxy.faults.remove(self._fault)
        return self.writes

    async def _hear(self, request: Request) -> Any:
        from aiohttp import web

        status, headers, content = await request.forward()
        if request.is_write and status < 300:
            made = json.loads(content or b"{}").get("metadata", {}).get("uid", "")
            kind = "application/merge-patch+json" if request.method == "PATCH" else "application/json"
            self.writes.append(Write(request.method, request.path, request.body.decode(), made, kind))
        return web.Response(status=status, headers=headers, body=content)


@dataclass
class Replayed:
    """What stands for what of the recorded job: old text -> new text; `versions`: path -> resourceVersion."""

    names: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    bytes: int = 0

    def new(self, text: str) -> str:
        for old, its in self.names.items():
            text = text.replace(old, its)
        return text


async def replay(api: Api, writes: list[Write], it: Replayed) -> None:
    """Makes them for another job. An object that is gone is what a deletion wanted; anything else refused is raised."""
    for write in writes:
        path, body = it.new(write.path), json.loads(it.new(write.body) or "null")
        whole = path.removesuffix("/status")
        if isinstance(body, dict) and "resourceVersion" in body.get("metadata", {}):
            if whole not in it.versions:
                it.versions[whole] = (await api.get(whole))["metadata"]["resourceVersion"]
            body["metadata"]["resourceVersion"] = it.versions[whole]
        try:
            answer = await api.request(write.method, path, body, content=write.content, timeout=60)
        except ApiError as error:
            if write.method == "DELETE" and error.status == 404:
                continue
            raise
        finally:
            it.calls += 1
            it.bytes += len(write.body)
        meta = answer.get("metadata", {}) if isinstance(answer, dict) else {}
        if write.method == "POST" and write.uid and "uid" in meta:
            it.names[write.uid] = meta["uid"]
        if write.method in ("PUT", "PATCH") and "resourceVersion" in meta:
            it.versions[whole] = meta["resourceVersion"]
