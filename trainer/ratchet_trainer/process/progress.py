"""What this run shows of itself: `/progress`, `/metrics` and `/healthz` of process 0, read-only.

Decides the document, its revisions, and the long poll. Nobody can steer a run here (that is the word's matter), and a
reader never holds the step up: the step replaces one immutable document, threads of the server read it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ratchet_api.protocol import PORT, PROGRESS_LIMIT, V
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.ledger import OF_PHASE, Ledger

log = logging.getLogger(__name__)

HOLD_SECONDS = 30.0
"""A poll is answered after this even if nothing is new."""
HELD_AT_MOST = 32
"""Polls beyond this are answered at once."""
BIND_SECONDS = 5.0
PARTS = ("start", "restore", "compile")
"""Phases before the first step; what they took is shown as `parts`, with the first step itself."""


class Progress:
    """The present state, the books, and who waits for the next revision."""

    def __init__(self, environment: Environment):
        self._changed = threading.Condition()
        self._revision = 0
        self._prefix = f"{environment.jobset_uid[:8]}-{os.getpid()}"
        self._started = _process_start()
        self._safe_point = time.monotonic()
        self._parts_done = False
        self.ledger = Ledger(self._started)
        self.record: dict[str, Any] = {}  # metrics of the last step
        self.steps = self.skipped = 0  # of this attempt: complete steps, and updates left out
        self.document: dict[str, Any] = {
            "v": V,
            "jobUID": environment.uid,
            "attempt": environment.attempt,
            "jobSetUID": environment.jobset_uid,
            "phase": "start",
            "stage": None,
            "startStep": None,  # the step that this attempt went on from, once that is known
            "step": 0,
            "targetStep": None,
            "reward": None,
            "accuracy": None,
            "tokensPerSecond": None,
            "checkpoint": None,
            "boundary": None,
            "draining": False,
            "exactSince": None,
            "parts": {},
        }

    def update(self, **changes: Any) -> None:
        """Replaces entries of the document; a new revision if any differs."""
        with self._changed:
            if any(self.document[k] != v for k, v in changes.items()):
                self.document = self.document | changes
                self._revision += 1
                self._changed.notify_all()

    def enter(self, phase: str) -> None:
        """The main thread begins a phase; the seconds since the last call belong to the phase before."""
        self.alive()
        before = self.document["phase"]
        self.ledger.enter(OF_PHASE.get(phase, phase))
        changes: dict[str, Any] = {"phase": phase}
        if not self._parts_done and before in PARTS:
            changes["parts"] = self.document["parts"] | {before: self._spent(before)}
            if phase != before:
                log.info("%s took %.0f ms", before, 1e3 * self._spent(before))
        self.update(**changes)

    def _spent(self, phase: str) -> float:
        return round(self.ledger.seconds[OF_PHASE.get(phase, phase)], 3)

    def alive(self) -> None:
        """A safe point was passed, or a phase began."""
        self._safe_point = time.monotonic()

    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return time.monotonic() - self._safe_point

    def first_step_done(self) -> dict[str, float] | None:
        """The parts of this start, once the first step is done: start, restore, compile, step in seconds."""
        if self._parts_done:
            return None
        self.enter(self.document["phase"])
        self._parts_done = True
        parts = {phase: self._spent(phase) for phase in PARTS}
        parts["step"] = round(max(0.0, time.monotonic() - self._started - sum(parts.values())), 3)
        log.info(
            "first step done %.0f ms after the start of the process (%.0f ms of CPU): %s",
            1e3 * sum(parts.values()),
            1e3 * time.process_time(),
            parts,
        )
        return parts

    def answer(self, after: str | None) -> bytes:
        """The document as JSON, once its revision differs from `after` (an unknown one does at once)."""
        with self._changed:
            if after == self.revision:
                self._changed.wait_for(lambda: after != self.revision, HOLD_SECONDS)
            body = self.document | {
                "revision": self.revision,
                "lastSafePointAgeSeconds": round(self.silence(), 3),
            }
        data = json.dumps(body, separators=(",", ":")).encode()
        if len(data) > PROGRESS_LIMIT:  # only a rule's text could be so long
            data = json.dumps(body | {"boundary": None}, separators=(",", ":")).encode()
        return data

    @property
    def revision(self) -> str:
        return f"{self._prefix}-{self._revision}"


def serve(progress: Progress, address: str, metrics: Callable[[], bytes], port: int = PORT) -> ThreadingHTTPServer:
    """Serves in the background. Raises OSError when the port stays taken."""
    polls = threading.BoundedSemaphore(HELD_AT_MOST)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # of an idle connection

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path == "/progress":
                after = parse_qs(url.query).get("after", [None])[0]
                if after is not None and polls.acquire(blocking=False):
                    try:
                        self._send(200, "application/json", progress.answer(after))
                    finally:
                        polls.release()
                else:
                    self._send(200, "application/json", progress.answer(None))
            elif url.path == "/metrics":
                self._send(200, "text/plain; version=0.0.4; charset=utf-8", metrics())
            elif url.path == "/healthz":
                self._send(200, "text/plain", b"ok\n")
            else:
                self._send(404, "text/plain", b"known are /progress, /metrics and /healthz\n")

        def _send(self, status: int, kind: str, body: bytes) -> None:
            try:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the reader is gone

        def log_message(self, format: str, *args: Any) -> None:
            log.debug(format, *args)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connections = threading.BoundedSemaphore(2 * HELD_AT_MOST)

        def process_request(self, request: Any, client_address: Any) -> None:
            if self.connections.acquire(blocking=False):
                super().process_request(request, client_address)
            else:
                self.shutdown_request(request)

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            try:
                super().process_request_thread(request, client_address)
            finally:
                self.connections.release()

        request_queue_size = 64

        def server_bind(self) -> None:  # without the look-up of the host's name
            self.socket.bind(self.server_address)
            self.server_name, self.server_port = address, self.socket.getsockname()[1]

    deadline = time.monotonic() + BIND_SECONDS
    while True:
        try:
            server = Server((address, port), Handler)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(error.errno, f"{address}:{port} is taken by another program: {error.strerror}") from error
            time.sleep(0.05)
    threading.Thread(target=server.serve_forever, args=(0.5,), name="progress", daemon=True).start()
    return server


def _process_start() -> float:
    """When this process began, on the monotonic clock; Python's own start is part of every recovery."""
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rsplit(b")", 1)[1].split()[19])
        return min(
            time.monotonic(),
            ticks / os.sysconf("SC_CLK_TCK") - time.clock_gettime(time.CLOCK_BOOTTIME) + time.monotonic(),
        )
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic()
