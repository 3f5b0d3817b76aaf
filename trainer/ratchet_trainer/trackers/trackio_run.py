"""A run of trackio, in its local store beside the checkpoints, named by the job and its UID.

Decides how it comes to have each step once: the store, a database that takes a step whole or not at all, is asked which
steps it has. Of steps that were made again the first values stay.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ratchet_trainer.trackers.lines import StepRecord
from ratchet_trainer.trackers.tracker import TrackedRun, needed


def make(settings: Mapping[str, Any], run: TrackedRun) -> TrackioRun:
    return TrackioRun(settings, run)


class TrackioRun:
    def __init__(self, settings: Mapping[str, Any], run: TrackedRun):
        self._project, self._job = settings["project"], run
        self._name = f"{run.name}-{run.uid[:8]}"
        self._store: Any = None

    def open(self, records: Sequence[StepRecord]) -> int:
        os.environ["TRACKIO_DIR"] = str(self._job.directory.local / "trackio")
        needed("trackio", "trackio")
        self._store = needed("trackio.sqlite_storage", "trackio").SQLiteStorage
        self._store.init_db(self._project)
        there = {row.get("step") for row in self._store.get_logs(self._project, self._name)}
        known = 0
        while known < len(records) and records[known].step in there:
            known += 1
        return known

    def log(self, records: Sequence[StepRecord]) -> None:
        # Not trackio.log, which hands over to a thread: whether it was stored would not be known on return.
        self._store.bulk_log(
            self._project,
            self._name,
            [dict(record.metrics) for record in records],
            steps=[record.step for record in records],
            log_ids=[f"{self._job.uid}-{record.step}" for record in records],
        )

    def close(self) -> None:
        """Nothing is open."""
