"""The proof: train once undisturbed and once killed again and again, and compare every hash.

Decides when processes are killed and what is compared. The schedule follows from the seed: graceful (SIGTERM) and
abrupt (SIGKILL) ends of one process, at random moments in steps, at the ends of stages, while a run is starting,
restoring or compiling, and in each phase of a step. What the clock does to a schedule differs from run to run; the
hashes must not.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local import TRAINER, Folder, Gang, train, verdict

HASHES = ("weightsSha256", "stateSha256", "metricsSha256", "streamSha256")
"""What must be equal: the weights, the whole state (optimizer and curriculum included), the running hash of the metric
stream, and the stream itself, in which each step must stand once."""
PHASES = ("restore", "compile", "generate", "verify", "update", "save")
MOMENTS = ("step", "start", *PHASES, "boundary")
PATIENCE = 50
"""Steps after which a kill that waits for a phase no longer waits: the stage that it fell into may not have it."""
ATTEMPTS_PER_KILL = 5


class ProofFailed(Exception):
    """A run did not come to its end, so there is nothing to compare."""


@dataclass(frozen=True)
class Kill:
    """One disturbance: when, whom, how."""

    moment: str  # one of MOMENTS
    step: int  # not before this step; for boundary: at the end of the stage that this step is in
    delay: float  # seconds after the moment
    process: int
    graceful: bool


@dataclass
class Recovery:
    """What one disturbance cost. Seconds, from the signal to the first new step."""

    kind: str  # graceful | abrupt
    moment: str
    step: int  # the last step that was reported before it
    stepsLost: int = 0  # as in the JSON
    drain: float = 0.0  # signal -> all processes ended
    parts: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None  # signal -> end of the first step above the last committed one; None: no step followed


def schedule(kills: int, seed: int, steps: int, processes: int) -> list[Kill]:
    """The disturbances of a proof over a run of so many steps, in order. The same seed gives the same list."""
    rng = random.Random(f"ratchet prove {seed}")
    at = sorted(rng.randint(1, max(1, steps - 1)) for _ in range(kills))
    found: list[Kill] = []
    for i, step in enumerate(at):
        # Half of them in steps; the others wherever a start, a stage's end or a recovery can be hit.
        moment = "step" if rng.random() < 0.5 else rng.choice(MOMENTS[1:])
        if i == 0 and moment in ("restore", "boundary"):  # nothing to restore yet, and no end before the first step
            moment = "step"
        delay = rng.uniform(0.0, 1.2) if moment == "start" else rng.uniform(0.0, 0.3)
        found.append(Kill(moment, step, delay, rng.randrange(processes), bool(rng.getrandbits(1))))
    return found


class Disturber:
    """Carries a schedule out on one gang after the other. Its listener hears the progress of each."""

    def __init__(self, kills: Sequence[Kill]):
        self.left = list(kills)
        self.recoveries: list[Recovery] = []
        self.reported = 0  # the last step that /progress showed
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._at: dict[str, Any] = {}
        self._news = threading.Condition()

    def heard(self, document: dict[str, Any]) -> None:
        with self._news:
            self._at = document
            if document["step"] > self.reported:
                self.reported = document["step"]
            self._news.notify_all()

    def disturb(self, gang: Gang) -> Recovery | None:
        """Waits for the next kill's moment and carries it out. None if the gang ended before it came."""
        if not self.left:
            return None
        kill = self.left[0]
        with self._news:
            self._at = {}
        if kill.moment != "start":
            while not self._due(kill):
                if gang.wait(0.0) is not None:
                    return None
                with self._news:
                    self._news.wait(0.02)
        time.sleep(kill.delay)
        if gang.children[kill.process].poll() is not None:
            return None
        self.left.pop(0)
        recovery = Recovery(
            "graceful" if kill.graceful else "abrupt", str(self._at.get("phase", "start")), self.reported
        )
        self._signalled = time.monotonic()
        gang.send(signal.SIGTERM if kill.graceful else signal.SIGKILL, kill.process)
        return recovery

    def _due(self, kill: Kill) -> bool:
        at = self._at
        if not at:
            return False
        if kill.moment == "step":
            return bool(at["step"] >= kill.step and at["phase"] not in ("start", "restore", "compile"))
        if kill.moment == "boundary":
            return bool(at["boundary"] is not None and at["step"] >= kill.step) or bool(at["phase"] == "done")
        if kill.moment in ("restore", "compile"):
            return bool(at["phase"] == kill.moment or at["step"] > kill.step)
        return bool(at["step"] >= kill.step and (at["phase"] == kill.moment or at["step"] > kill.step + PATIENCE))

    @property
    def signalled(self) -> float:
        return self._signalled


def prove(
    directory: Path,
    name: str,
    job: RLTrainingJob,
    processes: int,
    kills: int,
    seed: int,
    say: Callable[[str], None],
    listener: Callable[[str, dict[str, Any]], None] = lambda run, document: None,
    command: Sequence[str] = TRAINER,
    where: Location | None = None,
) -> dict[str, Any]:
    """Runs both; returns `{equal, <hash>: [undisturbed, killed], recoveries, ...}`. `where`: the checkpoint directory
    of the killed run, by default in `directory`; that of the undisturbed one always is. Raises ProofFailed."""
    calm = undisturbed(directory, name, job, processes, say, lambda d: listener("undisturbed", d), command)
    plan = schedule(kills, seed, calm.result["step"], processes)
    say(f"{calm.result['step']} steps in {calm.seconds:.1f} s; now with {kills} kills (seed {seed})")
    stormy = Folder(directory / "killed", name, computed_in(job, calm.result["dtype"]), directory / "cache", where)
    return compare(calm, stormy, processes, plan, say, lambda d: listener("killed", d), command)


