"""A proxy in front of the API server that does what networks and servers do: lose, delay, refuse, lie about the past.

It speaks plain HTTP to the operator and passes its bearer token on. Every write is recorded; faults are rules that
match requests and decide what happens to them.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any

import aiohttp
from aiohttp import web
from api_verbs import Asked, asked
from history import Act, Look, Round

from ratchet_api.protocol import LABEL_JOB

Raw = dict[str, Any]
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Request:
    """What the operator asked for; `forward` asks the real server and returns (status, headers, body)."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    forward: Callable[[], Awaitable[tuple[int, dict[str, str], bytes]]]

    @property
    def json(self) -> Raw:
        return json.loads(self.body or b"{}")

    @property
    def is_write(self) -> bool:
        return self.method in WRITES and "/leases/" not in self.path and not self.path.endswith("/leases")


@dataclass
class Fault:
    """What happens to the next `times` requests that match. `act` returns an answer, or None to let the request
    pass.
    """

    method: str
    path: str  # regular expression, anywhere in the path
    act: Callable[[Request], Awaitable[web.StreamResponse | None]]
    times: float = 1
    hits: int = 0
    hit: asyncio.Event = field(default_factory=asyncio.Event)

    def matches(self, request: Request) -> bool:
        return (
            self.hits < self.times
            and request.method in self.method.split("|")
            and bool(re.search(self.path, request.path))
        )


class Cut(Exception):
    """The connection breaks instead of an answer."""


def answer(status: int, reason: str, message: str = "injected", **headers: str) -> Callable[[Request], Awaitable[Any]]:
    """The server refuses, and does nothing."""

    async def act(request: Request) -> web.Response:
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": reason,
            "message": message,
            "code": status,
        }
        return web.json_response(
            body, status=status, headers={key.replace("_", "-"): value for key, value in headers.items()}
        )

    return act


def done_but_cut(request_done: Callable[[], None] = lambda: None) -> Callable[[Request], Awaitable[Any]]:
    """The server does what was asked, and the answer is lost."""

    async def act(request: Request) -> None:
        await request.forward()
        request_done()
        raise Cut

    return act


def done_but_silent(seconds: float = 60.0) -> Callable[[Request], Awaitable[Any]]:
    """The server does what was asked, and its answer comes when nobody waits for it any more."""

    async def act(request: Request) -> None:
        await request.forward()
        await asyncio.sleep(seconds)
        raise Cut

    return act


async def cut(request: Request) -> None:
    """The request is lost before it reaches the server."""
    raise Cut


def error_event(code: int, reason: str) -> Raw:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": ""}
    return {"type": "ERROR", "object": status}


