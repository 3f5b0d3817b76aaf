"""Ending what belongs to a cluster, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ratchet_cluster import processes

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
]


def begin(command: list[str], env: dict[str, str]) -> subprocess.Popen:
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_started_process_is_found_by_name_and_ended(tmp_path: Path) -> None:
    pid = processes.start(tmp_path, "thing", SLEEP)
    assert processes.running(tmp_path) == {"thing": pid}
    assert processes.end({processes.DIR: str(tmp_path)}, grace=20) == []
    assert processes.running(tmp_path) == {}


def test_a_process_of_another_cluster_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "a", tmp_path / "b"
    ours.mkdir()
    theirs.mkdir()
    processes.start(ours, "thing", SLEEP)
    pid = processes.start(theirs, "thing", SLEEP)
    try:
        processes.end({processes.DIR: str(ours)}, grace=20)
        assert processes.running(theirs) == {"thing": pid}
    finally:
        processes.kill({processes.DIR: str(theirs)})


def test_a_foreign_process_is_never_signalled(tmp_path: Path) -> None:
    """Also when its pid is one that a process of ours had: only the environment counts."""
    foreign = begin(SLEEP, {})
    try:
        where = {processes.DIR: str(tmp_path)}
        with processes._pinned([foreign.pid], where) as handles:
            assert handles == {}
        processes.kill(where)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_grandchildren_in_a_session_of_their_own_are_ended_too(tmp_path: Path, wait_until: Callable) -> None:
    script = f"import subprocess, time; subprocess.Popen({SLEEP!r}, start_new_session=True); time.sleep(600)"
    processes.start(tmp_path, "parent", [sys.executable, "-c", script])
    where = {processes.DIR: str(tmp_path)}
    wait_until(lambda: len(processes.belonging(where)) == 2)
    processes.end(where, grace=20)
    assert processes.belonging(where) == {}


def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    mark = processes.mark(tmp_path, "stubborn")
    process = begin(STUBBORN, mark)
    assert processes.end(mark, grace=0.2) == [process.pid]
    assert process.wait() == -9


def test_a_process_that_becomes_another_program_is_found_all_the_time(tmp_path: Path) -> None:
    """The kernel shows no environment for a moment; who is not found then outlives its container."""
    script = tmp_path / "again.sh"
    script.write_text('[ "$1" = 0 ] || exec sh "$0" $(($1 - 1))\n')
    mark = processes.mark(tmp_path, "chain")
    process = subprocess.Popen(["sh", str(script), "1500"], env=mark)
    seen, missed, missing = 0, 0, 0
    while process.poll() is None:
        if processes.environment(process.pid).get(processes.NAME) == "chain":
            seen, missed, missing = seen + 1, missed + missing, 0
        else:
            missing += seen > 0  # the first moments still show our own, and the last ones, while it ends, nothing
    assert process.returncode == 0
    assert seen > 1000
    assert missed == 0
