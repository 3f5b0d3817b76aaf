"""The workers, as the trainer that waits for them sees them.

Decides when it is not worth waiting any longer: too few workers for too long, or a call that ends whoever takes it.
What else it notices it tells: weights that workers cannot read, unequal answers, how many results come in.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ratchet_trainer.errors import CallPoisoned, NoWorkers
from ratchet_trainer.fleet.board import Board, Unequal
from ratchet_trainer.fleet.call import Call

LOOK_SECONDS = 1.0
"""How often it is told what is there, and answers are looked at that are not equal."""
RATE_SECONDS = 30.0
"""Over which results a second are counted."""


class FleetWatch:
    """Looks after the workers of one stage while their results are waited for."""

    def __init__(
        self,
        least: int,
        seconds: float,
        tell: Callable[[dict[str, Any]], None],
        damaged: Callable[[], Collection[str]],
        mend: Callable[[str], None],
        refuses: Callable[[str], str | None],
        doubt: Callable[[int, str], None],
    ):
        """`least`: workers that are worth waiting with; without so many for so many `seconds` the trainer leaves.
        `tell` shows what it finds, `damaged` says which weights workers could not read, `mend` publishes such again
        (collective), `refuses` says why what a machine of some identity made cannot be used, `doubt` is told
        of a step, and why its bits need not be those of another run."""
        self._least, self._seconds, self._tell, self._damaged = least, seconds, tell, damaged
        self.mend, self.refuses, self._doubt = mend, refuses, doubt
        self._unequal: set[Unequal] = set()  # answers that were told of
        self._compared = 0.0
        self._short_since: float | None = None
        self._arrivals: deque[tuple[float, int]] = deque()  # when, and how many results
        self._shown: dict[str, Any] = {}
        self._told = 0.0

    def waits(self) -> None:
        """The trainer begins to wait."""
        self._short_since = None

    def arrived(self, results: int) -> None:
        """So many calls were answered."""
        now = time.monotonic()
        if results:
            self._arrivals.append((now, results))
        while self._arrivals and now - self._arrivals[0][0] > RATE_SECONDS:
            self._arrivals.popleft()

    def damaged(self, versions: Collection[str]) -> set[str]:
        """Which of these weights workers could not read."""
        return set(versions) & set(self._damaged())

    def look(self, board: Board, missing: Sequence[Call], newest: str) -> None:
        """On process 0. `newest`: the digest of the newest weights. Raises NoWorkers, CallPoisoned."""
        if poison := board.poisoned(missing):
            raise CallPoisoned(
                f"{board.folder / poison[0]}: worker after worker ended while it sampled this call; look at their "
                "logs, then give them more memory, or remove that folder to have it tried again"
            )
        workers, now = board.workers(), time.monotonic()
        if now - self._compared > LOOK_SECONDS:
            self._compared = now
            for one in sorted(set(board.unequal()) - self._unequal, key=str):
                self._unequal.add(one)
                self._doubt(
                    one.step,
                    f"workers {one.workers[0]} and {one.workers[1]} answered {one.folder} unequally, and the first "
                    "answer counts; look for a bad chip",
                )
        rate = round(sum(count for _, count in self._arrivals) / RATE_SECONDS, 2)
        shown = {"workers": len(workers), "waitingCalls": len(missing), "version": newest, "resultsPerSecond": rate}
        if shown != self._shown and now - self._told > LOOK_SECONDS:
            self._shown, self._told = shown, now
            self._tell(shown)
        if len(workers) >= self._least:
            self._short_since = None
            return
        self._short_since = now if self._short_since is None else self._short_since
        if now - self._short_since > self._seconds:
            raise NoWorkers(
                f"{len(workers)} of at least {self._least} workers were there for {self._seconds:.0f} s "
                "(spec.rollouts.waitSeconds); the job goes on once they run"
            )
