"""The line from the command to the node agents: one JSON request and answer over a Unix socket in the state folder.

Decides the format and where the socket lies; what the agents do with a request is theirs (`agent.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET = "agent.sock"
Answer = dict[str, Any]
Handler = Callable[..., Awaitable[Answer]]


class Refused(RuntimeError):
    """The agents cannot do that; the message says why."""


def call(folder: Path, command: str, timeout: float = 120.0, **arguments: Any) -> Answer:
    """Sends one request and returns the answer. Raises `Refused`, also when no agents run."""
    with _address(folder) as address, socket.socket(socket.AF_UNIX) as line:
        line.settimeout(timeout)
        try:
            line.connect(address)
        except OSError:
            raise Refused(f"no node agents run in {folder}; start them with `ratchet cluster up`") from None
        line.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        answer = b"".join(iter(lambda: line.recv(1 << 16), b""))
    if not answer:
        raise Refused("the node agents ended while they were asked; see logs/agent.log")
    found: Answer = json.loads(answer)
    if "error" in found:
        raise Refused(found["error"])
    return found


def away(folder: Path) -> set[str]:
    """Names of nodes that were taken away and are not back yet."""
    try:
        return set(call(folder, "away", timeout=5.0)["nodes"])
    except Refused:
        return set()


async def serve(folder: Path, handlers: Mapping[str, Handler]) -> asyncio.Server:
    """Answers requests with `handlers`, command -> function of the other keys. Their `Refused` is an answer, too."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            handler = handlers[request.pop("command")]
            found = await handler(**request)
        except (Refused, KeyError, TypeError, ValueError) as error:
            found = {"error": str(error) if isinstance(error, Refused) else f"not understood: {error!r}"}
        writer.write(json.dumps(found).encode())
        await writer.drain()
        writer.close()

    (folder / SOCKET).unlink(missing_ok=True)
    with _address(folder) as address:
        server = await asyncio.start_unix_server(answer, address)
    (folder / SOCKET).chmod(0o600)
    return server


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A short name for the socket: an address may have 107 bytes, a folder may be deeper."""
    try:
        handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    except OSError:
        raise Refused(f"there is no cluster in {folder}") from None
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)
