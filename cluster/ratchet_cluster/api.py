"""A lean asyncio client of the API server: raw JSON in and out, and a watch that never gives up.

Decides how a dropped or expired watch is taken up again (a fresh list). The node agents use it instead of a full client
because they share two cores with the training that they run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from ratchet_cluster.objects import Object

log = logging.getLogger(__name__)

T = TypeVar("T")

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
TIMEOUT = 15.0  # seconds
UNREACHABLE = (aiohttp.ClientError, asyncio.TimeoutError, OSError)


class ApiError(Exception):
    """An answer of the API server that is no success; `status` is the HTTP code, the text is the server's message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason = status, reason


async def insist(work: Callable[[], Awaitable[T]], pause: float = 0.3) -> T:
    """Does it until the API server has answered; an answer that will not change by asking again is raised."""
    while True:
        try:
            return await work()
        except ApiError as error:
            if error.status < 500 and error.status not in (409, 429):
                raise
            log.info("asked again in %.1f s: %s", pause, error)
        except UNREACHABLE as error:
            log.info("asked again in %.1f s: %r", pause, error)
        await asyncio.sleep(pause)


class Api:
    """Speaks to one API server with a client certificate. Use as an async context manager."""

    def __init__(self, server: str, pki: Path, client: str) -> None:
        self.server = server
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / f"{client}.crt", pki / f"{client}.key")

    async def __aenter__(self) -> Api:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(self.server, connector=connector, read_bufsize=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content: str = "application/json",
        timeout: float = TIMEOUT,
        **params: str,
    ) -> Any:
        """One call; the decoded JSON answer (text where it is none). Raises `ApiError` or a member of `UNREACHABLE`."""
        data = None if body is None else json.dumps(body).encode()
        limit = aiohttp.ClientTimeout(total=timeout)
        async with self._session.request(
            method, path, data=data, params=params, headers={"Content-Type": content}, timeout=limit
        ) as answer:
            text = await answer.text()
            found = json.loads(text) if answer.content_type == "application/json" else text
            if answer.status >= 400:
                status = found if isinstance(found, dict) else {}
                raise ApiError(answer.status, status.get("reason", ""), status.get("message", text[:500]))
            return found

    async def get(self, path: str, *, timeout: float = TIMEOUT, **params: str) -> Any:
        return await self.request("GET", path, timeout=timeout, **params)

    async def create(self, path: str, body: Object) -> Any:
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Object, content: str = STRATEGIC) -> Any:
        return await self.request("PATCH", path, body, content=content)

    async def apply(self, path: str, body: Object) -> Any:
        """Server-side apply as the cluster itself: creates the object or brings it to this form."""
        return await self.request(
            "PATCH", path, body, content=APPLY, fieldManager="ratchet-cluster", force="true", timeout=30.0
        )

    async def delete(self, path: str, uid: str | None = None, grace: int | None = None) -> None:
        """Deletes; an object that is gone already, or has another uid, is left in peace."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            await self.request("DELETE", path, options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def follow(self, path: str, **params: str) -> AsyncIterator[tuple[str, Any]]:
        """Yields ("SYNC", [objects]) first and after every gap, then ("ADDED" | "MODIFIED" | "DELETED", object)."""
        pause = 0.05
        while True:
            try:
                found = await self.get(path, timeout=TIMEOUT, **params)
                yield "SYNC", found["items"]
                version = found["metadata"]["resourceVersion"]
                async for kind, item in self._watch(path, version, params):
                    pause = 0.05
                    yield kind, item
            except (ApiError, *UNREACHABLE) as error:
                log.info("watch of %s is taken up again in %.2f s: %s", path, pause, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)

    async def _watch(self, path: str, version: str, params: dict[str, str]) -> AsyncIterator[tuple[str, Any]]:
        query = {**params, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        limit = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=None)
        async with self._session.get(path, params=query, timeout=limit) as answer:
            if answer.status >= 400:
                raise ApiError(answer.status, "", await answer.text())
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiError(event["object"].get("code", 500), "watch", event["object"].get("message", ""))
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]
