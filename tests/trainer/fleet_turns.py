"""A fleet in one process and on one thread: while the trainer waits for results, workers answer what a test lets them.

Trainer and workers are those of the product, with their runtimes, on a real checkpoint directory. What a test decides
is order: which calls are answered when, by whom, and at which point of whose work somebody is killed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sums import LENGTHS, SUMS

from ratchet_api.job import parse_spec
from ratchet_trainer import run as whole
from ratchet_trainer import storage
from ratchet_trainer import worker as workers
from ratchet_trainer.checkpoints.checkpoint import stream_of
from ratchet_trainer.checkpoints.journal import Journal
from ratchet_trainer.errors import StorageUnavailable
from ratchet_trainer.fleet import board as boards
from ratchet_trainer.fleet import sampling, watch
from ratchet_trainer.fleet.board import CALL, Board
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.process.agreement import Peers
from ratchet_trainer.process.environment import Environment
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.process.runtime import Runtime
from ratchet_trainer.process.shutdown import Watchdog
from ratchet_trainer.process.stage_gate import Gate
from ratchet_trainer.step.pending import Pending
from ratchet_trainer.step.stage import Stage
from ratchet_trainer.step.state import State
from ratchet_trainer.storage import Location

WARM, STEPS = 4, 6
PATIENCE = 0.2
MOST_LOOKS = 2_000
"""For results, in which nobody answers anything."""
UID = "7e3f1d00-0000-4000-8000-000000000000"


def plain_job(
    lag: int = 0,
    fleet: bool = True,
    every: int = 1,
    keep: int = 3,
    per_call: int = 2,
    steps: int = STEPS,
    advance: dict[str, Any] | None = None,
    then: bool = False,
    dataset: dict[str, Any] | None = None,
    **rl: Any,
) -> dict[str, Any]:
    """A warm-up and a stage of `steps` steps, of four calls each unless `per_call` or `rl` say otherwise. `advance`:
    what else ends it. `then`: another stage of three steps comes after it. `dataset`: what
    else is said of the data."""
    settings = {
        "dataset": "sums", "method": "grpo", "promptsPerStep": 8, "groupSize": 8, **LENGTHS,
        "rollouts": {"lag": lag, "promptsPerCall": per_call}, "optimizer": {"learningRate": "0.003"},
    }  # fmt: skip
    sft = {"dataset": "sums", **LENGTHS, "optimizer": {"learningRate": "0.01"}}
    spec: dict[str, Any] = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 40, "config": SUMS}}],
        "stages": [
            {"name": "warm-up", "sft": sft, "advance": {"steps": WARM}},
            {"name": "reason", "rl": settings | rl, "advance": {"steps": steps} | (advance or {})},
        ],
        "checkpoint": {"directory": "/replaced", "everySteps": every, "keep": keep},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    spec["datasets"][0] |= dataset or {}
    if then:
        spec["stages"].append({"name": "next", "rl": settings | rl, "advance": {"steps": 3}})
    if fleet:
        machine = {"name": "w", "cpu": {"hosts": 1}}
        spec["rollouts"] = {"workers": {"min": 1, "max": 4}, "placements": [machine]}
    return spec


class Killed(BaseException):
    """A process is gone: nothing of ours catches this."""


class Turns:
    """Attempts of one job, and its workers."""

    def __init__(self, directory: Location, plain: dict[str, Any], logs: Path):
        self.directory, self.logs = directory, logs
        self.plain = plain | {"checkpoint": plain["checkpoint"] | {"directory": str(directory)}}
        parse_spec(self.plain)
        self.attempts = 0
        self.serve: Callable[[list[Call]], None] = self.answer_all
        self.points: dict[str, Callable[[Trainer], None]] = {}
        """What happens at a point of the trainer: see `Trainer`."""
        self.answered: list[tuple[str, str]] = []  # (worker, folder) in order
        self.calls: list[Call] = []  # the same
        self.topology: dict[str, Any] = {}  # in what the machine of the next attempt is another
        self.trainer: Trainer
        self._workers: dict[int, Hand] = {}

    # The trainer

    def run(self) -> None:
        """One attempt. Raises what ends it."""
        self.attempts += 1
        runtime = self.trainer = Trainer(self)
        try:
            Steps(runtime).to_the_end()
            runtime.wait_for_commits()
        finally:
            runtime.durable._thread.shutdown(wait=True)  # a killed process's threads are gone, too

    def killed(self) -> None:
        """An attempt that the test's points end."""
        with pytest.raises(Killed):
            self.run()

    def to_the_end(self, most: int = 20) -> dict[str, Any]:
        """Attempts until the job is done; what it comes to."""
        for _ in range(most):
            try:
                self.run()
            except (Killed, StorageUnavailable):
                continue
            return ended(self.directory)
        raise AssertionError(f"not done after {most} attempts")

    def environment(self, attempt: int, worker: int | None = None) -> Environment:
        log = self.logs / f"termination-{worker}"
        uid = f"{attempt:04d}{0 if worker is None else worker + 1:04d}-jobset"
        who = "default", "sums", UID, attempt, uid, 0
        return Environment(*who, 1, 0, None, "127.0.0.1", log, log, log, None, worker=worker)

    def job_file(self) -> dict[str, Any]:
        last = len(self.plain["stages"]) - 1
        return {"v": 1, "namespace": "default", "name": "sums", "jobUID": UID, "spec": self.plain, "mayEnter": last}

    # The workers

    def worker(self, number: int = 0) -> Hand:
        if number not in self._workers:
            self._workers[number] = Hand(self, number)
        return self._workers[number]

    def answer_oldest(self, calls: list[Call]) -> None:
        """Nobody is ahead: only the calls that the trainer waits for are answered."""
        self.answer_all([call for call in calls if call.step == self.trainer.step + 1])

    def answer_all(self, calls: list[Call]) -> None:
        """What workers do if a test says nothing else: one of them answers every call that waits."""
        for call in calls:
            self.worker().answer(call)

    @property
    def board(self) -> Board:
        return Board(self.directory, 1)

    def waiting(self) -> list[Call]:
        """Calls that are announced and have no answer that counts, the oldest first."""
        board, found = self.board, []
        for folder in board.open_folders():
            data = storage.read(board.folder / folder / CALL)
            if data is not None and not storage.exists(board.folder / folder / f"result-{board._newest(folder)}"):
                found.append(Call.from_bytes(data, folder))
        return found

    @property
    def times(self) -> Counter[str]:
        """How often each call was sampled."""
        return Counter(folder for _, folder in self.answered)


