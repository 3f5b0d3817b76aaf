"""Runs with a fleet of real processes, of which tests kill whom they like where they like."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sums import LENGTHS, SUMS

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer import storage
from ratchet_trainer.storage import Location
from ratchet_trainer.tools import local
from ratchet_trainer.tools.local import Folder, Gang
from ratchet_trainer.tools.local_workers import LocalWorkers
from ratchet_trainer.tools.prove import HASHES

WARM, STEPS = 4, 12
"""Steps of the warm-up, and of the stage that is sampled by the fleet."""
WORKERS = 3
PATIENCE = 600.0
"""Seconds for anything to happen, on a machine that is busy."""
DISTURBED = (Exit.DRAINED, Exit.PEER_LOST, -signal.SIGKILL, -signal.SIGTERM)


def job(lag: int = 0, fleet: bool = True, **rl: Any) -> RLTrainingJob:
    """A warm-up and a stage of four calls a step, two updates each."""
    stage = {
        "dataset": "sums", "method": "grpo", "promptsPerStep": 8, "groupSize": 8, **LENGTHS, "updatesPerStep": 2,
        "rollouts": {"lag": lag, "promptsPerCall": 2}, "optimizer": {"learningRate": "0.003"},
    }  # fmt: skip
    sft = {"dataset": "sums", **LENGTHS, "optimizer": {"learningRate": "0.01"}}
    spec: dict[str, Any] = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "sums", "reasoningGym": {"task": "basic_arithmetic", "size": 40, "config": SUMS}}],
        "stages": [
            {"name": "warm-up", "sft": sft, "advance": {"steps": WARM}},
            {"name": "reason", "rl": stage | rl, "advance": {"steps": STEPS}},
        ],
        "checkpoint": {"directory": "/replaced", "everySteps": 3},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    if fleet:
        machine = {"name": "w", "cpu": {"hosts": 1}}
        spec["rollouts"] = {"workers": {"min": 1, "max": 4}, "placements": [machine]}
    return RLTrainingJob.model_validate({"spec": spec})


class FleetRun:
    """A trainer and its workers; both are started again when they end of a disturbance. Use it in `running`."""

    def __init__(self, folder: Folder, workers: int):
        self.folder, self.count = folder, workers
        self.attempts = 0
        self.gang: Gang
        self.workers: LocalWorkers
        self.code: int | None = None  # how the run ended

    def start(self) -> None:
        self._start_trainer()
        address = lambda: local._addresses(1)[0]  # noqa: E731
        self.workers = LocalWorkers(self.folder.local, address, self.gang.environment, self.count)

    def _start_trainer(self) -> None:
        self.gang = Gang.start(self.folder, 1, pace=0.02)
        self.attempts += 1

    def end(self) -> None:
        self.workers.end()
        self.gang.end()

    def look(self) -> None:
        """Starts the trainer again if it was disturbed."""
        codes = self.gang.wait(0.02)
        if codes is None or self.code is not None:
            return
        if codes == [Exit.DONE]:
            self.code = Exit.DONE
            return
        assert codes[0] in DISTURBED, f"{codes}: {self.gang.termination()}\n{self.log('process-0')}"
        self._start_trainer()

    def until(self, what: Callable[[], object], words: str) -> None:
        """Returns once something is so."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            self.look()
            assert self.code is None, f"the run was over before {words}"
            assert self.workers.failed is None, self.workers.failed
            assert time.monotonic() < deadline, f"never seen: {words}\n" + self.log("process-0")

    def to_the_end(self) -> dict[str, Any]:
        """What the run comes to."""
        deadline = time.monotonic() + PATIENCE
        while self.code is None:
            self.look()
            assert self.workers.failed is None, self.workers.failed
            assert time.monotonic() < deadline, "the run does not end\n" + self.log("process-0")
        return self.folder.result()

    @property
    def alive(self) -> int:
        """How many workers there are."""
        return sum(child.poll() is None for child in list(self.workers.children.values()))

    @property
    def shown(self) -> dict[str, Any]:
        """What the trainer says of its fleet."""
        return self.gang.document.get("rollouts") or {}

    @property
    def step(self) -> int:
        return int(self.gang.document.get("step", 0))

    def log(self, name: str) -> str:
        with contextlib.suppress(OSError):
            return (self.folder.local / f"{name}.log").read_text()[-3000:]
        return ""

    # Holding and killing: `trainer`, or `worker-I`

    def hold(self, who: str, point: str) -> None:
        (self.folder.local / f"hold-{who}").write_text(point)

    def free(self, *whom: str) -> None:
        for who in whom:
            (self.folder.local / f"hold-{who}").unlink(missing_ok=True)

    def process(self, who: str) -> Any:
        return self.gang.children[0] if who == "trainer" else self.workers.children.get(int(who.partition("-")[2]))

    def held(self, who: str) -> str | None:
        """The call that it stands still at ("" where there is none); None: it does not."""
        try:
            found = json.loads((self.folder.local / f"held-{who}").read_bytes())
        except (OSError, ValueError):
            return None
        wanted = (self.folder.local / f"hold-{who}").read_text()
        process = self.process(who)
        here = process is not None and process.poll() is None and found["pid"] == process.pid
        return found["about"] if here and found["point"] == wanted else None

    def stands(self, who: str) -> str:
        """Waits until it does; the call."""
        self.until(lambda: self.held(who) is not None, f"{who} standing still")
        return self.held(who) or ""

    def all_stand(self, whom: Sequence[str]) -> bool:
        """Waits until they do. False: they never will, as some stand at the last calls that there are."""

        def short() -> bool:
            at = [self.held(who) for who in whom]
            return None in at and 0 < len(self.unanswered) == sum(map(bool, at))

        everybody = lambda: all(self.held(who) is not None for who in whom)  # noqa: E731
        self.until(lambda: everybody() or short(), f"{', '.join(whom)} standing still")
        return everybody()

    def kill(self, whom: Sequence[str], number: int) -> None:
        """Sends the signal to all of them at once, and waits until they are gone."""
        processes = [self.process(who) for who in whom]
        for process in processes:
            process.send_signal(number)
        self.free(*whom)
        for who, process in zip(whom, processes, strict=True):
            code = process.wait(PATIENCE)
            assert code == (-signal.SIGKILL if number == signal.SIGKILL else Exit.DRAINED), f"{who}: {code}"

    # The board

    @property
    def board(self) -> Location:
        return self.folder.directory / "fleet" / "1"

    def answers(self, call: str) -> list[str]:
        return [name for name in storage.names(self.board / call) if name.startswith("result-")]

    @property
    def unanswered(self) -> list[str]:
        """Calls that wait for an answer."""
        said = json.loads(storage.read(self.board / "open.json") or b"{}")
        return [call for call in said.get("open", ()) if not self.answers(call)]


