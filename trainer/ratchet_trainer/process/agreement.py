"""What the processes of an attempt agree on: plain JSON over lines of their own, beside the collectives of JAX.

Decides how control values travel. Process 0 listens on the port after the coordinator's; every other process holds
three connections to it, one for each thread that talks: `main` (the step), `commit` (the save in flight), `watch` (the
watchdog, which learns from a broken one at once that a peer is gone). Why not JAX: a gather here takes a tenth of a
millisecond, works before JAX is imported, and never hangs on a dead peer.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

from ratchet_trainer.errors import PeerLost
from ratchet_trainer.process.environment import Environment

LINES = ("main", "commit", "watch")
CONNECT_SECONDS = 300.0
"""How long the processes of a gang wait for one another at the start; pods of one gang may start minutes apart."""
SILENCE_SECONDS = 20
"""A peer whose host vanished without closing its connections is given up after this."""
_LENGTH = struct.Struct(">I")
_LARGEST = 64 << 20


class Line:
    """One connection of process 0 with each other process. Used by one thread."""

    def __init__(self, process: int, sockets: dict[int, socket.socket]):
        self.process = process
        self.sockets = sockets  # of process 0: one for each other; of the others: one, to process 0

    def gather(self, value: Any) -> list[Any]:
        """Every process's value in process order, on all of them. Raises PeerLost."""
        if self.process != 0:
            self.send(0, value)
            found: list[Any] = self.receive(0)
            return found
        values = self.collect(value)
        for p in sorted(self.sockets):
            self.send(p, values)
        return values

    def collect(self, value: Any) -> list[Any]:
        """Every process's value in process order, on process 0; nothing on the others. Raises PeerLost."""
        if self.process != 0:
            self.send(0, value)
            return []
        return [value] + [self.receive(p) for p in sorted(self.sockets)]

    def broadcast(self, value: Any) -> Any:
        """Process 0's value on all. Raises PeerLost."""
        if self.process != 0:
            return self.receive(0)
        for p in sorted(self.sockets):
            self.send(p, value)
        return value

    def send(self, process: int, value: Any) -> None:
        body = json.dumps(value, separators=(",", ":")).encode()
        try:
            self.sockets[process].sendall(_LENGTH.pack(len(body)) + body)
        except OSError as error:
            raise PeerLost(f"process {process} does not answer: {error}") from error

    def receive(self, process: int) -> Any:
        connection = self.sockets[process]
        try:
            (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
            if length > _LARGEST:
                raise PeerLost(f"process {process} sent {length} bytes, which cannot be meant")
            return json.loads(_exactly(connection, length))
        except OSError as error:
            raise PeerLost(f"process {process} does not answer: {error}") from error
        except ValueError as error:
            raise PeerLost(f"process {process} sent what is not JSON: {error}") from error

    def close(self) -> None:
        for connection in self.sockets.values():
            connection.close()


class Peers:
    """The lines of this process to the others."""

    def __init__(self, environment: Environment):
        self.process, self.processes = environment.process, environment.processes
        self._identity = environment.owner
        self._lines: dict[str, dict[int, socket.socket]] = {name: {} for name in LINES}
        if self.processes > 1:
            assert environment.coordinator is not None
            host, _, port = environment.coordinator.rpartition(":")
            place = host.strip("[]"), int(port) + 1
            if self.process == 0:
                self._listen((environment.address, place[1]))
            else:
                self._call(place)
        self.main, self.commit, self.watch = (Line(self.process, self._lines[name]) for name in LINES)

    def _listen(self, place: tuple[str, int]) -> None:
        expected = (self.processes - 1) * len(LINES)
        deadline = time.monotonic() + CONNECT_SECONDS
        family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        with socket.create_server(place, family=family, backlog=expected + 16) as server:
            while sum(map(len, self._lines.values())) < expected:
                server.settimeout(max(0.01, deadline - time.monotonic()))
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    there = sorted(self._lines["watch"])
                    raise PeerLost(
                        f"only processes {[0, *there]} of {self.processes} came in {CONNECT_SECONDS:.0f} s"
                    ) from None
                self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        # A port scanner or a process of an older attempt may call too; it must neither take a place nor hold the
        # others up.
        connection.settimeout(2.0)
        try:
            (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
            hello = json.loads(_exactly(connection, min(length, 4096)))
            name, process = hello["line"], hello["process"]
            if hello["owner"] == self._identity and name in LINES and 0 < process < self.processes:
                connection.sendall(b"\x01")
                self._keep(name, process, connection)
                return
        except (OSError, ValueError, KeyError, TypeError, PeerLost):
            pass  # not one of ours: hang up
        connection.close()

    def _call(self, place: tuple[str, int]) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        for name in LINES:
            hello = json.dumps({"owner": self._identity, "process": self.process, "line": name}).encode()
            pauses = patience()
            while True:
                try:
                    connection = socket.create_connection(place, timeout=5.0)
                    connection.sendall(_LENGTH.pack(len(hello)) + hello)
                    if connection.recv(1) == b"\x01":
                        self._keep(name, 0, connection)
                        break
                    connection.close()
                    reason = "hung up; is it of another attempt?"
                except OSError as error:  # not started yet, or its name is not resolvable yet
                    reason = str(error)
                if time.monotonic() > deadline:
                    raise PeerLost(f"process 0 at {place[0]}:{place[1]}: {reason}")
                time.sleep(next(pauses))

    def _keep(self, name: str, process: int, connection: socket.socket) -> None:
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", SILENCE_SECONDS // 2),
            ("TCP_KEEPINTVL", SILENCE_SECONDS // 4),
            ("TCP_KEEPCNT", 2),
            ("TCP_USER_TIMEOUT", SILENCE_SECONDS * 1000),
        ):
            with contextlib.suppress(AttributeError):  # Linux has them all
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        if (old := self._lines[name].pop(process, None)) is not None:
            old.close()
        self._lines[name][process] = connection


def patience() -> Iterator[float]:
    """Seconds between calls to somebody who may not be there yet: soon at first, then ever more rarely."""
    pause = 0.01
    while True:
        yield pause
        pause = min(0.5, 1.2 * pause)


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise PeerLost("the peer closed its connection")
        data += part
    return data