def computed_in(job: RLTrainingJob, dtype: str) -> RLTrainingJob:
    """The job with `model.dtype` auto answered: measured anew, two runs might find otherwise."""
    model = job.spec.model
    if model.dtype != "auto":
        return job
    spec = job.spec.model_copy(update={"model": model.model_copy(update={"dtype": dtype})})
    return job.model_copy(update={"spec": spec})


@dataclass(frozen=True)
class Calm:
    """What the undisturbed run came to."""

    result: dict[str, Any]
    seconds: float


def undisturbed(
    directory: Path,
    name: str,
    job: RLTrainingJob,
    processes: int,
    say: Callable[[str], None] = lambda _: None,
    listener: Callable[[dict[str, Any]], None] | None = None,
    command: Sequence[str] = TRAINER,
) -> Calm:
    """Trains in DIRECTORY/undisturbed without a kill. Raises ProofFailed."""
    say(f"undisturbed run in {directory / 'undisturbed'}")
    # The cache is shared: compiled once, and whether bits depend on that is not what is proved here.
    folder = Folder(directory / "undisturbed", name, job, directory / "cache")
    began = time.monotonic()
    code, message = train(folder, processes, listener=listener, command=command)
    if code != Exit.DONE:
        raise ProofFailed(f"the undisturbed run ended with {code}: {message.get('message', 'no message')}")
    return Calm(folder.result(), time.monotonic() - began)


def compare(
    calm: Calm,
    stormy: Folder,
    processes: int,
    plan: Sequence[Kill],
    say: Callable[[str], None] = lambda _: None,
    listener: Callable[[dict[str, Any]], None] = lambda _: None,
    command: Sequence[str] = TRAINER,
) -> dict[str, Any]:
    """Trains in `stormy` with these kills and compares; returns what `prove` does. Raises ProofFailed."""
    began = time.monotonic()
    recoveries = _storm(stormy, processes, plan, say, listener, command)
    expected, found = calm.result, stormy.result()
    hashes = {h: [expected.get(h), found.get(h)] for h in HASHES}
    seconds = [r.seconds for r in recoveries if r.seconds is not None]
    return {
        "equal": all(a == b and a is not None for a, b in hashes.values()) and expected["step"] == found["step"],
        "steps": [expected["step"], found["step"]],
        **hashes,
        "kills": len(recoveries),
        "stepsLost": sum(r.stepsLost for r in recoveries),
        "stepsLostWithNotice": sum(r.stepsLost for r in recoveries if r.kind == "graceful"),
        "recoverySecondsMedian": round(statistics.median(seconds), 3) if seconds else None,
        "seconds": [round(calm.seconds, 1), round(time.monotonic() - began, 1)],
        "tokensPerSecond": [expected["tokensPerSecond"], found["tokensPerSecond"]],
        "recoveries": [asdict(r) for r in recoveries],
    }


def _storm(
    folder: Folder,
    processes: int,
    plan: Sequence[Kill],
    say: Callable[[str], None],
    listener: Callable[[dict[str, Any]], None],
    command: Sequence[str],
) -> list[Recovery]:
    disturber = Disturber(plan)
    open_recoveries: list[tuple[Recovery, float, int, int]] = []  # with time of the signal, committed step, attempt

    def heard(document: dict[str, Any]) -> None:
        for entry in list(open_recoveries):
            recovery, signalled, committed, ended = entry
            # The last words of the attempt that was killed may come late; its steps are no recovery.
            if (
                document["attempt"] > ended
                and document["step"] > committed
                and document["parts"].get("step") is not None
            ):
                recovery.seconds = round(time.monotonic() - signalled, 3)
                recovery.parts = document["parts"]
                open_recoveries.remove(entry)
                parts = "  ".join(f"{k} {v:.2f}" for k, v in recovery.parts.items())
                say(f"    first new step after {recovery.seconds:.2f} s ({parts})")
        disturber.heard(document)
        listener(document)

    for _ in range(ATTEMPTS_PER_KILL * (len(plan) + 1)):
        gang = Gang.start(folder, processes, command=command, listener=heard)
        try:
            recovery = disturber.disturb(gang)
            codes = gang.wait()
        finally:
            gang.end()
        assert codes is not None
        worst = verdict(codes)
        if recovery is None:
            if worst == Exit.DONE:
                if disturber.left:
                    say(f"  the run ended before its last {len(disturber.left)} kills")
                return disturber.recoveries
            raise _unfinished(gang, codes)
        commit = folder.last_commit()
        committed = commit.step if commit else 0
        recovery.drain = round(time.monotonic() - disturber.signalled, 3)
        recovery.stepsLost = max(0, recovery.step - committed)
        disturber.reported = committed
        disturber.recoveries.append(recovery)
        open_recoveries.append((recovery, disturber.signalled, committed, gang.attempt))
        say(
            f"  {recovery.kind} kill in {recovery.moment} after step {recovery.step}: exit codes {codes}, "
            f"step {committed} stands, {recovery.stepsLost} lost"
        )
        if worst == Exit.DONE:
            return disturber.recoveries  # the signal came too late to disturb anything
        unexpected = {Exit.CONFIGURATION_INVALID, Exit.INTERNAL, Exit.CHECKPOINT_UNREADABLE, Exit.STORAGE_UNAVAILABLE}
        if worst in unexpected:
            raise _unfinished(gang, codes)
    raise ProofFailed("the run does not come to its end")


def _unfinished(gang: Gang, codes: list[int]) -> ProofFailed:
    message = gang.termination(codes.index(verdict(codes)))
    return ProofFailed(f"attempt {gang.attempt} ended with {codes}: {json.dumps(message)}")
