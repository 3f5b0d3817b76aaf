"""The fast tier: copies of the newest committed steps on this node's own disk, so that a restart there reads nearby.

Decides what is copied, when, and when a copy may be used. A process copies what its devices hold, which is what it will
read after a restart in the same place. A cache, never an authority: what exists is said by the journal of the durable
directory. A copy has the name of the commit's folder and the process's number, and counts only if its digests.json is
the one that was journalled, all that is asked of it is there and every digest holds; otherwise the durable folder is
read.

A copy is made after the commit, by a thread of its own: no step waits for it, and a step that comes while one is made
gets none; the blocks stay in memory until the copy is made. Nothing is fsynced, a name appears once all is written. A
disk that is full, slow or broken costs a warning; then this attempt makes no more copies. Processes of one node may
share the folder, and each may read what another has copied.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from ratchet_trainer.checkpoints import trusted_step
from ratchet_trainer.checkpoints.array_reader import Shardings
from ratchet_trainer.checkpoints.journal import Commit
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.errors import TrainerError
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

KEEP = 2
"""Steps whose copies stay; one more is there while it is made."""
PATIENCE_SECONDS = 10.0
"""How long a copy in the making is waited for at the end of the run."""


class LocalTier:
    """The copies of one node, as one process sees them."""

    def __init__(self, folder: Path | None, process: int):
        """`folder` is spec.checkpoint.localDirectory; None: there is no fast tier."""
        self.folder = folder
        self._steps = None if folder is None else folder / "steps"
        self._process = process
        self._thread = ThreadPoolExecutor(1, "local")
        self._flight: Future[None] | None = None

    @property
    def wants(self) -> bool:
        """Whether a copy of the next step would be made."""
        return self._steps is not None and (self._flight is None or self._flight.done())

    def put(self, path: str, content: Content, proof: bytes) -> None:
        """Copies a step that was committed under `path`, beside what comes next."""
        if self.wants:
            self._flight = self._thread.submit(self._write, Path(path).name, content, proof)

    def find(self, commit: Commit, shardings: Shardings | None = None) -> tuple[dict[str, Any], Content] | None:
        """Proof and content of a commit, or this process's part of it (`shardings`: see `trusted_step.read`); None if
        they are not here."""
        if self._steps is None:
            return None
        own = f"{Path(commit.path).name}.{self._process}"
        folders = [f for f in self._steps.glob(f"{Path(commit.path).name}.*") if f.is_dir()]
        for folder in sorted(folders, key=lambda f: (f.name != own, f.name)):
            try:
                place = Location.parse(folder)
                proof = trusted_step.read_proof(place, commit.step, commit.sha256)
                content = None if proof is None else trusted_step.read(place, commit.step, proof, shardings)
            except (OSError, ValueError, KeyError, TypeError, TrainerError) as error:
                log.warning("%s cannot be read: %s", folder, error)
                continue
            if proof is not None and content is not None:
                log.info("step %d is read from %s", commit.step, folder)
                return proof, content
            if folder.name == own:
                shutil.rmtree(folder, ignore_errors=True)  # damaged for good, and in the way of a whole one
        return None

    def settle(self) -> None:
        """Waits for the copy in the making, if it does not take too long."""
        if self._flight is not None:
            wait([self._flight], PATIENCE_SECONDS)

    def clear(self) -> None:
        """Removes everything: the job is done."""
        if self.folder is not None and self._steps is not None:
            self.settle()
            for part in (self._steps, self.folder / "rollouts"):
                shutil.rmtree(part, ignore_errors=True)

    def _write(self, name: str, content: Content, proof: bytes) -> None:
        steps = self._steps
        assert steps is not None
        shown, temporary = steps / f"{name}.{self._process}", steps / f".{name}.{self._process}.tmp"
        try:
            steps.mkdir(parents=True, exist_ok=True)
            for left_over in steps.glob(f".*.{self._process}.tmp"):
                shutil.rmtree(left_over, ignore_errors=True)
            if not shown.exists():
                held = {path: replace(leaf, mine=frozenset(leaf.blocks)) for path, leaf in content.arrays.items()}
                content = replace(content, arrays=held)
                place = Location.parse(temporary)
                trusted_step.begin(place)
                trusted_step.write_part(place, self._process, held, durable=False)
                trusted_step.finish(place, content, proof, [self._process], durable=False)
                os.rename(temporary, shown)
            self._prune(steps, name)
        except Exception as error:  # TensorStore has errors of its own; whatever it is, training does not need this
            log.warning("%s is not used any more in this attempt: %s", self.folder, str(error)[:500])
            self._steps = None
            shutil.rmtree(temporary, ignore_errors=True)  # it may have filled the disk

    def _prune(self, steps: Path, newest: str) -> None:
        # By age, not by number: steps that could not be used are done again under lower numbers. Those of processes
        # that are no more go as well.
        ages: dict[str, float] = {}
        for folder in steps.iterdir():
            if not folder.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):  # another process of this node was quicker
                    step = folder.name.rpartition(".")[0]
                    ages[step] = max(ages.get(step, 0.0), folder.stat().st_mtime)
        ages.pop(newest, None)
        for step in sorted(ages, key=ages.__getitem__, reverse=True)[KEEP - 1 :]:
            for folder in steps.glob(f"{step}.*"):
                shutil.rmtree(folder, ignore_errors=True)