class Trainer(Runtime):
    """Points: `await` at each look for results, `update-N` before the update after N of a step, `published` once the
    weights of a step are, `finish` before a commit's entry in the journal (on the thread of commits), `committed`
    after it."""

    def __init__(self, turns: Turns):
        self.turns = turns
        environment = turns.environment(turns.attempts)
        super().__init__(
            environment, turns.job_file(), Peers(environment), Watchdog(environment.termination_log),
            Progress(environment),
        )  # fmt: skip
        self.commits = 0  # the step whose commit is under way, or was last
        self._looks = 0
        self.durable.identity["topology"] |= turns.topology
        checkpoints = self.durable._checkpoints
        finish = checkpoints.finish

        def finished(content: Any, *more: Any) -> Any:
            self.commits = content.step
            self.at("finish")
            found = finish(content, *more)
            self.at("committed")
            return found

        checkpoints.finish = finished  # type: ignore[method-assign]

    def at(self, point: str) -> None:
        if (act := self.turns.points.get(point)) is not None:
            act(self)

    @property
    def step(self) -> int:
        """The last complete one."""
        return int(self.progress.document["step"])

    def safe_point(self) -> None:
        super().safe_point()
        if self.progress.document["phase"] == "await":
            self.at("await")
            answers = len(self.turns.answered)
            self.turns.serve(self.turns.waiting())
            self._looks = 0 if len(self.turns.answered) > answers else self._looks + 1
            assert self._looks < MOST_LOOKS, "it waits for ever"

    def _await_gate(self, stage_index: int) -> Gate:
        last = len(self.turns.plain["stages"]) - 1
        return Gate(last, finish=stage_index == last)


class Steps(whole.Run):
    def before_update(self, state: State, pending: Pending) -> None:
        self.runtime.at(f"update-{pending.done}")  # type: ignore[attr-defined]
        super().before_update(state, pending)

    def evaluated(self, state: State, pending: Pending, step: int, metrics: whole.Metrics) -> whole.Metrics:
        self.runtime.at("published")  # type: ignore[attr-defined]
        return super().evaluated(state, pending, step, metrics)


class Hand:
    """A worker that answers when it is told to."""

    def __init__(self, turns: Turns, number: int):
        self._turns, environment = turns, turns.environment(1, number)
        runtime = Runtime(
            environment, turns.job_file(), Peers(environment), Watchdog(environment.termination_log),
            Progress(environment),
        )  # fmt: skip
        self.worker = workers.Worker(runtime)

    def answer(self, call: Call) -> bool:
        """Samples a call and puts the result. False: it could not."""
        one = self.worker
        one._looked = -workers.LINEAGE_SECONDS
        one._follow_lineage()
        before = one._done
        with one._leased(call) as lease:
            if lease:
                one._answer(call)
        if one._done > before:
            self._turns.answered.append((one.name, call.folder))
            self._turns.calls.append(call)
        return one._done > before


@contextmanager
def quick() -> Iterator[None]:
    """Nobody waits for long, and nothing is compiled that is not run: all runs share one model's programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stage, "prepare", lambda self: None)
        patch.setattr(workers, "compile_each", lambda programs: None)
        patch.setattr(boards, "PATIENCE_ON_PATHS", PATIENCE)
        patch.setattr(boards, "PATIENCE_ON_BUCKETS", PATIENCE)
        patch.setattr(sampling, "LOOK_SECONDS", (0.0, 0.0))
        patch.setattr(sampling, "MEND_SECONDS", 0.02)
        patch.setattr(watch, "LOOK_SECONDS", 0.02)
        yield


def ended(directory: Location) -> dict[str, Any]:
    """What a run came to: everything that must be equal."""
    journal = Journal(directory)
    journal.read()
    commit = journal.candidates()[0]
    proof, control = (
        json.loads(storage.read(directory / commit.path / n) or b"") for n in ("digests.json", "control.json")
    )
    return {
        "step": commit.step,
        "boundary": commit.boundary,
        "weights": proof["weightsSha256"],
        "state": proof["stateSha256"],
        "metrics": control["metricsDigest"],
        "stream": hashlib.sha256(stream_of(directory).read()).hexdigest(),
    }
