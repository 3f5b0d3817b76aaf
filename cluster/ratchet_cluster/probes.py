"""Probes and hooks of a container: asked as a kubelet asks.

Decides one answer and, from answers, when a probe counts as passed or failed. What follows from it (ready, restart) is
decided in `container.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from ratchet_cluster.objects import Object

Execute = Callable[[list[str], float], Awaitable[int]]


class Unknown(Exception):
    """A port name that the container does not declare."""


async def ask(action: Object, container: Object, address: str, execute: Execute, timeout: float) -> bool:
    """One try of an `exec`, `httpGet` or `tcpSocket` action; False also when nothing answers in time."""
    try:
        async with asyncio.timeout(timeout):
            if "exec" in action:
                return await execute(action["exec"]["command"], timeout) == 0
            if "httpGet" in action:
                return await _http(action["httpGet"], container, address)
            if "tcpSocket" in action:
                host = action["tcpSocket"].get("host") or address
                _, writer = await asyncio.open_connection(host, _port(action["tcpSocket"]["port"], container))
                writer.close()
                return True
            if "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
                return True
    except (OSError, TimeoutError, aiohttp.ClientError):
        return False
    raise Unknown(f"{', '.join(action)} is no kind of probe that the local node agents know")


async def _http(action: Object, container: Object, address: str) -> bool:
    scheme, port = action.get("scheme", "HTTP").lower(), _port(action["port"], container)
    url = f"{scheme}://{action.get('host') or address}:{port}/{action.get('path', '/').lstrip('/')}"
    headers = {one["name"]: one["value"] for one in action.get("httpHeaders") or []} | {"User-Agent": "kube-probe/1.36"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, headers=headers, ssl=False, allow_redirects=False) as answer,
    ):
        return 200 <= answer.status < 400


def _port(port: int | str, container: Object) -> int:
    if isinstance(port, int):
        return port
    for one in container.get("ports") or []:
        if one.get("name") == port:
            number: int = one["containerPort"]
            return number
    if str(port).isdigit():
        return int(port)
    raise Unknown(f"the container has no port called {port!r}")


async def watch(
    probe: Object,
    container: Object,
    address: str,
    execute: Execute,
    changed: Callable[[bool], None],
    *,
    once: bool = False,
) -> None:
    """Asks for as long as it runs and calls `changed` whenever the verdict turns, the first one included.

    `once` ends after the first success (start-up probes). A probe that the agent cannot ask raises `Unknown`.
    """
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    verdict, row, last = None, 0, None
    while True:
        answer = await ask(probe, container, address, execute, probe.get("timeoutSeconds", 1))
        row = row + 1 if answer == last else 1
        last = answer
        enough = probe.get("successThreshold", 1) if answer else probe.get("failureThreshold", 3)
        if row >= enough and answer != verdict:
            verdict = answer
            changed(answer)
            if once and answer:
                return
        await asyncio.sleep(probe.get("periodSeconds", 10))
