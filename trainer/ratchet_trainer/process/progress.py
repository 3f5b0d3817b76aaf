"""What this run shows of itself: `/progress` and `/healthz` of process 0, `/metrics` of every process, read-only.

Decides the document, its revisions, and the long poll. Nobody can steer a run here (that is the stage gate's matter),
and a reader never holds the step up: the step replaces one immutable document, threads of the server read it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ratchet_api.protocol import V
from ratchet_api.protocol.documents import progress_answer
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.ledger import OF_PHASE, Ledger
from ratchet_trainer.process.totals import Totals

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
        self.totals = Totals()
        self.document: dict[str, Any] = {
            "v": V,
            "jobUID": environment.uid,
            "attempt": environment.attempt,
            "jobSetUID": environment.jobset_uid,
            "phase": "start",
            "stage": None,
            "startStep": None,  # the step that this attempt went on from, once that is known
            "inherited": None,  # the job whose step that is, where it is another's
            "step": 0,
            "targetStep": None,
            "reward": None,
            "accuracy": None,
            "tokensPerSecond": None,
            "checkpoint": None,
            "boundary": None,
            "draining": False,
            "exactSince": None,
            "learning": None,
            "artifacts": [],
            "trackers": None,
            "rollouts": None,  # of a fleet: what is waited for, or what a worker has done
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
        return progress_answer(body)

    @property
    def revision(self) -> str:
        return f"{self._prefix}-{self._revision}"


Answer = tuple[bytes, str]
"""Body and Content-Type."""
Page = Callable[[dict[str, list[str]], str], Answer]
"""What answers a path, given the query and the Accept header."""


def pages(progress: Progress) -> dict[str, Page]:
    """What process 0 shows to the operator."""
    polls = threading.BoundedSemaphore(HELD_AT_MOST)

    def shown(query: dict[str, list[str]], accept: str) -> Answer:
        after = query.get("after", [None])[0]
        if after is None or not polls.acquire(blocking=False):
            return progress.answer(None), "application/json"
        try:
            return progress.answer(after), "application/json"
        finally:
            polls.release()

    return {"/progress": shown, "/healthz": lambda query, accept: (b"ok\n", "text/plain")}


def serve(pages: dict[str, Page], address: str, port: int) -> ThreadingHTTPServer:
    """Serves pages in the background. Raises OSError when the port stays taken."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60  # of an idle connection

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if (page := pages.get(url.path)) is not None:
                self._send(200, *page(parse_qs(url.query), self.headers.get("Accept", "")))
            else:
                self._send(404, f"known here: {', '.join(pages)}\n".encode(), "text/plain")

        def _send(self, status: int, body: bytes, kind: str) -> None:
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