@contextlib.contextmanager
def running(folder: Folder, workers: int = WORKERS) -> Iterator[FleetRun]:
    one = FleetRun(folder, workers)
    one.start()
    try:
        yield one
    finally:
        one.end()


def hashes(result: dict[str, Any]) -> dict[str, Any]:
    """What must be equal."""
    return {name: result.get(name) for name in ("step", "finished", *HASHES)}


# Schedules

WORKER_POINTS = ("leased", "call", "put", "answered")
TRAINER_POINTS = ("await", "planned", "update", "published", "finish", "committed")
NUMBERS = (signal.SIGKILL, signal.SIGTERM)


@dataclass(frozen=True)
class Kill:
    """Whom, where each of them stands then, and how."""

    points: tuple[tuple[str, str], ...]
    number: int


def schedule(seed: int, workers: int = WORKERS) -> list[Kill]:
    """Every worker twice, with and without notice; the trainer twice, once together with two workers in mid-call."""
    rng = random.Random(f"fleet {seed}")
    names = [f"worker-{i}" for i in range(workers)]
    found = [Kill(((who, rng.choice(WORKER_POINTS)),), number) for who in names for number in NUMBERS]
    found.append(Kill((("trainer", rng.choice(TRAINER_POINTS)),), rng.choice(NUMBERS)))
    rng.shuffle(found)
    both = rng.sample(names, 2)
    together = Kill((*((who, "call") for who in both), ("trainer", "await")), rng.choice(NUMBERS))
    found.insert(rng.randrange(len(found) + 1), together)
    return found


def disturb(run: FleetRun, kill: Kill, workers: int = WORKERS) -> None:
    """Has everybody stand where the kill wants them, and kills them. Workers that are not meant stand idle meanwhile,
    so that those which are have the next calls."""
    whom = dict(kill.points)
    idle = [f"worker-{i}" for i in range(workers) if f"worker-{i}" not in whom]
    others = idle if set(whom.values()) & set(WORKER_POINTS) else []
    for who in others:
        run.hold(who, "idle")
    callers = [(who, point) for who, point in kill.points if who != "trainer"]
    while True:
        for who, point in callers:
            run.hold(who, point)
        if run.all_stand([who for who, _ in callers]):
            break
        last = run.unanswered  # without lag the next calls are made once these are answered
        run.free(*whom)
        run.until(lambda last=last: not set(last) & set(run.unanswered), "the last calls of a step answered")  # type: ignore[misc]
    if "trainer" in whom:  # not before: it would make no call while it stands
        run.hold("trainer", whom["trainer"])
        run.stands("trainer")
    calls = [run.stands(who) for who, point in kill.points if point in ("leased", "call")]
    assert not any(run.answers(call) for call in calls), "it was killed before its answer"
    run.kill(list(whom), kill.number)
    run.free(*others)
