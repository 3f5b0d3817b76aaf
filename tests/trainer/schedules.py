"""Many processes on one store, as threads of which one runs at a time: which one goes on is drawn anew before every
operation on the storage, so a seed is a schedule. Time is a number that the schedule moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
from fleet_calls import Clock

from ratchet_trainer import storage
from ratchet_trainer.fleet import board

OPERATIONS = ("read", "read_all", "read_range", "exists", "create", "write", "delete", "delete_tree", "names", "tree")


TICKS = (0.0, 0.01, 0.1, 0.5)
"""Seconds that pass between two operations."""


class Killed(BaseException):
    """A process that is no more."""


class Actor:
    def __init__(self, name: str, body: Callable[[], None]):
        self.name, self.body = name, body
        self.go, self.paused = threading.Semaphore(0), threading.Semaphore(0)
        self.over = self.killed = False
        self.error: BaseException | None = None
        self.frozen_until = self.asleep_until = 0.0

    @property
    def wakes(self) -> float:
        return max(self.frozen_until, self.asleep_until)


class Schedule:
    """schedule.start("w0", work); schedule.run(until=lambda: done)"""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch, ticks: Sequence[float] = TICKS):
        self.random, self.clock = Random(seed), Clock()
        self.actors: dict[str, Actor] = {}
        self.operations, self._ticks = 0, ticks
        self._own = threading.local()
        for name in OPERATIONS:
            monkeypatch.setattr(storage, name, self._pausing(getattr(storage, name)))
        monkeypatch.setattr(board, "_each", lambda function, things: list(map(function, things)))

    def start(self, name: str, body: Callable[[], None]) -> None:
        actor = self.actors[name] = Actor(name, body)

        def run() -> None:
            self._own.actor = actor
            try:
                self.pause()
                body()
            except Killed:
                pass
            except BaseException as error:
                actor.error = error
            actor.over = True
            actor.paused.release()

        threading.Thread(target=run, name=name, daemon=True).start()
        actor.paused.acquire()

    def pause(self) -> None:
        """Lets others go on."""
        actor = getattr(self._own, "actor", None)
        if actor is not None:
            actor.paused.release()
            actor.go.acquire()
            if actor.killed:
                raise Killed

    def sleep(self, seconds: float) -> None:
        self._own.actor.asleep_until = self.clock.now + seconds
        self.pause()

    def step(self) -> None:
        """One of those that are awake goes on to its next operation."""
        alive = [actor for actor in self.actors.values() if not actor.over]
        self.clock.now = max(self.clock.now + self.random.choice(self._ticks), min(actor.wakes for actor in alive))
        self._on(self.random.choice([actor for actor in alive if actor.wakes <= self.clock.now]))

    def freeze(self, name: str, seconds: float) -> None:
        self.actors[name].frozen_until = self.clock.now + seconds

    def kill(self, name: str) -> None:
        actor = self.actors[name]
        if not actor.over:
            actor.killed = True
            self._on(actor)

    def run(self, until: Callable[[], bool], most: int) -> None:
        for _ in range(most):
            if until():
                break
            self.step()
        else:
            raise AssertionError(f"not done after {most} steps")

    def end(self) -> None:
        for name in self.actors:
            self.kill(name)

    def _on(self, actor: Actor) -> None:
        actor.go.release()
        actor.paused.acquire()
        if actor.error is not None:
            raise actor.error

    def _pausing(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def paused(*arguments: Any, **named: Any) -> Any:
            self.pause()
            self.operations += 1
            return operation(*arguments, **named)

        return paused
