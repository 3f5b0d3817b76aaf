"""One container as a local process: started, watched by its probes, ended, and what its status says.

Decides exit codes, reasons, termination messages, whether and when it starts again. What it is started with
(environment, mounts, address) is put together in `pod.py`; how its status fits into the pod's is `status.py`'s
matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ratchet_cluster import probes, processes, sandbox
from ratchet_cluster.objects import Object

MESSAGE_LIMIT, LOG_TAIL_LIMIT, LOG_TAIL_LINES = 4096, 2048, 80
FIRST_PAUSE, LONGEST_PAUSE, FORGIVEN_AFTER = 1.0, 60.0, 600.0  # KEP-4603; a kubelet without it starts at 10 s


@dataclass(frozen=True)
class Launch:
    """Everything that one start of a container needs."""

    command: list[str]
    env: dict[str, str]
    mounts: list[sandbox.Mount]
    workdir: str
    hostname: str
    address: str
    scratch: Path  # an empty folder for the container's mirrored root
    message_file: Path
    log: Path
    mark: dict[str, str]  # environment that tells this container's processes from all others


def timestamp() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Container:
    """`spec` of one container and what became of it. `changed` is called whenever its status would read differently."""

    def __init__(self, spec: Object, identity: str, changed: Callable[[], None]) -> None:
        self.spec, self.name, self.identity = spec, spec["name"], identity
        self.state: Object = {
            "waiting": {"reason": "PodInitializing" if identity.startswith("late/") else "ContainerCreating"}
        }
        self.last: Object = {}
        self.restarts = 0
        self.ready = self.started = False
        self.process: subprocess.Popen[bytes] | None = None
        self.logs: list[Path] = []
        self._changed = changed
        self._launch: Launch | None = None
        self._liveness_failed = False
        self._pause = 0.0

    # -- what it says --------------------------------------------------------------------------------------------------

    def waits(self, reason: str, message: str = "") -> None:
        """Sets a waiting state, such as CreateContainerConfigError."""
        state = {"waiting": {"reason": reason} | ({"message": message} if message else {})}
        if state != self.state:
            self.state = state
            self._changed()

    @property
    def exit_code(self) -> int | None:
        """Of the latest end; None while it runs or before it ever did."""
        code: int | None = self.state.get("terminated", {}).get("exitCode")
        return code

    def lost(self, restarts: int) -> None:
        """Its process went with an earlier life of the node."""
        self.restarts = restarts
        self.state = {
            "terminated": {
                "exitCode": 137,
                "reason": "ContainerStatusUnknown",
                "message": "The container could not be located when the pod was terminated",
                "startedAt": None,
                "finishedAt": None,
            }
        }

    # -- running -------------------------------------------------------------------------------------------------------

    async def run_once(self, launch: Launch, way: str) -> int:
        """Starts the process and returns its exit code once it and everything that it started has ended."""
        self._launch, self._liveness_failed = launch, False
        started, clock = timestamp(), asyncio.get_running_loop().time()
        self.logs.append(launch.log)
        try:
            self.process = self._spawn(launch, way)
        except (OSError, subprocess.SubprocessError) as error:
            words = launch.log.read_text(errors="replace").strip() or str(error)
            return self._ended(128, started, reason="StartError", message=f"failed to start: {words}")
        self.state = {"running": {"startedAt": started}}
        self.started, self.ready = (
            "startupProbe" not in self.spec,
            not {"startupProbe", "readinessProbe"} & set(self.spec),
        )
        self._changed()
        watcher = asyncio.create_task(self._watch_probes())
        try:
            code = await _exit_of(self.process)
        finally:
            watcher.cancel()
        if processes.belonging(launch.mark):  # a container ends as a whole: what its first process left goes with it
            await asyncio.to_thread(processes.kill, launch.mark)
        if asyncio.get_running_loop().time() - clock > FORGIVEN_AFTER:
            self._pause = 0.0
        return self._ended(code, started)

    async def back_off(self, stopped: asyncio.Event) -> None:
        """Waits until it may start again: at once the first time, then longer and longer."""
        if self._pause:
            code, text = self.exit_code, f"back-off {self._pause:.0f}s restarting failed container={self.name}"
            self.last = self.state
            self.waits("CrashLoopBackOff", f"{text} (exit code {code})")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), self._pause)
        self._pause = min(self._pause * 2, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
        if "terminated" in self.state:
            self.last = self.state
        self.restarts += 1

    def _spawn(self, launch: Launch, way: str) -> subprocess.Popen[bytes]:
        launch.log.parent.mkdir(parents=True, exist_ok=True)
        launch.scratch.mkdir(parents=True, exist_ok=True)
        launch.message_file.write_bytes(b"")
        with open(launch.log, "ab") as log:
            return subprocess.Popen(
                launch.command,
                env={**launch.env, **launch.mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=sandbox.entrance(way, launch.mounts, launch.scratch, launch.hostname, launch.workdir),
            )

    def _ended(self, code: int, started: str, reason: str = "", message: str = "") -> int:
        message = message or self._message(code)
        self.state = {
            "terminated": {
                "exitCode": code,
                "reason": reason or ("Completed" if code == 0 else "Error"),
                "startedAt": started,
                "finishedAt": timestamp(),
            }
            | ({"message": message} if message else {})
        }
        self.process = None
        self.ready = self.started = False
        self._changed()
        return code

    def _message(self, code: int) -> str:
        assert self._launch is not None
        try:
            text = self._launch.message_file.read_bytes()[:MESSAGE_LIMIT].decode(errors="ignore")
        except OSError:
            text = ""
        if not text and code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            tail = self._launch.log.read_bytes()[-LOG_TAIL_LIMIT:].decode(errors="ignore")
            text = "\n".join(tail.splitlines()[-LOG_TAIL_LINES:])
        return text

    # -- ending --------------------------------------------------------------------------------------------------------

    async def stop(self, grace: float) -> None:
        """The pre-stop hook, then SIGTERM to the first process. Whoever calls kills it when its time is over."""
        hook = (self.spec.get("lifecycle") or {}).get("preStop")
        if self.process and hook:
            assert self._launch is not None
            with contextlib.suppress(probes.Unknown):
                await probes.ask(hook, self.spec, self._launch.address, self.execute, grace)
        self.signal(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """To the first process, as a container runtime does."""
        if self.process and self.process.returncode is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        self.signal(signal.SIGKILL)
        if self.process and self._launch:
            processes.kill(self._launch.mark)

    # -- probes --------------------------------------------------------------------------------------------------------

    async def execute(self, command: list[str], timeout: float) -> int:
        """Runs a command in the container's own view of the file system; its exit code, 124 after `timeout` seconds."""
        launch = self._launch
        assert launch is not None
        scratch = launch.scratch.with_name(f"{launch.scratch.name}-exec")
        scratch.mkdir(exist_ok=True)
        process = subprocess.Popen(
            command, env={**launch.env, **launch.mark}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=sandbox.entrance(sandbox.ability(), launch.mounts, scratch, launch.hostname, launch.workdir),
        )  # fmt: skip
        try:
            return await asyncio.wait_for(_exit_of(process), timeout)
        except TimeoutError:
            return 124
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()

    async def _watch_probes(self) -> None:
        if probe := self.spec.get("startupProbe"):
            await self._ask(probe, self._startup_answered, once=True)
        watches = []
        if probe := self.spec.get("livenessProbe"):
            watches.append(self._ask(probe, self._liveness_answered))
        if probe := self.spec.get("readinessProbe"):
            watches.append(self._ask(probe, self._readiness_answered))
        await asyncio.gather(*watches)

    async def _ask(self, probe: Object, answered: Callable[[bool], None], once: bool = False) -> None:
        assert self._launch is not None
        await probes.watch(probe, self.spec, self._launch.address, self.execute, answered, once=once)

    def _startup_answered(self, passed: bool) -> None:
        if not passed:
            self._liveness_answered(False)
            return
        self.started, self.ready = True, "readinessProbe" not in self.spec
        self._changed()

    def _readiness_answered(self, passed: bool) -> None:
        if passed != self.ready:
            self.ready = passed
            self._changed()

    def _liveness_answered(self, passed: bool) -> None:
        if not passed and not self._liveness_failed:
            self._liveness_failed = True
            self.signal(signal.SIGTERM)
            grace = self.spec.get("_grace", 30)
            asyncio.get_running_loop().call_later(grace, self._kill_if_same, self.process)

    def _kill_if_same(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None and process is self.process:
            self.kill()


async def _exit_of(process: subprocess.Popen[bytes]) -> int:
    """Exit code as a shell gives it: 128 + n after signal n."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    handle = os.pidfd_open(process.pid)
    try:
        loop.add_reader(handle, ended.set)
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    code = process.wait()
    return code if code >= 0 else 128 - code
