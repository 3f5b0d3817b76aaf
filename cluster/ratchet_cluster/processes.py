"""The processes that belong to one cluster: started, found again, and ended without ever touching a foreign one.

Decides what "belongs" means: a process belongs to the cluster in DIR when its environment says so
(`RATCHET_CLUSTER_DIR`). Whatever it starts inherits that, pods and their children included, so a cluster is found
whole even after its starter was killed between two steps, and a recycled process id is never mistaken for ours: the
environment is read again through a pidfd before each signal. Which processes there are and in which order: `plane.py`
and `cluster.py`.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

DIR = "RATCHET_CLUSTER_DIR"
NAME = "RATCHET_CLUSTER_PROCESS"
POD = "RATCHET_CLUSTER_POD"
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG", "RATCHET_CLUSTER_ISOLATION")

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of the flags in /proc/PID/stat

Where = Mapping[str, str | None]  # what an environment must hold; None: any value

_children: list[subprocess.Popen[bytes]] = []  # kept so that the ones which end while we live are reaped


def mark(folder: Path, name: str) -> dict[str, str]:
    """The environment by which a process of this cluster is known again."""
    return {DIR: str(folder), NAME: name}


def start(folder: Path, name: str, command: list[str], env: Mapping[str, str] | None = None) -> int:
    """Starts a process in a session of its own, its output appended to `logs/NAME.log`; returns its pid."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    keep = {key: os.environ[key] for key in INHERITED if key in os.environ}
    with open(logs / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=folder,
            env={**keep, **(env or {}), **mark(folder, name)}, start_new_session=True,
        )  # fmt: skip
    _children.append(process)
    while process.poll() is None and not _holds(environment(process.pid), mark(folder, name)):
        time.sleep(0.001)  # until the child has become its program, it shows our own environment
    return process.pid


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone, a zombie, or not ours to read.

    While it becomes another program (execve) the kernel shows none for a moment; this waits for the new one. Taken for
    "not ours" in that moment, the process would outlive its container.
    """
    began = time.monotonic()
    try:
        raw = Path(f"/proc/{pid}/environ").read_bytes()
        while not raw and time.monotonic() < began + _seconds_to_come(pid):
            time.sleep(0.0005)
            raw = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in raw.decode(errors="replace").split("\0") if "=" in pair)


def _seconds_to_come(pid: int) -> float:
    """How long an environment that shows empty may be on its way, by proc(5)'s stat: 0 where nothing lives or the
    kernel runs. A new program's `env_start` and `env_end` are 0 until they are known. Then they are equal while the
    kernel counts the strings, which takes it no time unless it is interrupted; of one without an environment they stay
    so."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rsplit(")", 1)[1].split()
    state, flags, memory, begin, end = stat[0], int(stat[6]), int(stat[20]), int(stat[47]), int(stat[48])
    if state in "ZX" or flags & _KERNEL_THREAD or memory == 0:
        return 0.0
    return 0.05 if end and end == begin else 5.0


def belonging(where: Where) -> dict[int, dict[str, str]]:
    """pid -> environment of every live process whose environment holds all of `where`."""
    _reap()
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            env = environment(int(entry))
            if _holds(env, where):
                found[int(entry)] = env
    return found


def _holds(env: Mapping[str, str], where: Where) -> bool:
    return all(key in env if value is None else env.get(key) == value for key, value in where.items())


def running(folder: Path) -> dict[str, int]:
    """name -> pid of the cluster's own processes (pods are left out)."""
    return {env.get(NAME, "?"): pid for pid, env in belonging({DIR: str(folder)}).items() if POD not in env}


def end(where: Where, grace: float) -> list[int]:
    """SIGTERM to every process whose environment holds `where`, SIGKILL to those alive after `grace` seconds.

    Returns the pids that had to be killed. Processes that appear meanwhile (children) are ended as well.
    """
    with _pinned(belonging(where), where) as handles:
        _send(handles, signal.SIGTERM)
        _wait(handles, time.monotonic() + grace)
    killed = sorted(belonging(where))
    kill(where)
    return killed


def kill(where: Where) -> None:
    """SIGKILL to every process whose environment holds `where`, until there is none; their ports are free then.

    Raises RuntimeError when some do not end (the kernel holds them).
    """
    deadline = time.monotonic() + 30
    while True:
        with _pinned(belonging(where), where) as handles:
            if not handles:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"processes {sorted(handles)} do not end even by SIGKILL; are they stuck in the kernel?"
                )
            _send(handles, signal.SIGKILL)
            _wait(handles, time.monotonic() + 5)


@contextmanager
def _pinned(pids: Iterable[int], where: Where) -> Iterator[dict[int, int]]:
    """pid -> pidfd of those whose environment holds `where`.

    A pidfd pins the process: its environment, read again, tells whether it is still the one we mean. And it tells when
    a process is gone for good: the environment vanishes earlier, while files and sockets are still open.
    """
    handles: dict[int, int] = {}
    try:
        for pid in pids:
            with suppress(ProcessLookupError):
                handles[pid] = os.pidfd_open(pid)
                if not _holds(environment(pid), where):
                    os.close(handles.pop(pid))
        yield handles
    finally:
        for handle in handles.values():
            os.close(handle)


def _send(handles: Mapping[int, int], number: int) -> None:
    for handle in handles.values():
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


def _wait(handles: Mapping[int, int], deadline: float) -> None:
    for handle in handles.values():
        select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
    _reap()


def _reap() -> None:
    _children[:] = [child for child in _children if child.poll() is None]
