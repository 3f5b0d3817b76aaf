"""The board: calls that wait, and what workers answered, as objects below `fleet/` of the checkpoint directory.

    fleet/LINEAGE/open.json                           folders of the calls that wait, in order
    fleet/LINEAGE/STAGE-STEP/ROUND-NUMBER-DIGEST/     one call
        call        its bytes (call.py)
        lease       who is at it, and `alive-...` beside it (leases.py)
        result-I    what was answered (result.py); the lowest valid I counts
        retry-I     result-I is asked for, since the one before it cannot be used; made by the trainer
    fleet/LINEAGE/unequal/...                         answers that are not what another worker answered
    fleet/LINEAGE/workers/NAME                        signs of life (heartbeats.py)
    fleet/LINEAGE/versions/DIGEST/                    weights (versions.py)

Decides names, and that everything but results may be lost or written again by anybody: a call's bytes follow from its
name, `open.json` is a hint, a lease advice. A result is created if absent and never replaced, so a worker that was
frozen, or a second one, changes nothing. What is looked at again and again is looked at once in `patience`, or twice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from ratchet_trainer import storage
from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.call import FOLDER, Call, Damaged
from ratchet_trainer.fleet.heartbeats import Heartbeats
from ratchet_trainer.fleet.leases import LEASE, Holding, Lease, Leases
from ratchet_trainer.fleet.result import Result
from ratchet_trainer.fleet.retention import Retention
from ratchet_trainer.fleet.silence import Silence
from ratchet_trainer.storage import Location, with_retries

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
H = TypeVar("H", list[str], str)

FLEET = "fleet"
CALL = "call"
OPEN = "open.json"
UNEQUAL = "unequal"
WORKERS = "workers"
PATIENCE_ON_PATHS, PATIENCE_ON_BUCKETS = 5.0, 30.0
"""Seconds of silence after which a lease is free and a worker counts as gone."""
MOST_RETRIES = 3
"""Answers to one call that cannot be used, before it counts as one that no worker answers."""
BY_NAME = 4
"""Times `patience` until a call is looked at by name, if no listing shows its result."""
NEAR, SOON = 32, 6
"""So many of the calls that a worker would take first are looked at again so many times in `patience`: whoever is lost
at the end of a step holds all up. The others, twice."""
AT_ONCE = 16


@dataclass(frozen=True)
class Unequal:
    """Two answers to one call that are not the same."""

    folder: str
    digests: tuple[str, str]
    workers: tuple[str, str]

    @property
    def step(self) -> int:
        """The one that the call was for."""
        return int(self.folder.partition("/")[0].rpartition("-")[2])


class Board:
    """The board of one lineage in a checkpoint directory, as the trainer or a worker sees it. Everything that must be
    read or written raises StorageUnavailable after retries."""

    def __init__(
        self,
        root: Location,
        lineage: int,
        worker: str = "",
        patience: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """`root`: the checkpoint directory. `worker`: the name of who looks for calls; the trainer needs none."""
        self.patience = patience or (PATIENCE_ON_BUCKETS if root.on_bucket else PATIENCE_ON_PATHS)
        self.folder = root / FLEET / str(lineage)
        self.worker = worker
        self.retention = Retention(root / FLEET, lineage)
        self._leases = Leases(worker, self.patience, clock)
        self._heartbeats = Heartbeats(self.folder / WORKERS, self.patience, clock)
        self._looks = Silence(clock)
        self._failed: dict[tuple[str, int], int] = {}  # results that could not be used -> how often
        self._refused: set[tuple[str, int]] = set()  # those of them that are whole, but of another machine

    # The trainer's side

    def publish(self, calls: Iterable[Call]) -> None:
        """Makes calls exist; those that do already stay as they are."""
        listed = list(calls)
        with_retries(f"publishing calls to {self.folder}", lambda: _each(self._publish, listed))

    def _publish(self, call: Call) -> None:
        place = self.folder / call.folder / CALL
        if not storage.create(place, call.to_bytes()):
            self._mend(call, storage.read(place))

    def _mend(self, call: Call, found: bytes | None) -> None:
        if found != (data := call.to_bytes()):
            log.warning("%s is gone or damaged and is written again", self.folder / call.folder)
            storage.write(self.folder / call.folder / CALL, data)

    def announce(self, calls: Iterable[Call], weights: str = "") -> None:
        """Says which calls wait, the first to be answered first, and which weights come next. To be called with every
        look for results: an older trainer that thaws may have written its own, and what is there is replaced only where
        it differs."""
        place = self.folder / OPEN
        said = {"v": 1, "open": [call.folder for call in calls], "weights": weights}
        data = json.dumps(said, separators=(",", ":")).encode()

        def write() -> None:
            if storage.read(place) != data:
                storage.write(place, data, durable=False)

        with_retries(f"writing {place}", write)

    def collect(self, calls: Iterable[Call]) -> dict[str, Result]:
        """What of these calls is answered, by their folders. To be called with those whose results are not there yet.
        One listing a step shows what came, and which calls are lost; those are made anew. What it does not show is
        looked for by name now and then, and whether the call is still the one that was published."""
        waiting = list(calls)
        found = with_retries(f"looking for results in {self.folder}", lambda: self._collect(waiting))
        return {folder: result for folder, result in found if result is not None}

    def _collect(self, calls: Sequence[Call]) -> list[tuple[str, Result | None]]:
        listed: dict[str, list[int]] = {}
        there: set[str] = set()
        for step in dict.fromkeys(call.folder.partition("/")[0] for call in calls):
            for name in storage.tree(self.folder / step):
                folder, _, last = name.rpartition("/")
                if last == CALL:
                    there.add(f"{step}/{folder}")
                if last.startswith("result-") and last[7:].isdigit():
                    listed.setdefault(f"{step}/{folder}", []).append(int(last[7:]))

        def one(call: Call) -> tuple[str, Result | None]:
            found = self._best(call, sorted(listed.get(call.folder, ())))
            by_name = found is None and self._is_due("by name", call.folder, BY_NAME)
            lost = found is None and call.folder not in there and self._is_due("lost", call.folder)
            if by_name or lost:
                self._mend(call, storage.read(self.folder / call.folder / CALL))
            if by_name:
                found = self._best(call, range(self._newest(call.folder) + 1))
            return call.folder, found

        return _each(one, calls)

    def _best(self, call: Call, numbers: Iterable[int]) -> Result | None:
        """The result of the lowest number that is valid; others that are there are compared with it."""
        best: Result | None = None
        last = -1
        for last in numbers:
            if self._failed.get((call.folder, last), 0) >= 2:
                continue
            try:
                found = self._read(call, last)
            except Damaged as error:
                self._note_failed(call.folder, last, str(error))
                continue
            if best is not None and found is not None:
                self._compare(call, best, found)
            best = best or found
        if best is None and self._failed.get((call.folder, last), 0) >= 2:
            self._ask_for(call.folder, last + 1)
        return best

    def find(self, told: Iterable[tuple[Call, str]]) -> dict[str, Result]:
        """The results of calls whose digests another process has told, by their folders; without those that are not
        seen here yet."""
        asked = list(told)

        def one(call: Call, digest: str) -> Result | None:
            for number in range(self._newest(call.folder) + 1):
                try:
                    found = self._read(call, number)
                except Damaged:
                    continue
                if found is not None and found.digest == digest:
                    return found
            return None

        found = with_retries(f"reading results in {self.folder}", lambda: _each(lambda ask: one(*ask), asked))
        return {call.folder: result for (call, _), result in zip(asked, found, strict=True) if result is not None}

    def _note_failed(self, folder: str, number: int, why: str) -> None:
        self._failed[folder, number] = self._failed.get((folder, number), 0) + 1
        log.warning("%s/result-%d cannot be used: %s", self.folder / folder, number, why)

    def refuse(self, call: Call, why: str) -> None:
        """Does not take the result that `collect` returned, for example since another kind of machine made it: the call
        waits for the next one."""

        def ask() -> None:
            newest = self._newest(call.folder)
            for number in range(newest + 1):
                self._failed[call.folder, number] = 2
                self._refused.add((call.folder, number))
            log.warning("%s/result-%d is not taken: %s", self.folder / call.folder, newest, why)
            self._ask_for(call.folder, newest + 1)

        with_retries(f"asking for {call.folder} again", ask)

    def _ask_for(self, folder: str, number: int) -> None:
        asked = "asked", folder, number
        if self._looks.is_over(asked, self.patience):
            storage.create(self.folder / folder / f"retry-{number}", b"1")
            self._looks.begin(asked)

    def poisoned(self, calls: Iterable[Call]) -> list[str]:
        """Folders of calls that nobody takes any more: worker after worker ended without notice while at them, or
        their results could not be used. Each call is looked at once in `patience`."""
        due = [call.folder for call in calls if self._is_due("poison", call.folder)]
        names = [f"{folder}/{LEASE}" for folder in due]
        leases = with_retries(f"reading leases in {self.folder}", lambda: storage.read_all(self.folder, names))
        held = (Holding.from_bytes(data) for data in leases)
        poison = {folder for folder, one in zip(due, held, strict=True) if one is not None and one.is_poison}
        return [f for f in due if f in poison or self._unusable(f) >= MOST_RETRIES]

    def _unusable(self, folder: str) -> int:
        """Results of a call that could not be read; one that was refused says nothing against the call."""
        counts = itertools.takewhile(lambda n: (folder, n) in self._failed, itertools.count())
        return sum((folder, n) not in self._refused and self._failed[folder, n] >= 2 for n in counts)

    def unequal(self) -> list[Unequal]:
        """Answers that differ from another one to the same call, as workers or `collect` found them."""
        place = self.folder / UNEQUAL
        found = with_retries(f"reading {place}", lambda: storage.read_all(place, storage.names(place)))
        return [one for data in found if data is not None and (one := _unequal(data)) is not None]

    def withdraw(self, folders: Iterable[str]) -> None:
        """Removes calls whose step nobody makes any more."""
        listed = list(folders)
        assert all(map(FOLDER.fullmatch, listed)), listed
        with_retries(
            f"removing calls from {self.folder}",
            lambda: _each(lambda folder: storage.delete_tree(self.folder / folder), listed),
        )

    def list_old(self, up_to: int, keep_versions: Collection[str]) -> list[str]:
        """See `Retention`: before one's own append to the journal."""
        return self.retention.list_old(up_to, keep_versions)

    def delete(self, names: Collection[str]) -> None:
        """After it."""
        self.retention.delete(names)

    def workers(self, patience: float | None = None) -> list[str]:
        """Who is alive, see `Heartbeats`."""
        return self._heartbeats.workers(patience)

    # A worker's side

    def beat(self, worker: str | None = None) -> None:
        """Says that the worker lives; every third of `patience`."""
        self._heartbeats.beat(worker or self.worker)

    def next_call(self, skip: Collection[str] = ()) -> Call | None:
        """The oldest open call without a result and without a live lease; `skip`: folders. Among those of one step
        every worker has an order of its own, so that not all look at the same."""
        return with_retries(f"looking for a call in {self.folder}", lambda: self._next_call(skip))

    def _next_call(self, skip: Collection[str]) -> Call | None:
        for place, folder in enumerate(self._order(self.open_folders())):
            pause = self.patience / (SOON if place < NEAR else 2)
            if folder in skip or not self._looks.is_over(("busy", folder), pause):
                continue
            if (call := self._free(folder)) is not None:
                return call
        return None

    def open_folders(self) -> list[str]:
        """Folders of calls that wait, as far as the hint goes."""
        return [f for f in self._hint("open", list) if isinstance(f, str) and FOLDER.fullmatch(f)]

    def weights_ahead(self) -> str:
        """The digest of the weights that come next, as far as the hint goes; "" where nobody has said."""
        return self._hint("weights", str)

    def _hint(self, name: str, kind: type[H]) -> H:
        try:
            said = json.loads(storage.read(self.folder / OPEN) or b"{}").get(name, kind())
            if isinstance(said, kind):
                return said
            log.warning("%s: %s is no %s", self.folder / OPEN, name, kind.__name__)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s cannot be read: %r", self.folder / OPEN, error)
        return kind()

    def _order(self, folders: Iterable[str]) -> Iterator[str]:
        by_step: dict[str, list[str]] = {}
        for folder in folders:
            by_step.setdefault(folder.partition("/")[0], []).append(folder)
        for some in by_step.values():
            yield from sorted(some, key=lambda folder: hashlib.sha256(f"{self.worker} {folder}".encode()).digest())

    def _free(self, folder: str) -> Call | None:
        """The call there, if it may be taken; else it is not looked at again at once."""
        place = self.folder / folder
        is_free = self._leases.is_free(place / LEASE, storage.read(place / LEASE))
        if is_free and not storage.exists(place / f"result-{self._newest(folder)}"):
            try:
                if (data := storage.read(place / CALL)) is not None:
                    return Call.from_bytes(data, folder)
            except Damaged as error:
                log.warning("%s: %s", place, error)
        self._looks.begin(("busy", folder))
        return None

    def take(self, call: Call) -> Lease | None:
        """The lease of a call; None if another worker was quicker."""
        lease = self._leases.take(self.folder / call.folder / LEASE)
        if lease is None:
            self._looks.begin(("busy", call.folder))
        return lease

    def is_wanted(self, call: Call) -> bool:
        """Whether a call is still there: one that was withdrawn needs no answer."""
        place = self.folder / call.folder / CALL
        return with_retries(f"looking for {place}", lambda: storage.exists(place))

    def put(self, call: Call, result: Result) -> bool:
        """Gives an answer. False if there is one already: equal ones are one, unequal ones are noted."""
        data = results.encode(result)
        return with_retries(f"writing a result to {self.folder}", lambda: self._put(call, result, data))

    def _put(self, call: Call, result: Result, data: bytes) -> bool:
        self._looks.begin(("busy", call.folder))
        number = self._newest(call.folder)
        if storage.create(self.folder / call.folder / f"result-{number}", data):
            return True
        try:
            if (other := self._read(call, number)) is not None:
                self._compare(call, other, result)
        except Damaged as error:
            log.warning("%s/result-%d cannot be used: %s", self.folder / call.folder, number, error)
        return False

    # Both sides

    def _newest(self, folder: str) -> int:
        """The number of the result that is asked for."""
        number = 0
        while storage.exists(self.folder / folder / f"retry-{number + 1}"):
            number += 1
        return number

    def _read(self, call: Call, number: int) -> Result | None:
        place, most = self.folder / call.folder / f"result-{number}", results.most_bytes(call)
        prefix = storage.read_range(place, 0, results.PREFIX)
        if not prefix and not storage.exists(place):
            return None
        size = results.size_of(prefix, most)
        return results.decode(prefix + storage.read_range(place, len(prefix), size), call=call, most=most)

    def _compare(self, call: Call, first: Result, other: Result) -> None:
        if first.digest == other.digest:
            return
        log.warning("%s was answered unequally by workers %s and %s", call.folder, first.worker, other.worker)
        said = Unequal(call.folder, (first.digest, other.digest), (first.worker, other.worker))
        name = f"{call.digest[:32]}-{other.digest[:16]}"
        storage.create(self.folder / UNEQUAL / name, json.dumps(vars(said)).encode())

    def _is_due(self, what: str, folder: str, patiences: int = 1) -> bool:
        return self._looks.is_due((what, folder), patiences * self.patience)


def _unequal(data: bytes) -> Unequal | None:
    try:
        said = json.loads(data)
        if not FOLDER.fullmatch(said["folder"]):
            return None
        return Unequal(said["folder"], tuple(said["digests"]), tuple(said["workers"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _each(function: Callable[[T], R], things: Iterable[T]) -> list[R]:
    """Of all things, several at once: a bucket answers in tens of milliseconds."""
    listed = list(things)
    if len(listed) < 2:
        return list(map(function, listed))
    with ThreadPoolExecutor(min(AT_ONCE, len(listed))) as pool:
        return list(pool.map(function, listed))
