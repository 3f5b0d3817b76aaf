"""Event files for TensorBoard, a function of the committed steps: a file holds one record a step, in order.

Decides the files' names and what happens to them at a restart. The files are compared with the metric stream: what
agrees stays, half a record at the end is cut off. Where steps were made again with other values (a damaged checkpoint
was passed over), a new generation of files takes the place of the old, which are emptied: a TensorBoard that is open
follows a new file, and forgets at its beginning what it has read, but cannot follow one that was cut.

    FOLDER/owner.json                                               the job that the files are of
    FOLDER/events.out.tfevents.<generation>.<first step>.ratchet    on a bucket several: an object is written whole
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from ratchet_trainer import storage
from ratchet_trainer.storage import Location
from ratchet_trainer.trackers import event_file
from ratchet_trainer.trackers.lines import StepRecord
from ratchet_trainer.trackers.tracker import TrackedRun, TrackerLeft

FILE = re.compile(r"events\.out\.tfevents\.([0-9]{10})\.([0-9]{12})\.ratchet")
OBJECT_BYTES = 1 << 20
"""An object of a bucket that is larger is not written again: the next steps get one of their own."""
LOCK_SECONDS = 10.0


def make(settings: Mapping[str, Any], run: TrackedRun) -> TensorBoard:
    return TensorBoard(folder_of(settings, run), run)


def folder_of(settings: Mapping[str, Any], run: TrackedRun) -> Location:
    """Where the files of the run are."""
    given = settings.get("directory")
    if given is None:
        return run.directory / "tensorboard"
    return Location.parse(given, "spec.trackers.tensorBoard.directory") / run.namespace / run.name


class TensorBoard:
    def __init__(self, folder: Location, run: TrackedRun):
        self.folder, self._run = folder, run
        self._lock: IO[str] | None = None
        self._generation = 0
        self._file: Location | None = None  # the last file, which grows; None before there is one
        self._whole = b""  # what is in it

    def open(self, records: Sequence[StepRecord]) -> int:
        self._hold()
        files = self._files()
        self._generation = max((generation for generation, _ in files), default=0)
        self._file, self._whole, known, agree = None, b"", 0, True
        for generation, first in files:
            if generation != self._generation or not agree:
                continue
            self._file = self._place(first)
            data = storage.read(self._file) or b""
            count, end, agree = agreement(data, records[known:])
            known, self._whole = known + count, data[:end]
        self._own(known > 0 and agree)
        if not agree:
            self._generation, self._file, self._whole, known = self._generation + 1, None, b"", len(records)
            if records:
                self.log(records)
        elif self._file is not None and not self.folder.on_bucket:
            os.truncate(self._file.local, len(self._whole))
        for generation, first in files:
            if generation < self._generation:
                self._void(self._place(first, generation))
        return known

    def log(self, records: Sequence[StepRecord]) -> None:
        now = time.time()
        if self._file is None or (self.folder.on_bucket and len(self._whole) > OBJECT_BYTES):
            self._file, self._whole = self._place(records[0].step), b""
        new = b"" if self._whole else event_file.opening(records[0].step, now)
        new += b"".join(event_file.record(event_file.scalars(r.step, r.metrics, now)) for r in records)
        if self.folder.on_bucket or not self._whole:
            self._whole += new
            storage.write(self._file, self._whole)
            return
        with open(self._file.local, "ab") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _void(self, place: Location) -> None:
        """Leaves an empty file: an open TensorBoard goes on from it to the next one, but stays at one that is gone."""
        if storage.read(place):
            storage.write(place, b"", durable=False)

    def _files(self) -> list[tuple[int, int]]:
        """(generation, first step) of each, in order."""
        found = [FILE.fullmatch(name) for name in storage.names(self.folder)]
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def _place(self, first: int, generation: int | None = None) -> Location:
        number = self._generation if generation is None else generation
        return self.folder / f"events.out.tfevents.{number:010d}.{first:012d}.ratchet"

    def _hold(self) -> None:
        """Keeps the follower of an attempt that is about to end out of the files. Raises TimeoutError."""
        if self.folder.on_bucket or self._lock is not None:
            return  # on a bucket both would write the same
        self.folder.local.mkdir(parents=True, exist_ok=True)
        file = open(self.folder.local / ".lock", "a")  # noqa: SIM115  # held as long as the process lives
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.close()
                    raise TimeoutError(f"{self.folder} is being written to by another process") from None
                time.sleep(0.1)
        self._lock = file

    def _own(self, agreed: bool) -> None:
        """Makes the folder this job's. One of another job is taken over if it tells of the same steps: then that job
        went on in this one. Raises TrackerLeft for one that tells of others."""
        place, mine = self.folder / "owner.json", {"job": self._run.name, "uid": self._run.uid}
        content = json.dumps(mine).encode()
        if storage.create(place, content) or storage.read(place) == content:
            return
        if not agreed:
            raise TrackerLeft(
                f"{self.folder} has the event files of another job, {_owner(place)}; move that folder away, or name "
                "another one in spec.trackers.tensorBoard.directory"
            )
        storage.write(place, content)


def agreement(data: bytes, records: Sequence[StepRecord]) -> tuple[int, int, bool]:
    """How many of the records a file's beginning has, where it ends, and whether what follows is not of another run:
    then it is only half a record, or nothing."""
    count = end = 0
    for number, (at, content) in enumerate(event_file.contents(data)):
        if number >= event_file.OPENING_RECORDS:
            if count == len(records):
                return count, end, False
            wanted = event_file.without_time(records[count].step, records[count].metrics)
            if content[event_file.TIME_BYTES :] != wanted:
                return count, end, False
            count += 1
        if number >= event_file.OPENING_RECORDS - 1:
            end = at
    return count, end, True


def _owner(place: Location) -> str:
    try:
        said = json.loads(storage.read(place) or b"{}")
        return f"{said['job']} ({said['uid']})"
    except (ValueError, LookupError, TypeError):
        return f"which {place.name} does not name"
