"""A thousand calls and sixty-four workers on one store: what a call costs it in requests does not grow with either."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_calls import answer, call
from schedules import Schedule

from ratchet_trainer.fleet.board import Board
from ratchet_trainer.storage import Location

PATIENCE = 30.0
LOOK = 5.0
"""Seconds between two looks of the trainer, or of a worker that found nothing."""


def whole_round(
    place: Location, calls: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, int, Schedule]:
    """Samples some calls of ten to twenty seconds each. Returns how many were sampled, and how often somebody looked in
    vain or, as the trainer does, again and again."""
    schedule = Schedule(0, monkeypatch, ticks=(0.0, 0.001))
    asked = {one.folder: one for one in map(call, range(calls))}
    done: dict[str, str] = {}
    sampled, looks = 0, 0

    def board(worker: str = "") -> Board:
        return Board(place, 1, worker, PATIENCE, schedule.clock)

    def trainer() -> None:
        nonlocal looks
        mine = board()
        mine.publish(asked.values())
        while len(done) < calls:
            waiting = [one for folder, one in asked.items() if folder not in done]
            mine.announce(waiting)
            done.update({folder: found.digest for folder, found in mine.collect(waiting).items()})
            assert mine.poisoned(waiting) == []
            mine.workers()
            looks += 1
            schedule.sleep(LOOK)

    def worker(name: str) -> None:
        nonlocal sampled, looks
        mine = board(name)
        while True:
            found = mine.next_call()
            if found is None or (lease := mine.take(found)) is None:
                looks += 1
                schedule.sleep(LOOK)
                continue
            sampled += 1
            for _ in range(schedule.random.choice((1, 2))):
                schedule.sleep(PATIENCE / 3)
                lease.renew()
                mine.beat()
            assert mine.put(found, answer(found, name))
            lease.end()

    schedule.start("trainer", trainer)
    for n in range(workers):
        schedule.start(f"w{n}", lambda name=f"w{n}": worker(name))
    try:
        schedule.run(lambda: len(done) == calls, 1_000_000)
    finally:
        schedule.end()
    assert done == {folder: answer(one).digest for folder, one in asked.items()}
    return sampled, looks, schedule


def test_requests_to_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled, looks, schedule = whole_round(Location.parse(tmp_path), 1000, 64, monkeypatch)
    assert sampled == 1000, "nothing is done twice"
    assert schedule.operations < 45 * 1000 + 4 * looks