class FaultProxy:
    """Use as an async context manager; `url` is what the operator's kubeconfig points to."""

    def __init__(self, server: str, tls: Any):
        self._server, self._tls = server, tls
        self.faults: list[Fault] = []
        self.writes: list[tuple[str, str, int, str]] = []  # method, path, status, user agent; without Leases
        self.acts: list[Act] = []  # the same with what was sent and answered
        self.reads: list[Look | Round] = []
        self.requests = 0
        self.asked: set[Asked] = set()  # every verb on every resource that was asked for
        self.forbidden: set[Asked] = set()  # those that the API server's RBAC refused
        self.lose_event: Callable[[Raw], bool] = lambda event: False
        self.skew: Callable[[str], float] = lambda actor: 0.0  # seconds by which an operator sees the clock ahead
        self._watches: set[asyncio.Task[Any]] = set()
        self._scripted: dict[str, list[Raw]] = {}

    def fault(self, method: str, path: str, act: Callable[[Request], Awaitable[Any]], times: float = 1) -> Fault:
        it = Fault(method, path, act, times)
        self.faults.append(it)
        return it

    def say_in_watch(self, plural: str, event: Raw) -> None:
        """Every open watch of that resource says this next, and ends."""
        self._scripted.setdefault(plural, []).append(event)
        for task in self._watches:
            if task.get_name() == plural:
                task.cancel()

    async def __aenter__(self) -> FaultProxy:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), auto_decompress=False, read_bufsize=1 << 21
        )
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watches:  # who watched is gone, and the server would not notice for minutes
            task.cancel()
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await incoming.read()
        request = Request(
            incoming.method, incoming.path, dict(incoming.query), body, lambda: self._forward(incoming, request)
        )
        if what := _asked(request):
            self.asked.add(what)
        try:
            fault = next((f for f in self.faults if f.matches(request)), None)
            if fault is not None:
                fault.hits += 1
                fault.hit.set()
                if (answered := await fault.act(request)) is not None:
                    return answered
            if "watch" in request.query:
                return await self._watch(incoming, request)
            status, headers, content = await request.forward()
        except Cut:
            assert incoming.transport is not None
            incoming.transport.abort()
            return web.Response(status=502)
        except aiohttp.ClientError as problem:
            return web.Response(status=502, text=str(problem))
        return web.Response(status=status, headers=headers, body=content)

    async def _forward(self, incoming: web.Request, request: Request) -> tuple[int, dict[str, str], bytes]:
        url = self._server + incoming.raw_path
        async with self._session.request(
            request.method,
            aiohttp.client.URL(url, encoded=True),
            data=request.body or None,
            headers=_headers(incoming.headers),
        ) as response:
            content = await response.read()
        if response.status == 403 and b"cannot" in content and (what := _asked(request)):
            self.forbidden.add(what)
        actor = incoming.headers["User-Agent"]
        if request.is_write:
            self.writes.append((request.method, request.path, response.status, actor))
            self.acts.append(Act(request.method, request.path, response.status, actor, request.json, _said(content)))
        elif response.status == 200 and (read := _read(request, incoming.headers.get("Accept", ""), content)):
            self.reads.append(read)
        headers = _headers(response.headers)
        if skew := self.skew(actor):
            moment = parsedate_to_datetime(headers["Date"]) + timedelta(seconds=skew)
            headers["Date"] = format_datetime(moment, usegmt=True)
        return response.status, headers, content

    async def _watch(self, incoming: web.Request, request: Request) -> web.StreamResponse:
        plural = request.path.rstrip("/").rsplit("/", 1)[-1]
        outgoing = web.StreamResponse(headers={"Content-Type": "application/json"})
        await outgoing.prepare(incoming)
        task = asyncio.current_task()
        assert task is not None
        task.set_name(plural)
        self._watches.add(task)
        url = aiohttp.client.URL(self._server + incoming.raw_path, encoded=True)
        try:
            async with self._session.get(
                url, headers=_headers(incoming.headers), timeout=aiohttp.ClientTimeout(total=None)
            ) as response:
                if response.status == 403 and (what := _asked(request)):
                    self.forbidden.add(what)
                async for line in response.content:
                    if not self.lose_event(json.loads(line)):
                        await outgoing.write(line)
        except asyncio.CancelledError:
            if not (said := self._scripted.pop(plural, None)):
                raise
            for event in said:
                await outgoing.write(json.dumps(event).encode() + b"\n")
        except (ConnectionError, aiohttp.ClientError):
            pass
        finally:
            self._watches.discard(task)
        return outgoing


def _read(request: Request, accept: str, content: bytes) -> Look | Round | None:
    """What a list means: a pass looks at a job, or a periodic list begins. None for any other request."""
    job = request.query.get("labelSelector", "").removeprefix(f"{LABEL_JOB}=")
    looks = request.path.endswith("/pods") and job and job != LABEL_JOB
    if request.method != "GET" or not (looks or "PartialObjectMetadataList" in accept):
        return None
    revision = int(_said(content)["metadata"]["resourceVersion"])
    if looks:
        return Look(job, revision, time.time())
    return Round(revision, time.time()) if request.path.endswith("/rltrainingjobs") else None


def _said(content: bytes) -> Raw:
    """An answer; long ones are compressed."""
    plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    return json.loads(plain or b"{}")


def _asked(request: Request) -> Asked | None:
    return asked(request.method, request.path, request.query)


def _headers(headers: Any) -> dict[str, str]:
    dropped = {"host", "connection", "transfer-encoding", "content-length", "keep-alive", "accept-encoding"}
    return {key: value for key, value in headers.items() if key.lower() not in dropped}
