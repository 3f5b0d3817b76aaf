"""The trainer process, from its first line to its exit code: `ratchet trainer`.

Decides the order of the start, made for speed (every millisecond here is part of every recovery), and which exit code
and termination message each end gets. What happens in between is `run.py`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ratchet_api import log_lines
from ratchet_api.exact_environment import performance_environment
from ratchet_api.protocol import ENV_WORKER, METRICS_PORT, PORT, Exit
from ratchet_trainer.algorithm.verifiers.preflight import check_machine
from ratchet_trainer.errors import ConfigurationInvalid, PeerLost, TrainerError
from ratchet_trainer.process import kept_log
from ratchet_trainer.process.environment import (
    ENV_PARENT,
    Environment,
    exact_environment_of,
    read_environment,
    read_job_file,
)
from ratchet_trainer.process.shutdown import Watchdog
from ratchet_trainer.storage import Location

log = logging.getLogger(__name__)

LAST_SAVE_SECONDS = 10.0
"""How long a process that fails of itself waits for the save in flight: it is good, whatever came after it."""

_REEXECUTED = "RATCHET_REEXECUTED"


def main(run: Callable[[Any], None] | None = None) -> NoReturn:
    """Runs one trainer process and ends it with a code of `protocol.Exit`. `run` replaces `ratchet_trainer.run.run`."""
    watchdog = Watchdog(Path(os.environ.get("RATCHET_TERMINATION_LOG", "/dev/termination-log")))
    watchdog.install()  # before anything slow: an earlier signal ends Python with 143, which counts as drained
    tail = kept_log.listen()
    _configure_logging()
    _end_with_parent(watchdog)
    try:
        environment = read_environment()
        watchdog.grace = float(environment.grace_seconds)
        job = read_job_file(environment.job_file)
        if not watchdog.requested:
            _reexecute_if_needed(job, environment.asked.platform)
        _keep_log(tail, environment, job, watchdog)
        _train(environment, job, watchdog, run)
        watchdog.leave(Exit.DONE, "Done", "all stages are done")
    except BaseException as error:
        _leave(watchdog, error)
    raise AssertionError("leave does not return")


def work() -> NoReturn:
    """Runs one process of a worker of the rollout fleet (`worker.py`), and ends it likewise."""

    def run(runtime: Any) -> None:
        if runtime.environment.worker is None:
            raise ConfigurationInvalid(
                f"{ENV_WORKER} is not set: a worker has a number, which the operator gives it; on one machine call "
                "`ratchet train FILE --workers N`"
            )
        from ratchet_trainer.worker import run as whole

        whole(runtime)

    main(run)


def _train(
    environment: Environment, job: dict[str, Any], watchdog: Watchdog, run: Callable[[Any], None] | None
) -> None:
    from ratchet_trainer.process.agreement import Peers

    if environment.uid != job["jobUID"]:
        raise ConfigurationInvalid(f"{environment.job_file} is of job {job['jobUID']}, the pod of {environment.uid}")
    check_machine(job["spec"])
    directory = Location.parse(job["spec"]["checkpoint"]["directory"], "spec.checkpoint.directory")
    found: list[Peers | BaseException] = []
    meeting = threading.Thread(target=_meet, args=(environment, found), name="meet", daemon=True)
    meeting.start()  # while JAX is imported: the other processes may still be on their way

    from ratchet_trainer.process import distributed, metrics
    from ratchet_trainer.process.progress import Progress, pages, serve

    progress = Progress(environment)
    name = job["namespace"], job["name"]

    def shown(query: Any, accept: str) -> tuple[bytes, str]:
        if environment.worker is not None:
            return metrics.of_worker(accept)
        return metrics.exposition(progress, *name, environment.process, accept)

    try:
        serve({"/metrics": shown}, environment.address, METRICS_PORT)
    except OSError as error:  # nobody can watch, but everything can be trained
        log.warning("no metrics are served: %s", error)
    if environment.leader:
        serve(pages(progress), environment.address, PORT)
    with _took("import of jax"):
        distributed.set_flags()
        import jax  # noqa: F401
    with _took("meeting the other processes"):
        meeting.join()
    if isinstance(found[0], BaseException):
        raise found[0]
    peers = found[0]
    watchdog.attach(peers.watch)
    with _took("start of jax"):
        programs = distributed.start(environment, environment.compilation_cache or directory / "cache")

    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.process.tracking import FINISH_SECONDS

    runtime = Runtime(environment, job, peers, watchdog, progress)
    ours = run is None or environment.worker is not None
    if run is None:
        with _took("import of the run"):
            from ratchet_trainer.run import run as whole_run
        run = whole_run
    if ours:  # what a test puts in its place is in no index
        distributed.use_index(programs, job["spec"])
    run(runtime)
    runtime.wait_for_commits()
    runtime.local.clear()
    runtime.durable.tracking.finish(FINISH_SECONDS)
    if runtime.job.spec.trackers is not None:
        runtime.broadcast(None)  # the others stay until then: JAX ends a process that has lost one for SILENCE_SECONDS
    progress.update(phase="done")


def _keep_log(tail: kept_log.Tail, environment: Environment, job: dict[str, Any], watchdog: Watchdog) -> None:
    directory = Location.parse(job["spec"]["checkpoint"]["directory"], "spec.checkpoint.directory")
    kept = kept_log.KeptLog(tail, directory, environment.tag, environment.process)
    watchdog.keep_log, watchdog.claimed = kept.keep, kept.own
    kept.begin()


def _meet(environment: Environment, found: list[Any]) -> None:
    from ratchet_trainer.process.agreement import Peers

    try:
        found.append(Peers(environment))
    except (PeerLost, OSError) as error:
        found.append(error if isinstance(error, PeerLost) else PeerLost(f"the other processes: {error}"))


def _leave(watchdog: Watchdog, error: BaseException) -> NoReturn:
    """The exit code and the termination message of an exception. Does not return."""
    from ratchet_trainer.errors import Drain
    from ratchet_trainer.storage.local_copy import at_its_source

    owner = getattr(error, "owner", None)
    if isinstance(error, Drain):
        watchdog.settle(LAST_SAVE_SECONDS)
        if error.boundary is not None:
            watchdog.standing.boundary = error.boundary
        watchdog.leave(Exit.DRAINED, error.reason, str(error))
    if isinstance(error, PeerLost) or (not isinstance(error, TrainerError) and _collective_broke(error)):
        watchdog.peer_lost(str(error)[:2000])
    if isinstance(error, TrainerError):
        watchdog.settle(LAST_SAVE_SECONDS)
        log.error("%s: %s", error.reason, error)
        watchdog.leave(error.exit, error.reason, at_its_source(str(error)), owner)
    log.error("internal error", exc_info=error)
    watchdog.settle(LAST_SAVE_SECONDS)
    # What went wrong first: status shows one line of it. The whole traceback stands in the log.
    where = "".join(traceback.format_tb(error.__traceback__)[-4:])
    watchdog.leave(Exit.INTERNAL, type(error).__name__, f"{error}\n{where}")
    raise AssertionError("leave does not return")


_STATUSES = ("UNKNOWN", "UNAVAILABLE", "ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "FAILED_PRECONDITION")


def _collective_broke(error: BaseException) -> bool:
    """Whether an error of JAX means that another process is gone; what a device itself reports is no such error."""
    jax = sys.modules.get("jax")
    try:
        if jax is None or jax.process_count() == 1:
            return False
    except RuntimeError:  # the devices did not start, so nothing was asked of the others
        return False
    text = str(error)
    # A program that fails while it is being started raises a ValueError, which begins with its status.
    failed_start = isinstance(error, ValueError) and text.partition(":")[0] in _STATUSES
    if not failed_start and not isinstance(error, jax.errors.JaxRuntimeError):
        return False
    signs = (
        "Gloo",
        "gloo",
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
        "ABORTED",
        "Connection",
        "coordination",
        "heartbeat",
    )
    return any(sign in text for sign in signs)


def _reexecute_if_needed(job: dict[str, Any], platform: str | None) -> None:
    # Python reads its hash seed, XLA its thread count, and the allocator its settings, once at the start.
    wrong = {k: v for k, v in exact_environment_of(job["spec"], platform).items() if os.environ.get(k) != v}
    again = os.environ.get(_REEXECUTED)
    if wrong and again:
        raise ConfigurationInvalid(
            f"the environment cannot be made exact: {', '.join(wrong)} change again at every start"
        )
    if not again:  # what is for speed alone and taken away every time is done without
        wrong |= performance_environment(os.environ)
    if not wrong:
        return
    log.info("starting again with %s", " ".join(f"{k}={v}" for k, v in wrong.items()))
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wrong | {_REEXECUTED: "1"})


def _end_with_parent(watchdog: Watchdog) -> None:
    # A killed `ratchet train` leaves no process behind. Linux only; elsewhere there is no such signal.
    parent = os.environ.get(ENV_PARENT)
    if parent and sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
        if os.getppid() != int(parent):
            watchdog.request()  # it ended before the signal was asked for


def _configure_logging() -> None:
    process = os.environ.get("RATCHET_PROCESS") or os.environ.get("JOB_COMPLETION_INDEX") or "0"
    text = logging.Formatter(f"%(asctime)s.%(msecs)03d [{process}] %(name)s: %(message)s", "%H:%M:%S")
    about = log_lines.of_pod() | {"process": int(process) if process.isdecimal() else process}
    log_lines.configure(sys.stderr, text, lambda: about)
    for name in ("absl", "orbax", "jax", "jaxlib"):
        logging.getLogger(name).setLevel(logging.ERROR)


class _took:
    """Logs how long a part of the start took."""

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        log.info("%s took %.0f ms", self._what, 1e3 * (time.monotonic() - self._since))
