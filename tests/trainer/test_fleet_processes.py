"""Several processes of a trainer wait for workers: they meet at the same points whatever their clocks say, and take the
same answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fleet_calls import SHA, answer

from ratchet_trainer.fleet import board as boards
from ratchet_trainer.fleet import sampling
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.sampling import FleetSampling
from ratchet_trainer.rollout.engine import Shape
from ratchet_trainer.rollout.sampling_call import SamplingCall
from ratchet_trainer.storage import Location

SECONDS = 20.0
ASKED = SamplingCall("one", 0, 2, 0, 8, ((1, 2, 3), (4, 5)), (0, 1), (0, 0), (4, 4))


class Meeting:
    """Where the processes meet; that they are at different points there is an error."""

    def __init__(self, processes: int):
        self.said: list[Any] = [None] * processes
        self.barrier = threading.Barrier(processes)

    def all(self, process: int, point: str, value: Any) -> list[Any]:
        self.said[process] = point, value
        self.barrier.wait(SECONDS)
        said = list(self.said)
        self.barrier.wait(SECONDS)
        assert len({other for other, _ in said}) == 1, [other for other, _ in said]
        return [one for _, one in said]


class Process:
    """One of them. `at`: what it does at each safe point."""

    processes = 2

    def __init__(self, process: int, meeting: Meeting, at: Callable[[], None]):
        self.process, self._meeting, self._at = process, meeting, at

    def gather(self, value: Any) -> list[Any]:
        return self._meeting.all(self.process, "gather", value)

    def broadcast(self, value: Any) -> Any:
        return self._meeting.all(self.process, "broadcast", value)[0]

    def enter(self, phase: str) -> None:
        """Nobody looks."""

    def safe_point(self) -> None:
        self._meeting.all(self.process, "safe point", None)
        if self.process == 0:
            self._at()
        self._meeting.all(self.process, "safe point", None)


class Watch:
    """Of workers of two kinds, of which one is refused."""

    def __init__(self, refused: str = ""):
        self._refused = refused

    def waits(self) -> None:
        """Nobody counts."""

    def arrived(self, results: int) -> None:
        """Nobody counts."""

    def damaged(self, versions: Any) -> set[str]:
        return set()

    def mend(self, version: str) -> None:
        raise AssertionError("nothing is damaged")

    def look(self, board: Board, missing: Sequence[Call], newest: str) -> None:
        """There are enough."""

    def refuses(self, identity: str) -> str | None:
        return "is of another kind" if identity == self._refused else None


def waited(place: Location, at: Callable[[], None], refused: str = "") -> list[np.ndarray]:
    """The tokens that each of two processes gets for a call, once a worker has answered it at some point."""
    meeting, shape = Meeting(2), Shape(4, 8, 4)

    def process(number: int) -> np.ndarray:
        group: Any = Process(number, meeting, at)
        one = FleetSampling(group, Board(place, 1), (0, SHA), shape, SHA, Watch(refused))  # type: ignore[arg-type]
        one.bind(1, SHA, "first")
        (sampled,) = one.responses([ASKED], lambda call: pytest.fail("workers make it"))
        return np.asarray(sampled.tokens)

    with ThreadPoolExecutor(2) as pool:
        try:
            return [one.result(SECONDS) for one in [pool.submit(process, number) for number in range(2)]]
        finally:
            meeting.barrier.abort()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boards, "PATIENCE_ON_PATHS", 0.01)


def open_call(place: Location) -> Call:
    board = Board(place, 1)
    (folder,) = board.open_folders()
    data = (board.folder / folder / boards.CALL).local.read_bytes()
    return Call.from_bytes(data, folder)


def test_clocks_of_processes_decide_nothing_that_they_do_together(tmp_path, monkeypatch) -> None:
    clocks, looks = {"first": 0.0, "other": 0.0}, iter(range(6))

    def monotonic() -> float:
        name = "first" if threading.current_thread().name.endswith("_0") else "other"
        clocks[name] += 3.0 if name == "first" else 0.1
        return clocks[name]

    monkeypatch.setattr(sampling, "time", SimpleNamespace(monotonic=monotonic, sleep=lambda seconds: None))
    place = Location.parse(tmp_path)

    def at() -> None:
        if next(looks) == 5:
            asked = open_call(place)
            Board(place, 1, "w0").put(asked, answer(asked))

    first, other = waited(place, at)
    np.testing.assert_array_equal(first, other)


def test_processes_take_the_same_answer_where_one_was_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sampling, "LOOK_SECONDS", (0.002, 0.002))
    place, odd, looks = Location.parse(tmp_path), "f" * 64, iter(range(1000))

    def at() -> None:
        look = next(looks)
        assert look < 500, "they do not agree"
        if look == 1:
            asked = open_call(place)
            Board(place, 1, "w0").put(asked, answer(asked, "w0", odd, change=1))
        elif look > 1:
            asked = open_call(place)
            if Board(place, 1)._newest(asked.folder) == 1:
                Board(place, 1, "w1").put(asked, answer(asked, "w1"))

    first, other = waited(place, at, refused=odd)
    np.testing.assert_array_equal(first, other)
