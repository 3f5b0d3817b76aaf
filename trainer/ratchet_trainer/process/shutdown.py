"""Leaving in time: SIGTERM, lost peers, and the one way out of the process.

Decides when a process that was told to go may go, and what the others hear of it. A Python signal handler runs late (5
s were seen during a compile), so the signal only wakes a watchdog thread. Where collectives run, leaving is agreed on
at safe points (`runtime.py`); where none can run (import, restore, compile, waiting at a boundary) the watchdog itself
leaves, once no save is in flight. A peer whose connection breaks without a farewell is lost, and nobody waits for it. A
main thread that shows no sign of life for too long hangs: its stacks are left as evidence, and the process ends.

The exit is `os._exit`: JAX's own shutdown is a barrier with a time-out of minutes.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet_api.protocol import SPOT_GRACE_SECONDS, Exit
from ratchet_trainer.errors import DRAINED, PeerLost, TrainerError
from ratchet_trainer.process import stacks, termination_message
from ratchet_trainer.process.agreement import Line

log = logging.getLogger(__name__)

SPARE_SECONDS = 4.0
"""Without a safe point until so long before the grace is over a process leaves with what is committed."""
LAST_SAVE_SECONDS = 2.0
"""How long the save in flight may still take when a peer is lost, or once only SPARE_SECONDS are left."""
LAST_ACT_SECONDS = 1.0
FRAMES_BYTES = 3072
TICK_SECONDS = 1.0
"""How often a hang is looked for."""
START_PATIENCE = 3600.0
"""Seconds without a sign of life before the run has said how many it may need."""
FAREWELL_SECONDS = 1.0
"""How long process 0 stays for the others to leave first: they abort when the coordinator in it goes."""


@dataclass
class Standing:
    """What the termination message tells of the run. Written by the main thread, read by the watchdog."""

    step: int = 0  # the last committed step
    boundary: dict[str, Any] | None = None  # of the stage end that waits at the stage gate
    stage: dict[str, Any] | None = None  # the stage that waits there, or whose budget is spent
    reason: str = DRAINED  # of a process that is told to go, and in words, where the run has some
    text: str = ""


class Watchdog:
    """Hears signals and peers on a thread of its own, and ends the process."""

    def __init__(self, termination_log: Path):
        self.requested = False  # somebody told this process, or a peer, to go
        self.standing = Standing()
        self.grace = float(SPOT_GRACE_SECONDS)  # from the signal to the process's end by force
        self.free = True  # whether the main thread is where no collective can run
        self.flight: Callable[[], Future[Any] | None] = lambda: None  # the save in flight, or how the last one ended
        self.on_request: Callable[[], None] = lambda: None
        self.last_act: Callable[[int], None] = lambda code: None  # done with the exit code, just before the end
        self.patience = START_PATIENCE  # seconds without a sign of life after which the main thread hangs
        began = time.monotonic()
        self.silence: Callable[[], float] = lambda: time.monotonic() - began  # since the last sign of life
        self.keep_log: Callable[[], object] = lambda: None  # done beside the last act
        self.claimed: Callable[[], None] = lambda: None  # called once the checkpoint directory is this job's
        self._termination_log = termination_log
        self._since: float | None = None
        self._line: Line | None = None
        self._left: dict[int, int] = {}  # peer -> exit code that it said farewell with
        self._leaving = threading.RLock()  # the thread whose leaving failed may try again
        self._sending = threading.Lock()
        self._news = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()

    def install(self) -> None:
        """Takes SIGTERM and SIGINT over. To be called on the main thread, before anything slow is imported."""
        for end in (self._wake, self._waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        threading.Thread(target=self._guarded_watch, name="watchdog", daemon=True).start()

    def attach(self, line: Line) -> None:
        """Begins to watch the peers."""
        self._line = line
        for process, connection in line.sockets.items():
            self._selector.register(connection, selectors.EVENT_READ, process)
        self._poke()

    def request(self) -> None:
        """Asks the whole gang to go, as a signal would."""
        self._waker.send(bytes([signal.SIGTERM]))
        self.requested = True

    def seconds_to_finish(self) -> float:
        """How long what was begun may still take: until half of the grace is over, so that a save fits after it."""
        waited = 0.0 if self._since is None else time.monotonic() - self._since
        return self.grace / 2 - waited

    def leave(self, code: int, reason: str, text: str, owner: dict[str, Any] | None = None) -> None:
        """Ends the process: termination message, farewell to the peers, exit. Does not return."""
        self._leaving.acquire()  # never released: who comes second waits for the end
        standing = self.standing
        log.info("leaving with %d (%s): %s", code, reason, text)
        if code != Exit.DONE:
            content = termination_message.message(reason, text, standing.step, standing.boundary, owner, standing.stage)
            termination_message.write(self._termination_log, content)
        self._tell({"farewell": int(code)})
        if self._line is not None and self._line.process == 0:
            self._outlive()
        self._act_at_last(code)
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code))

    def _act_at_last(self, code: int) -> None:
        """At most LAST_ACT_SECONDS: it writes to storage, which may hang."""
        acts = [
            threading.Thread(target=self.last_act, args=(int(code),), daemon=True),
            threading.Thread(target=self.keep_log, daemon=True),
        ]
        deadline = time.monotonic() + LAST_ACT_SECONDS
        for act in acts:
            act.start()
        for act in acts:
            act.join(max(0.0, deadline - time.monotonic()))

    def farewell_of_peers(self, seconds: float) -> int | None:
        """The first exit code other than 0 that a peer said farewell with, waiting for it at most so long."""
        with self._news:
            self._news.wait_for(lambda: any(self._left.values()), seconds)
            return next((code for code in self._left.values() if code), None)

    def peer_lost(self, text: str) -> None:
        """A collective or a line broke: leaves as the peer's farewell says, 69 if it said none. Does not return."""
        if self.farewell_of_peers(0.5) == Exit.DRAINED:
            self.settle(LAST_SAVE_SECONDS)
            self._drain("a peer was told to go")
        self.settle(LAST_SAVE_SECONDS)
        self.leave(Exit.PEER_LOST, "PeerLost", text)

    def saving(self) -> bool:
        """Whether a save is in flight."""
        flight = self.flight()
        return flight is not None and not flight.done()

    def settle(self, seconds: float) -> None:
        """Waits for the save in flight, at most so long."""
        deadline = time.monotonic() + seconds
        while self.saving() and time.monotonic() < deadline:
            time.sleep(0.005)

    def _drain(self, text: str) -> None:
        flight = self.flight()
        error = flight.exception() if flight is not None and flight.done() else None
        if isinstance(error, TrainerError) and not isinstance(error, PeerLost):
            self.leave(error.exit, error.reason, str(error), getattr(error, "owner", None))
        self.leave(Exit.DRAINED, self.standing.reason, self.standing.text or text)

    # The thread

    def _guarded_watch(self) -> None:
        try:
            self._watch()
        except Exception as error:  # without this thread nobody would hear of signals and lost peers
            log.exception("the watchdog failed")
            try:
                self.leave(Exit.INTERNAL, type(error).__name__, f"the watchdog failed: {error}")
            except Exception:  # it was leaving that failed
                os._exit(int(Exit.INTERNAL))

    def _watch(self) -> None:
        while True:
            self._look_for_a_hang()
            for key, _ in self._selector.select(0.02 if self.requested else TICK_SECONDS):
                if key.data is None:
                    self._signalled()
                else:
                    self._heard(key.data, key.fileobj)
            if self._since is not None:
                waited = time.monotonic() - self._since
                notice = max(self.grace - SPARE_SECONDS, self.grace / 2)
                overdue = waited > notice
                may_go = self.free or overdue or Exit.DRAINED in self._left.values()
                if may_go and (not self.saving() or waited > notice + LAST_SAVE_SECONDS):
                    self._drain("no safe point was reached in time" if overdue else "told to go")

    def _look_for_a_hang(self) -> None:
        silence = self.silence()
        if silence > self.patience:
            faulthandler.dump_traceback(sys.stderr, all_threads=True)
            text = f"no sign of life for {silence:.0f} s, more than {self.patience:.0f}; the newest frames:\n"
            self.leave(Exit.HUNG, "Hung", text + stacks.newest_frames(FRAMES_BYTES))

    def _signalled(self) -> None:
        try:
            numbers = self._wake.recv(64)
        except BlockingIOError:
            return
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._request()

    def _heard(self, process: int, connection: Any) -> None:
        assert self._line is not None
        try:
            news = self._line.receive(process)
        except PeerLost:
            self._selector.unregister(connection)
            if process not in self._left:
                self.settle(LAST_SAVE_SECONDS if self._line.process == 0 else 0.0)
                self.leave(Exit.PEER_LOST, "PeerLost", f"process {process} ended without a word")
            return
        if "notice" in news:
            self._request()
            return
        code = int(news["farewell"])
        with self._news:
            self._left[process] = code
            self._news.notify_all()
        if code == Exit.DRAINED:
            self._request()
        elif code != Exit.DONE:
            # The same error may be on its way here: a process that fails of itself says more than "a peer was lost".
            threading.Timer(
                0.0 if code == Exit.PEER_LOST else 0.5,
                self.leave,
                (Exit.PEER_LOST, "PeerLost", f"process {process} left with {code}"),
            ).start()

    def _request(self) -> None:
        if self._since is None:
            self._since = time.monotonic()
            self.requested = True
            log.info("told to go")
            self.on_request()
            self._tell({"notice": True})

    def _tell(self, news: dict[str, Any]) -> None:
        if self._line is None:
            return
        with self._sending:
            for process in self._line.sockets:
                try:
                    self._line.send(process, news)
                except PeerLost:
                    continue  # gone before us; the watch on its connection says so

    def _outlive(self) -> None:
        assert self._line is not None
        deadline = time.monotonic() + FAREWELL_SECONDS
        for connection in self._line.sockets.values():
            try:
                connection.settimeout(max(0.001, deadline - time.monotonic()))
                while connection.recv(4096):
                    connection.settimeout(max(0.001, deadline - time.monotonic()))
            except OSError:
                continue  # gone, or too slow to wait for

    def _poke(self) -> None:
        self._waker.send(b"\x00")
