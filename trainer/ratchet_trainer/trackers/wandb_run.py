"""A run of Weights & Biases, whose id follows from the job's UID: attempts go on in the same run.

Decides how it comes to have each step once. Online the server is asked: a run that is resumed says at which step. Its
steps only grow, so of steps that were made again it keeps the first values. Offline there is nobody to ask, and files
of several attempts would be several uploads: the files are a function of the committed steps, written anew by every
attempt, so that there is one folder for `wandb sync`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ratchet_trainer.trackers.lines import StepRecord
from ratchet_trainer.trackers.tracker import TrackedRun, TrackerLeft, needed

ANSWER_SECONDS = 60.0


def make(settings: Mapping[str, Any], run: TrackedRun) -> WandbRun:
    return WandbRun(settings, run)


class WandbRun:
    def __init__(self, settings: Mapping[str, Any], run: TrackedRun):
        self._settings, self._job = settings, run
        self._offline = settings.get("mode") == "Offline"
        self._id = f"ratchet-{run.uid}"
        self._run: Any = None

    def open(self, records: Sequence[StepRecord]) -> int:
        scratch = tempfile.gettempdir()
        for kind in ("CONFIG", "CACHE", "DATA"):  # its home may be read-only
            os.environ.setdefault(f"WANDB_{kind}_DIR", os.path.join(scratch, f"wandb-{kind.lower()}"))
        wandb = needed("wandb", "wandb")
        folder = self._folder() if self._offline else Path(tempfile.mkdtemp(prefix="wandb-"))
        try:
            self._run = wandb.init(
                project=self._settings["project"],
                entity=self._settings.get("entity"),
                id=self._id,
                name=self._job.name,
                group=self._job.namespace,
                dir=str(folder),
                mode="offline" if self._offline else "online",
                resume=None if self._offline else "allow",
                config={k: v for k, v in self._job.config.items() if k not in ("podTemplate", "jobSetTemplate")},
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_git=True,
                    save_code=False,
                    x_disable_stats=True,
                    x_disable_meta=True,
                    init_timeout=ANSWER_SECONDS,
                ),
            )
        except wandb.errors.UsageError as error:
            raise TrackerLeft(
                f"{error}: set WANDB_API_KEY in spec.podTemplate.env, with valueFrom.secretKeyRef, or take mode: "
                "Offline; the next attempt makes up for the steps"
            ) from error
        if self._offline:
            return 0
        return sum(record.step < self._run.step for record in records)

    def log(self, records: Sequence[StepRecord]) -> None:
        for record in records:
            self._run.log(record.metrics, step=record.step, commit=True)

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()

    def _folder(self) -> Path:
        """Where the files of mode Offline go, without what an attempt before this one has written of the run."""
        given = self._settings.get("directory")
        root = Path(given) if given is not None else self._job.directory.local  # it makes a folder wandb there
        root.mkdir(parents=True, exist_ok=True)
        for old in root.glob(f"wandb/offline-run-*-{self._id}"):
            shutil.rmtree(old)
        return root
