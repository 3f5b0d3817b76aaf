"""Trainers and workers of a fleet that stand still where a test wants them, to be killed there.

Where the file `hold-NAME` beside the job file (NAME: `trainer`, `worker-I`) has the name of a point, the process stops
there, says so in `held-NAME` (JSON: its pid, the point, the call), and goes on once that file has other words or it is
told to go. Points of a worker: `idle` between two calls; `leased` before it samples one, `call` in its middle, `put`
before its answer, `answered` after it. Of a trainer: `await` while it waits for results; `planned` once calls are on
the board; `update` between two updates of a step; `published` once its weights are, before anything else; `finish`
before the entry of a commit, `committed` after it, before anything is deleted.

As a program it is the parent of them all: it has imported what they need, so each starts within moments (`Forked`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

from ratchet_api.protocol import ENV_WORKER
from ratchet_trainer import app
from ratchet_trainer.process import shutdown
from ratchet_trainer.process.environment import ENV_PARENT

PATIENCE = 2.0
"""Seconds after which leases run out here, so that tests need not wait for long."""


class Forked:
    """What `subprocess.Popen` is, for a process that the parent forks; its command does not count."""

    _lock = threading.Lock()
    _parent: subprocess.Popen[str] | None = None

    def __init__(self, command: Sequence[str], env: Mapping[str, str], stdout: IO[bytes], **_: Any):
        self.returncode: int | None = None
        self.pid: int = self._ask({"env": dict(env), "log": stdout.name}, env)

    @classmethod
    def _ask(cls, what: dict[str, Any], env: Mapping[str, str] | None = None) -> Any:
        with cls._lock:
            if cls._parent is None:
                program = (sys.executable, __file__)
                pipe = subprocess.PIPE
                cls._parent = subprocess.Popen(program, stdin=pipe, stdout=pipe, text=True, env=env)
            assert cls._parent.stdin is not None
            assert cls._parent.stdout is not None
            cls._parent.stdin.write(json.dumps(what) + "\n")
            cls._parent.stdin.flush()
            return json.loads(cls._parent.stdout.readline())

    @classmethod
    def end(cls) -> None:
        """Ends the parent, and with it all that are left."""
        if cls._parent is not None:
            cls._parent.communicate()
            cls._parent = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


SUBPROCESS = SimpleNamespace(Popen=Forked, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired)
"""In place of the module, where processes of runs are started."""


def serve() -> None:
    """The parent: answers each line until there are no more."""
    import jax  # noqa: F401

    from ratchet_trainer import run, worker  # noqa: F401

    ended: dict[int, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "env" in asked:
            if (pid := os.fork()) == 0:
                _begin(asked["env"], asked["log"])
            answer: Any = pid
        else:
            pid = asked["ended"]
            if pid not in ended and (found := os.waitpid(pid, os.WNOHANG))[0]:
                ended[pid] = os.waitstatus_to_exitcode(found[1])
            answer = ended.get(pid)
        print(json.dumps(answer), flush=True)


def _begin(env: dict[str, str], log: str) -> None:
    """In a forked process. Does not return."""
    try:
        os.setsid()
        os.environ.clear()
        os.environ.update(env | {ENV_PARENT: str(os.getppid())})
        for number, (place, how) in enumerate([("/dev/null", os.O_RDONLY)] + [(log, os.O_WRONLY | os.O_APPEND)] * 2):
            os.dup2(os.open(place, how), number)
        install = shutdown.Watchdog.install

        def noted(self: shutdown.Watchdog) -> None:
            here.watchdog = self
            install(self)

        shutdown.Watchdog.install = noted  # type: ignore[method-assign]
        here.local = Path(env["RATCHET_JOB_FILE"]).parent
        number = env.get(ENV_WORKER)
        here.name = "trainer" if number is None else f"worker-{number}"
        quick()
        app.main(as_trainer if number is None else as_worker)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(1)


here = SimpleNamespace(local=Path(), name="", watchdog=None)
"""Who this process is."""


def at(point: str, about: str = "") -> None:
    if not point or _wanted() != point:
        return
    held, new = here.local / f"held-{here.name}", here.local / f".held-{here.name}"
    new.write_text(json.dumps({"pid": os.getpid(), "point": point, "about": about}))
    os.replace(new, held)
    while _wanted() == point and not here.watchdog.requested:
        time.sleep(0.005)
    held.unlink(missing_ok=True)


def _wanted() -> str:
    try:
        return (here.local / f"hold-{here.name}").read_text()
    except FileNotFoundError:
        return ""


def around(owner: Any, name: str, before: str = "", after: str = "") -> None:
    """Points before and after a method."""
    real = getattr(owner, name)

    def held(*arguments: Any, **more: Any) -> Any:
        at(before)
        found = real(*arguments, **more)
        at(after)
        return found

    setattr(owner, name, held)


def quick() -> None:
    """Short waits, and calls of more than one chunk. Of workers that are killed at a few calls, or seem to be on a busy
    machine, none makes poison: that is another test's matter."""
    from ratchet_trainer import worker
    from ratchet_trainer.fleet import board, leases, sampling
    from ratchet_trainer.rollout import sampler

    board.PATIENCE_ON_PATHS = board.PATIENCE_ON_BUCKETS = PATIENCE
    sampling.LOOK_SECONDS = worker.IDLE_SECONDS = 0.02, 0.1
    leases.MOST_SILENCES = 1000
    sampler.CHUNK = 2


def as_worker(runtime: Any) -> None:
    from ratchet_trainer import worker
    from ratchet_trainer.fleet.board import Board
    from ratchet_trainer.rollout.engine import Engine

    going: list[Any] = []
    call = ""
    begin, safe_point, answer = Engine._begin, type(runtime).safe_point, worker.Worker._answer

    def begun(self: Any, *arguments: Any) -> Any:
        going[:] = [begin(self, *arguments)]
        return going[0]

    def point(self: Any) -> None:
        if self.progress.document["phase"] == "await":
            at("idle")
        elif going and not going[0].over:
            at("call", call)
        safe_point(self)

    def answered(self: Any, one: Any) -> None:
        nonlocal call
        call = one.folder
        at("leased", call)
        answer(self, one)
        going.clear()

    Engine._begin, worker.Worker._answer = begun, answered  # type: ignore[method-assign]
    type(runtime).safe_point = point
    around(Board, "put", before="put", after="answered")
    worker.run(runtime)


def as_trainer(runtime: Any) -> None:
    from ratchet_trainer import run as real
    from ratchet_trainer.checkpoints.checkpoint import Checkpoints
    from ratchet_trainer.fleet.sampling import FleetSampling
    from ratchet_trainer.fleet.versions import Versions

    safe_point, learn = type(runtime).safe_point, real.learn

    def point(self: Any) -> None:
        if self.progress.document["phase"] == "await":
            at("await")
        safe_point(self)

    def learned(*arguments: Any) -> Any:
        state, pending = learn(*arguments)
        if len(pending.left):
            at("update")
        return state, pending

    type(runtime).safe_point = point
    real.learn = learned  # type: ignore[attr-defined]
    around(FleetSampling, "_publish", after="planned")
    around(Versions, "publish", after="published")
    around(Checkpoints, "finish", before="finish", after="committed")
    real.run(runtime)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it ends it
    sys.modules["held_process"] = sys.modules["__main__"]
    serve()
