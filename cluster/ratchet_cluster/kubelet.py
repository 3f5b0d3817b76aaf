"""The part of a kubelet's HTTPS API that `kubectl logs` needs.

Decides which log answers a request; only clients with a certificate of the cluster's authority are heard. Container
logs are plain files, so time stamps are not there to be asked for.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from aiohttp import web

from ratchet_cluster.node import KUBELET_PORT

FindLogs = Callable[[str, str, str | None], list[Path]]  # namespace, pod, container -> log files, oldest first
Alive = Callable[[str, str], bool]


async def serve(pki: Path, hosts: Iterable[str], find: FindLogs, alive: Alive) -> web.AppRunner:
    """Listens on port 10250 of every address in `hosts`. Raises OSError when one of them is taken."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(pki / "serving/tls.crt", pki / "serving/tls.key")
    application = web.Application()
    application.add_routes([web.get("/containerLogs/{namespace}/{pod}/{container}", _logs(find, alive))])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        for host in hosts:
            await web.TCPSite(runner, host, KUBELET_PORT, ssl_context=tls).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def _logs(find: FindLogs, alive: Alive) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        part = request.match_info
        files = find(part["namespace"], part["pod"], part["container"])
        wanted = files[-2:-1] if request.query.get("previous") == "true" else files[-1:]
        if not wanted:
            return web.Response(status=404, text=f"no log of container {part['container']} is kept")
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with open(wanted[0], "rb") as log:
            lines = request.query.get("tailLines")
            limit = int(request.query.get("limitBytes", -1))
            content = log.read()
            if lines is not None:
                content = b"".join(content.splitlines(keepends=True)[-int(lines) :] if int(lines) else [])
            await response.write(content[:limit] if limit >= 0 else content)
            while request.query.get("follow") == "true":
                running = alive(part["namespace"], part["pod"])
                if more := log.read():
                    await response.write(more)
                elif not running:
                    break
                await asyncio.sleep(0.1)
        await response.write_eof()
        return response

    return answer
