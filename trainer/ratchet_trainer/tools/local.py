"""A manifest without Kubernetes: `ratchet train` starts the processes of an attempt itself and plays the operator.

Decides what a working folder holds beside the checkpoints, how a gang is started, watched and ended, and how its
stage gate opens. The processes are the same as in a pod; each has a loopback address of its own, so ports are the same.

    DIR/journal, steps, cache, metrics.jsonl    the checkpoint directory, unless it is elsewhere
    DIR/fast                                    the fast tier, if the manifest asks for one
    DIR/exports                                 weights for other tools that the manifest has in the checkpoints' volume
    DIR/local/uid, lock                         who this folder belongs to, and who uses it now
    DIR/local/directory                         where the checkpoints are, if elsewhere
    DIR/local/job.json, word, process-N.log, termination-N

What the manifest says of the checkpoint directory does not count here: a job in a cluster may be writing to it, and
would be fenced off. The same goes for exports to the volume of the checkpoints, whose path is one in a pod.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet_api import protocol
from ratchet_api.exact_environment import performance_environment
from ratchet_api.job import RLTrainingJob, parse_spec
from ratchet_api.protocol import BUDGET_SPENT, COORDINATOR_PORT, METRICS_PORT, PORT, Exit
from ratchet_api.protocol.documents import JobFile, StageGate
from ratchet_trainer import storage
from ratchet_trainer.checkpoints import identity
from ratchet_trainer.checkpoints.checkpoint import TIMINGS, stream_of
from ratchet_trainer.checkpoints.journal import Commit, Journal
from ratchet_trainer.process import environment, ledger
from ratchet_trainer.process.distributed import XLA_FLAGS
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local_workers import LocalWorkers
from ratchet_trainer.tools.working_folder import checkpoints_in, note_checkpoints

TRAINER = (sys.executable, "-m", "ratchet_trainer")
GRACE_SECONDS = 30
PORTS = (PORT, METRICS_PORT, COORDINATOR_PORT, COORDINATOR_PORT + 1)
"""What a leader listens on."""
PACE_SECONDS = 0.2
"""A fast trainer has news many times a second; asking for all of it costs it steps."""
STALLED_AFTER = 3
"""Attempts in a row that end without a new step before the run is given up."""


class FolderInUse(Exception):
    """Another `ratchet train` is at work in the folder."""


class Folder:
    """The working folder of one job."""

    def __init__(
        self,
        path: Path,
        name: str,
        job: RLTrainingJob,
        cache: Location | Path | None = None,
        directory: Location | None = None,
    ):
        """`cache` is the compilation cache; by default RATCHET_COMPILATION_CACHE, else it is in the folder.
        `directory`: where checkpoints are kept; by default where they are already, else in the folder itself."""
        self.path = path.absolute()
        self.local = self.path / "local"
        self.local.mkdir(parents=True, exist_ok=True)
        if directory is not None:
            note_checkpoints(self.path, directory)
        self.directory = checkpoints_in(self.path)
        self.name = name
        shared = os.environ.get(environment.ENV_COMPILATION_CACHE)
        place = Location.parse(cache or shared or self.path / "cache")
        self.cache = place if place.on_bucket else Location.parse(place.local.absolute())
        plain = job.spec.manifest()
        places = {"directory": str(self.directory)}
        if job.spec.checkpoint.local_directory is not None:
            places["localDirectory"] = str(self.path / "fast")
        plain["checkpoint"] = {k: v for k, v in plain["checkpoint"].items() if k != "claimName"} | places
        if job.spec.export is not None and _in_volume(job.spec.export.directory, job.spec.checkpoint.directory):
            plain["export"] |= {"directory": str(self.path / "exports")}
        for tracker in plain.get("trackers", {}).values():  # theirs are beside the checkpoints, wherever those are
            tracker.pop("directory", None)
            if tracker.get("trackingURI", "").startswith("/"):
                del tracker["trackingURI"]
        self.spec = parse_spec(plain)
        uid = self.local / "uid"
        if not uid.exists():
            uid.write_text(f"{uuid.uuid4()}\n")
        self.uid = uid.read_text().strip()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps others out of the folder. Raises FolderInUse."""
        with open(self.local / "lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise FolderInUse(f"{self.path} is in use by process {file.read().strip() or 'unknown'}") from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def journal(self) -> Journal:
        """The journal as it stands now."""
        journal = Journal(self.directory)
        journal.read()
        return journal

    def last_commit(self) -> Commit | None:
        """The newest step that exists."""
        return next((c for c in self.journal().candidates() if storage.names(self.directory / c.path)), None)

    def result(self) -> dict[str, Any]:
        """What the folder holds: step, stage, hashes, tokens a second. Without a checkpoint: step 0 and no hashes; of
        one that is damaged or another job's: the step alone. `miniBatch`: so many updates of the step after it are in
        the state, too."""
        commit = self.last_commit()
        if commit is None:
            return {"step": 0, "stage": self.spec.stages[0].name}
        try:
            return self._result_at(commit)
        except (ValueError, LookupError, TypeError):  # the trainer has said what is wrong with it
            return {"step": commit.step, "stage": "unknown"}

    def _result_at(self, commit: Commit) -> dict[str, Any]:
        proof, control = (
            json.loads(storage.read(self.directory / commit.path / name) or b"{}")
            for name in ("digests.json", "control.json")
        )
        index = control["stage"]["index"]
        return {
            "step": commit.step,
            "stage": self.spec.stages[index].name,
            "finished": commit.boundary is not None and commit.boundary["stage"] == len(self.spec.stages) - 1,
            "weightsSha256": proof["weightsSha256"],
            "stateSha256": proof["stateSha256"],
            "metricsSha256": control["metricsDigest"],
            "streamSha256": hashlib.sha256(stream_of(self.directory).read()).hexdigest(),
            "exactSince": proof["identity"].get("exactSince"),
            "dtype": identity.dtype_of(proof["identity"]),
            "devices": math.prod(proof["identity"]["topology"]["mesh"].values()),
            "tokensPerSecond": self._tokens_per_second(),
            "checkpoint": commit.path,
            **({"miniBatch": control["pending"]["miniBatch"]} if "pending" in control else {}),
            "ledger": ledger.summary(self.directory),
            "boundaries": [c.boundary | {"path": c.path} for c in reversed(self.journal().candidates()) if c.boundary],
        }

    def _tokens_per_second(self) -> float | None:
        timings = ledger.by_attempt(self.directory / TIMINGS)
        rates = [line.get("tokensPerSecond") for lines in timings.values() for line in lines]
        known = [r for r in rates if r]
        return round(sorted(known)[len(known) // 2], 1) if known else None


@dataclass
class Gang:
    """The processes of one attempt."""

    folder: Folder
    attempt: int
    addresses: list[str]
    children: list[subprocess.Popen[bytes]]
    started: float
    pace: float
    may_enter: int  # the last stage that is open so far
    asks: bool = False  # whether ends of stages wait for the approval that they need
    unapproved: dict[str, Any] | None = None  # the end of a stage that waits for one: a boundary
    environment: dict[str, str] = field(default_factory=dict)  # of all processes
    document: dict[str, Any] = field(default_factory=dict)  # the last answer of /progress
    listeners: list[Callable[[dict[str, Any]], None]] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        folder: Folder,
        processes: int,
        until_step: int | None = None,
        command: Sequence[str] = TRAINER,
        listener: Callable[[dict[str, Any]], None] | None = None,
        may_enter: int | None = None,
        last_step: int = 0,
        pace: float = 0.0,
        devices: int = 1,
        asks: bool = False,
    ) -> Gang:
        """Starts the next attempt. Raises OSError when processes cannot be started.

        `may_enter` is the last stage that is open from the start (default: all), `last_step` what a status would know,
        `pace` the seconds between two questions for its progress, `devices` how many devices XLA is to see in each
        process (CPU only). With `asks` an end of a stage that needs an approval waits for one (`unapproved`).
        """
        claims = folder.journal().claims
        attempt = 1 + max((c.attempt for c in claims if c.job_uid == folder.uid), default=0)
        if may_enter is None:
            may_enter = len(folder.spec.stages) - 1
            if asks:  # the gate to what may have to wait opens when it is known whether it has to
                may_enter = next((i for i, s in enumerate(folder.spec.stages) if s.may_need_approval), may_enter)
        job = JobFile(
            namespace="default",
            name=folder.name,
            job_uid=folder.uid,
            spec=folder.spec.manifest(),
            may_enter=may_enter,
        ).plain()
        write_json(folder.local / "job.json", job)
        (folder.local / "word").unlink(missing_ok=True)
        addresses = _addresses(processes)
        platforms = os.environ.get("JAX_PLATFORMS") or "cpu"
        platform = os.environ.get(protocol.ENV_PLATFORM) or platforms.split(",")[0]
        shared = (
            os.environ
            | performance_environment(os.environ)
            | environment.exact_environment_of(job["spec"], platform)
            | {
                "JAX_PLATFORMS": platforms,
                protocol.ENV_PLATFORM: platform,
                protocol.ENV_NAMESPACE: "default",
                protocol.ENV_JOB_NAME: folder.name,
                protocol.ENV_JOB_UID: folder.uid,
                protocol.ENV_ATTEMPT: str(attempt),
                protocol.ENV_JOBSET_UID: str(uuid.uuid4()),
                protocol.ENV_LAST_STEP: str(last_step),
                protocol.ENV_PROCESSES: str(processes),
                protocol.ENV_GRACE_SECONDS: os.environ.get(protocol.ENV_GRACE_SECONDS) or str(GRACE_SECONDS),
                protocol.ENV_COORDINATOR: f"{addresses[0]}:{COORDINATOR_PORT}",
                protocol.ENV_JOB_FILE: str(folder.local / "job.json"),
                protocol.ENV_STAGE_GATE_FILE: str(folder.local / "word"),
                environment.ENV_COMPILATION_CACHE: str(folder.cache),
                environment.ENV_UNTIL_STEP: str(until_step or ""),
                environment.ENV_PARENT: str(os.getpid()),
            }
        )
        if devices > 1:
            shared["XLA_FLAGS"] = identity.flags_with_devices(os.environ.get("XLA_FLAGS") or XLA_FLAGS, devices)
        gang = cls(folder, attempt, addresses, [], time.monotonic(), pace, may_enter, asks, environment=shared)
        if listener:
            gang.listeners.append(listener)
        for process, address in enumerate(addresses):
            (folder.local / f"termination-{process}").unlink(missing_ok=True)
            own = {
                protocol.ENV_PROCESS: str(process),
                protocol.ENV_POD_IP: address,
                environment.ENV_TERMINATION_LOG: str(folder.local / f"termination-{process}"),
            }
            with open(folder.local / f"process-{process}.log", "ab") as log:
                gang.children.append(
                    subprocess.Popen(
                        command,
                        env=shared | own,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl-C is for `ratchet train`, which ends its gang gracefully
                    )
                )
        threading.Thread(target=gang._follow, name="progress", daemon=True).start()
        return gang

    def send(self, number: int, process: int | None = None) -> None:
        """Sends a signal to one process, or to all."""
        for child in self.children if process is None else [self.children[process]]:
            if child.poll() is None:
                child.send_signal(number)

    def wait(self, seconds: float | None = None) -> list[int] | None:
        """The exit codes of all processes, or None if one still runs after so long."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for child in self.children:
            try:
                child.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                return None
        return [child.returncode for child in self.children]

    def end(self) -> list[int]:
        """Ends what still runs: gracefully, then not."""
        self.send(signal.SIGTERM)
        codes = self.wait(GRACE_SECONDS)
        if codes is None:
            self.send(signal.SIGKILL)
            codes = self.wait()
        assert codes is not None
        return codes

    def termination(self, process: int = 0) -> dict[str, Any]:
        """The termination message of a process; empty if it left none."""
        try:
            message: dict[str, Any] = json.loads((self.folder.local / f"termination-{process}").read_bytes())
            return message
        except (OSError, ValueError):
            return {}

    def _follow(self) -> None:
        """Polls /progress, tells the listeners, and opens the stage gate."""
        revision = ""
        while self.children[0].poll() is None:
            try:
                connection = http.client.HTTPConnection(self.addresses[0], PORT, timeout=60)
                while True:
                    connection.request("GET", f"/progress?after={revision}")
                    document = json.loads(connection.getresponse().read())
                    revision = document["revision"]
                    self._tell(document)
                    time.sleep(self.pace)
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.02)  # not there yet, or no longer

    def _tell(self, document: dict[str, Any]) -> None:
        self.document = document
        boundary = document.get("boundary")
        if boundary and document["phase"] == "boundary":
            self._at_boundary(boundary)
        for listener in self.listeners:
            listener(document)

    def _at_boundary(self, boundary: dict[str, Any]) -> None:
        """Lets the trainer finish after the last stage and, with `asks`, go on after others; not without an approval
        that is needed."""
        stage, last = boundary["stage"], len(self.folder.spec.stages) - 1
        approved = any(a.stage == self.folder.spec.stages[stage].name for a in self.folder.spec.approvals)
        if self.asks and boundary.get("needsApproval") and not approved:
            self.unapproved = boundary
        elif stage == last or (self.asks and stage >= self.may_enter):
            self.may_enter = min(stage + 1, last)
            gate = StageGate(
                job_uid=self.folder.uid, attempt=self.attempt, may_enter=self.may_enter, finish=stage == last
            )
            write_json(self.folder.local / "word", gate.plain())


def train(
    folder: Folder,
    processes: int,
    until_step: int | None = None,
    listener: Callable[[dict[str, Any]], None] | None = None,
    stop: threading.Event | None = None,
    command: Sequence[str] = TRAINER,
    devices: int = 1,
    approve: bool = False,
    workers: int | None = None,
) -> tuple[int, dict[str, Any]]:
    """Trains until all stages are done, step `until_step` is committed, `stop` is set, or a stage has ended that needs
    an approval which neither `approve` nor spec.approvals gives; restarts what dies of itself. `devices` as for
    `Gang.start`. `workers`: of a fleet that samples; None: as many as the manifest wants at least.

    Returns the code of `protocol.Exit` that says how it ended (75: go on by calling again) and the termination message;
    where an approval is missing, its `unapproved` is the boundary.
    """
    with contextlib.ExitStack() as stack:
        return _train(folder, processes, until_step, listener, stop, command, devices, approve, workers, stack)


def _train(
    folder: Folder,
    processes: int,
    until_step: int | None,
    listener: Callable[[dict[str, Any]], None] | None,
    stop: threading.Event | None,
    command: Sequence[str],
    devices: int,
    approve: bool,
    workers: int | None,
    stack: contextlib.ExitStack,
) -> tuple[int, dict[str, Any]]:
    """`train`; what must end with it is on the `stack`."""
    fleet: LocalWorkers | None = None  # started once, after the first trainer, and outlives it
    stalled = 0
    while True:
        commit = folder.last_commit()
        before = commit.step if commit else 0
        if until_step is not None and before >= until_step:
            return Exit.DONE, {}
        gang = Gang.start(
            folder, processes, until_step, command, listener, pace=PACE_SECONDS, devices=devices, asks=not approve
        )
        if fleet is None and folder.spec.rollouts is not None:
            count = folder.spec.rollouts.workers.min if workers is None else workers
            fleet = LocalWorkers(folder.local, lambda: _addresses(1)[0], gang.environment, count)
            stack.callback(fleet.end)
        hopeless = None
        try:
            while (codes := gang.wait(0.1)) is None:
                hopeless = fleet.failed if fleet is not None else None
                if hopeless is not None or gang.unapproved is not None or (stop is not None and stop.is_set()):
                    codes = gang.end()
                    break
        finally:
            gang.end()
        if hopeless is not None:
            return Exit.CONFIGURATION_INVALID, hopeless
        worst = verdict(codes)
        message = gang.termination(codes.index(worst))
        after = folder.last_commit()
        reached = after is not None and until_step is not None and after.step >= until_step
        if worst == Exit.DONE or (worst == Exit.DRAINED and reached):
            return Exit.DONE, message
        if gang.unapproved is not None:
            return Exit.DRAINED, message | {"unapproved": gang.unapproved}
        if message.get("reason") == BUDGET_SPENT:
            return worst, message
        disturbed = worst in (Exit.DRAINED, Exit.PEER_LOST, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT)
        if not disturbed or (stop is not None and stop.is_set()):
            return worst, message
        stalled = 0 if after is not None and (commit is None or after.seq > commit.seq) else stalled + 1
        if stalled == STALLED_AFTER:
            return worst, message


def verdict(codes: Sequence[int]) -> int:
    """The exit code that says most about why a gang ended."""
    order = [
        Exit.CONFIGURATION_INVALID,
        Exit.DETERMINISTIC_FAILURE,
        Exit.CHECKPOINT_UNREADABLE,
        Exit.STORAGE_UNAVAILABLE,
        Exit.ACCELERATOR_UNAVAILABLE,
        Exit.INTERNAL,
        Exit.FENCED,
    ]
    late = [-signal.SIGKILL, -signal.SIGTERM, Exit.DRAINED, Exit.PEER_LOST, -signal.SIGABRT, Exit.DONE]
    known = [int(c) for c in order], [int(c) for c in late]
    # Unknown codes stand between: they are failures, but say less than a named one.
    rank = {c: i for i, c in enumerate(known[0])} | {c: 100 + i for i, c in enumerate(known[1])}
    return min(codes, key=lambda c: rank.get(c, 50))


def remove(folder: Path) -> None:
    """Removes a working folder that this program made; anything else is left alone."""
    if (folder / "local" / "uid").exists():
        shutil.rmtree(folder)


def _in_volume(path: str, directory: str) -> bool:
    """Whether a path is in the volume of the checkpoint directory, which is mounted at its first component."""
    if Location.parse(path).on_bucket or Location.parse(directory).on_bucket:
        return False
    return Path(path).parts[:2] == Path(directory).parts[:2]


def _addresses(processes: int) -> list[str]:
    """Loopback addresses, one a process, with the ports of a leader free on the first."""
    for _ in range(100):
        prefix = f"127.{random.randint(16, 250)}.{random.randint(0, 255)}"
        if all(_free(f"{prefix}.1", port) for port in PORTS):
            return [f"{prefix}.{1 + i}" for i in range(processes)]
    raise OSError(f"no loopback address has ports {', '.join(map(str, PORTS))} free")


def _free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replaces a file as a kubelet does: it is never seen half-written."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
