"""Whatever the schedule: every call is answered with its own bits, nothing fails, nobody is called a poison wrongly."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from fleet_calls import answer, call
from schedules import Schedule
from served import Served

from ratchet_trainer import storage
from ratchet_trainer.fleet.board import Board
from ratchet_trainer.fleet.leases import MOST_ERRORS
from ratchet_trainer.storage import Location

PATIENCE = 10.0
WORKERS = 4


class Trial:
    """Two trainers, of which one does not know that it is fenced, workers that freeze and die, and somebody who removes
    and spoils objects."""

    def __init__(self, place: Location, seed: int, monkeypatch: pytest.MonkeyPatch):
        self.place, self.root = place, place / "fleet" / "1"
        self.real = {name: getattr(storage, name) for name in ("read", "write", "delete", "tree")}
        self.schedule, self.random = Schedule(seed, monkeypatch), Random(seed + 1)
        self.old = [call(n, step=1) for n in range(3)]
        self.calls = [call(n, step=step) for step in (2, 3) for n in range(4)]
        self.collected: dict[str, str] = {}
        self.unequal: list[Any] = []
        self.misfortunes: Counter[str] = Counter()  # what may be held against a call, by its folder
        self.at: dict[str, str] = {}  # worker -> folder
        self.born = 0

    def board(self, worker: str = "") -> Board:
        return Board(self.place, 1, worker, PATIENCE, self.schedule.clock)

    def trainer(self) -> None:
        board = self.board()
        waiting = {one.folder: one for one in self.calls if one.folder not in self.collected}
        board.publish(waiting.values())
        while waiting:
            board.announce(waiting.values())
            for folder, found in board.collect(waiting.values()).items():
                self.collected[folder] = found.digest
                del waiting[folder]
            for folder in board.poisoned(waiting.values()):
                assert self.misfortunes[folder] >= MOST_ERRORS, f"{folder} has done nothing"
                self.misfortunes[folder] = 0
                storage.delete_tree(self.root / folder)
                board = self.board()  # the job was edited and begins again
                board.publish(waiting.values())
            self.unequal = board.unequal()
            self.schedule.sleep(1.0)

    def zombie(self) -> None:
        """Listed before its last append, and goes on since it does not know better."""
        board = self.board()
        board.publish(self.old)
        names = board.list_old(1, ())
        for _ in range(6):
            board.announce(self.old)
            board.collect(self.old)
            self.schedule.sleep(self.random.uniform(1, 15))
        board.delete(names)

    def worker(self, name: str) -> None:
        board = self.board(name)
        while True:
            board.beat()
            found = board.next_call()
            lease = board.take(found) if found is not None else None
            if found is None or lease is None:
                self.schedule.sleep(1.0)
                continue
            self.at[name] = found.folder
            for _ in range(self.random.randrange(4)):
                self.schedule.sleep(self.random.uniform(0, PATIENCE / 3))
                lease.renew()
            if self.random.random() < 0.1:
                self.misfortunes[found.folder] += 1
                lease.end(failed=True)
                continue
            kind = self.random.random()
            if kind < 0.1:
                self.misfortunes[found.folder] += 1
                storage.create(self.root / found.folder / f"result-{board._newest(found.folder)}", b"torn")
            elif kind < 0.9:
                board.put(found, answer(found, name))
            lease.end()
            self.at.pop(name, None)

    def be_born(self) -> None:
        name = f"w{self.born}"
        self.born += 1
        self.schedule.start(name, lambda: self.worker(name))

    def vandal(self) -> None:
        """Removes an object, or makes noise of it."""
        there = [name for name in self.real["tree"](self.root) if not name.rpartition("/")[2].startswith(".")]
        if not there:
            return
        name = self.random.choice(there)
        if "/result-" in name or name.endswith("lease"):
            self.misfortunes[name.rpartition("/")[0]] += 1
        if self.random.random() < 0.5:
            self.real["delete"](self.root / name)
        else:
            data = self.real["read"](self.root / name) or b""
            self.real["write"](self.root / name, self.random.choice((b"", b"noise", data[:-1])))

    def misfortune(self) -> None:
        alive = [n for n, one in self.schedule.actors.items() if n.startswith("w") and not one.over]
        kind = self.random.random()
        if kind < 0.3:
            self.vandal()
        elif kind < 0.4:
            self.schedule.kill("trainer")
            self.schedule.start("trainer", self.trainer)
        elif alive and kind < 0.8:
            victim = self.random.choice(alive)
            self.misfortunes[self.at.get(victim, "")] += 1
            self.schedule.freeze(victim, self.random.uniform(1, 4 * PATIENCE))
        elif alive:
            victim = self.random.choice(alive)
            self.misfortunes[self.at.get(victim, "")] += 1
            self.schedule.kill(victim)
            self.be_born()

    def run(self) -> None:
        self.schedule.start("trainer", self.trainer)
        self.schedule.start("zombie", self.zombie)
        for _ in range(WORKERS):
            self.be_born()
        try:
            for _ in range(25):
                for _ in range(self.random.randrange(40)):
                    self.schedule.step()
                self.misfortune()
            done = {one.folder for one in self.calls}
            self.schedule.run(lambda: self.collected.keys() == done, 50_000)
        finally:
            self.schedule.end()
        assert self.collected == {one.folder: answer(one).digest for one in self.calls}
        assert self.unequal == []


@pytest.mark.parametrize("seed", range(25))
def test_any_schedule_on_a_path(tmp_path: Any, seed: int, monkeypatch: pytest.MonkeyPatch, quickly: None) -> None:
    Trial(Location.parse(tmp_path), seed, monkeypatch).run()


@pytest.mark.parametrize("seed", range(4))
def test_any_schedule_in_a_bucket(served: Served, seed: int, monkeypatch: pytest.MonkeyPatch, quickly: None) -> None:
    Trial(served.bucket() / "jobs", seed, monkeypatch).run()
