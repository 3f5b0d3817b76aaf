"""Signals, lost peers and errors: real processes, told to go in every phase, and what they leave behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.checkpoints.journal import Claim, Journal
from ratchet_trainer.process import stacks
from ratchet_trainer.tools.local import Folder, Gang, train, write_json

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))
STEPS = 12


def small_job(every_steps: int = 1) -> RLTrainingJob:
    stage = {"sft": {"dataset": "d"}, "advance": {"steps": STEPS // 2}}
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "first", **stage}, {"name": "second", **stage}],
        "checkpoint": {"directory": "/replaced", "everySteps": every_steps},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "work", "small", small_job())


class Watched:
    """A gang whose progress can be waited for."""

    def __init__(self, folder: Folder, processes: int, **more: Any):
        self._news = threading.Condition()
        self.documents: list[dict[str, Any]] = []
        self.gang = Gang.start(folder, processes, command=SMALL_RUN, listener=self._heard, **more)

    def _heard(self, document: dict[str, Any]) -> None:
        with self._news:
            self.documents.append(document)
            self._news.notify_all()

    def until(self, holds: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        with self._news:
            self._news.wait_for(lambda: any(map(holds, self.documents)), seconds)
        found = next(filter(holds, self.documents), None)
        log = (self.gang.folder.local / "process-0.log").read_text()[-3000:]
        assert found is not None, f"last seen: {self.documents[-1:]}\n{log}"
        return found

    def codes(self) -> list[int]:
        codes = self.gang.wait(60)
        assert codes is not None, "it does not end"
        return codes


def behave(folder: Folder, **settings: Any) -> None:
    """What the next attempts do besides training; see small_run."""
    for name in ("held", "release"):
        (folder.local / name).unlink(missing_ok=True)
    write_json(folder.local / "small.json", settings)


@pytest.fixture
def start(folder: Folder) -> Iterator[Callable[..., Watched]]:
    gangs = []

    def begin(processes: int = 1, settings: dict[str, Any] | None = None, **more: Any) -> Watched:
        behave(folder, **(settings or {}))
        gangs.append(Watched(folder, processes, **more))
        return gangs[-1]

    yield begin
    for watched in gangs:
        watched.gang.send(signal.SIGKILL)
        watched.gang.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """Results of runs that nothing befell, by number of processes."""
    results = {}
    for processes in (1, 2):
        folder = Folder(tmp_path_factory.mktemp("undisturbed") / "work", "small", small_job())
        code, _ = train(folder, processes, command=SMALL_RUN)
        assert code == Exit.DONE
        results[processes] = folder.result() | {"stream": (folder.path / "metrics.jsonl").read_bytes()}
    return results


def finish(folder: Folder, processes: int, expected: dict[str, Any]) -> None:
    """Goes on to the end and compares with the undisturbed run."""
    behave(folder)
    code, message = train(folder, processes, command=SMALL_RUN)
    assert code == Exit.DONE, message
    found = folder.result()
    for name in ("step", "weightsSha256", "stateSha256", "metricsSha256"):
        assert found[name] == expected[name], name
    assert (folder.path / "metrics.jsonl").read_bytes() == expected["stream"], "each line once, in order"


def held(watched: Watched) -> None:
    log = watched.gang.folder.local / "held"
    watched.until(lambda d: log.exists() or d["phase"] in ("compile", "generate", "restore"))
    while not log.exists():
        assert watched.gang.wait(0.01) is None, "it ended before it got there"


@pytest.mark.parametrize("phase", ["start", "restore", "compile"])
def test_where_no_collective_can_run_the_signal_is_obeyed_at_once(
    folder: Folder, start: Callable[..., Watched], undisturbed: dict[int, dict[str, Any]], phase: str
) -> None:
    # The main thread stands still there (or imports JAX), so only the watchdog can have obeyed.
    watched = start(settings={"hold": f"{phase}:0"})
    if phase == "start":
        watched.until(lambda d: d["phase"] == "start")
    else:
        held(watched)
    watched.gang.send(signal.SIGTERM)
    assert watched.codes() == [Exit.DRAINED]
    assert watched.gang.termination()["reason"] == "Drained"
    finish(folder, 1, undisturbed[1])


@pytest.mark.parametrize("processes", [1, 2])
def test_in_a_step_all_leave_at_the_next_safe_point(
    folder: Folder, start: Callable[..., Watched], undisturbed: dict[int, dict[str, Any]], processes: int
) -> None:
    watched = start(processes, {"hold": "generate:4"})
    held(watched)
    watched.gang.send(signal.SIGTERM, process=processes - 1)  # only one of them is told
    watched.until(lambda d: d["draining"])
    assert watched.gang.wait(0.0) is None, "it left in the middle of a step"
    (folder.local / "release").touch()
    assert watched.codes() == [Exit.DRAINED] * processes
    message = watched.gang.termination()
    assert (message["reason"], message["step"]) == ("Drained", 3)
    assert folder.last_commit().step == 3
    finish(folder, processes, undisturbed[processes])


def test_nothing_that_was_reported_is_lost_with_notice(folder: Folder, start: Callable[..., Watched]) -> None:
    folder.spec = Folder(folder.path, "small", small_job(every_steps=100)).spec
    watched = start(settings={"hold": "generate:5"})
    held(watched)
    assert folder.last_commit() is None
    watched.gang.send(signal.SIGTERM)
    watched.until(lambda d: d["draining"])
    (folder.local / "release").touch()
    assert watched.codes() == [Exit.DRAINED]
    assert folder.last_commit().step == 4


def test_at_a_boundary_without_a_word(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(2, {"word": 0.2}, may_enter=0)
    shown = watched.until(lambda d: d["phase"] == "boundary")
    assert shown["boundary"] == {"stage": 0, "step": 6, "rule": "steps 6", "needsApproval": False}
    assert watched.codes() == [Exit.DRAINED, Exit.DRAINED]
    assert watched.gang.termination()["boundary"] == {"stage": 0, "step": 6, "rule": "steps 6", "needsApproval": False}


def test_told_to_go_while_waiting_at_a_boundary(
    folder: Folder, start: Callable[..., Watched], undisturbed: dict[int, dict[str, Any]]
) -> None:
    watched = start(2, may_enter=0)
    watched.until(lambda d: d["phase"] == "boundary")
    watched.gang.send(signal.SIGTERM, process=1)
    assert watched.codes() == [Exit.DRAINED, Exit.DRAINED]
    assert watched.gang.termination()["boundary"]["stage"] == 0
    finish(folder, 2, undisturbed[2])


def test_the_word_lets_the_next_stage_begin(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(2, may_enter=0)
    watched.until(lambda d: d["phase"] == "boundary")
    word = {"v": 1, "jobUID": folder.uid, "attempt": watched.gang.attempt, "mayEnter": 1, "finish": False, "stages": []}
    write_json(folder.local / "word", word | {"attempt": 99})  # of another attempt: not believed
    write_json(folder.local / "word", word)
    watched.until(lambda d: (d["stage"] or {}).get("index") == 1)
    assert watched.codes() == [Exit.DONE, Exit.DONE]
    assert folder.result()["step"] == STEPS


@pytest.mark.parametrize("victim", [0, 1])
def test_a_peer_that_vanishes_is_missed_at_once(
    folder: Folder, start: Callable[..., Watched], undisturbed: dict[int, dict[str, Any]], victim: int
) -> None:
    watched = start(2, {"hold": "generate:4"})
    held(watched)
    watched.gang.send(signal.SIGKILL, process=victim)
    codes = watched.codes()
    assert codes[victim] == -signal.SIGKILL
    # 134: JAX itself may be quicker to see that its coordinator is gone; the operator counts both as a lost peer.
    assert codes[1 - victim] in (Exit.PEER_LOST, -signal.SIGABRT)
    finish(folder, 2, undisturbed[2])


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        ("ConfigurationInvalid", Exit.CONFIGURATION_INVALID, "ConfigurationInvalid"),
        ("NonFinite", Exit.DETERMINISTIC_FAILURE, "NonFinite"),
        ("Unheard", Exit.INTERNAL, "RuntimeError"),
    ],
)
def test_an_error_has_its_exit_code_and_message_and_loses_nothing(
    folder: Folder, start: Callable[..., Watched], error: str, code: int, reason: str
) -> None:
    watched = start(settings={"raise": f"{error}:3"})
    assert watched.codes() == [code]
    message = watched.gang.termination()
    assert (message["v"], message["reason"], message["step"]) == (1, reason, 2)
    assert "as the test wants it" in message["message"]
    assert folder.last_commit().step == 2


def test_a_newer_owner_fences_the_running_attempt(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(2, {"hold": "generate:4"})
    watched.until(lambda d: (d["checkpoint"] or {}).get("step") == 3)
    newer = Claim(0, "default", "small", folder.uid, "", 9, "another-jobset")
    Journal(folder.path).claim(newer, None, 0)
    (folder.local / "release").touch()
    codes = watched.codes()
    assert codes[0] == Exit.FENCED
    assert codes[1] in (Exit.FENCED, Exit.PEER_LOST)
    assert watched.gang.termination()["owner"] == {"jobUID": folder.uid, "attempt": 9}
    assert folder.last_commit().step == 3


def test_a_known_step_in_an_empty_directory(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(2, last_step=7)
    assert watched.codes()[0] == Exit.CHECKPOINT_UNREADABLE
    assert "step 7" in watched.gang.termination()["message"]


def test_a_full_disk_loses_nothing(
    folder: Folder, start: Callable[..., Watched], undisturbed: dict[int, dict[str, Any]]
) -> None:
    watched = start(settings={"largest": "1024:5"})
    assert watched.codes() == [Exit.STORAGE_UNAVAILABLE]
    assert watched.gang.termination()["reason"] == "StorageUnavailable"
    assert folder.last_commit().step == 4
    finish(folder, 1, undisturbed[1])


def test_a_directory_that_is_gone(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(settings={"hold": "restore:0"})
    held(watched)
    shutil.rmtree(folder.path / "journal")
    (folder.path / "journal").write_text("in the way")
    (folder.local / "release").touch()
    assert watched.codes() == [Exit.STORAGE_UNAVAILABLE]


def test_the_manifest_of_a_begun_stage_was_edited(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(settings={"hold": "generate:4"})
    watched.until(lambda d: (d["checkpoint"] or {}).get("step") == 3)
    watched.gang.send(signal.SIGKILL)
    watched.codes()
    plain = small_job().spec.manifest()
    plain["stages"][0]["sft"]["batchSize"] = 64
    folder.spec = Folder(folder.path, "small", RLTrainingJob.model_validate({"spec": plain})).spec
    assert start().codes() == [Exit.CONFIGURATION_INVALID]
    assert folder.last_commit().step == 3


def test_another_topology_goes_on_and_says_since_when(folder: Folder, start: Callable[..., Watched]) -> None:
    watched = start(1, {"hold": "generate:4"})
    watched.until(lambda d: (d["checkpoint"] or {}).get("step") == 3)
    watched.gang.send(signal.SIGKILL)
    watched.codes()
    watched = start(2)
    assert watched.codes() == [Exit.DONE, Exit.DONE]
    since = folder.result()["exactSince"]
    assert since["step"] == 3
    assert "processes: 1 -> 2" in since["reason"]


def test_a_taken_port_is_named(folder: Folder, start: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from ratchet_api.protocol import PORT
    from ratchet_trainer.tools import local

    with HTTPServer(("127.201.7.1", PORT), BaseHTTPRequestHandler):
        monkeypatch.setattr(local, "_addresses", lambda processes: ["127.201.7.1"])
        watched = start()
        assert watched.codes() == [Exit.INTERNAL]
    assert f"127.201.7.1:{PORT}" in watched.gang.termination()["message"]


def test_a_job_file_that_is_missing(folder: Folder, tmp_path: Path) -> None:
    import subprocess

    log = tmp_path / "termination"
    env = os.environ | {"RATCHET_JOB_FILE": str(tmp_path / "none.json"), "RATCHET_TERMINATION_LOG": str(log)}
    process = subprocess.run([sys.executable, "-m", "ratchet_trainer"], env=env, capture_output=True, timeout=60)
    assert process.returncode == Exit.CONFIGURATION_INVALID
    assert "none.json" in json.loads(log.read_text())["message"]


@pytest.mark.parametrize(
    ("given", "set_again"),
    [
        ({}, "PYTHONHASHSEED=0 GLIBC_TUNABLES=glibc.malloc.hugetlb=1"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=1"}, "PYTHONHASHSEED=0"),
    ],
    ids=["nobody set it", "somebody set one otherwise"],
)
def test_a_trainer_in_another_environment_starts_again_in_its_own(tmp_path: Path, given, set_again) -> None:
    import subprocess

    spec = {"checkpoint": {"directory": str(tmp_path / "nowhere")}, "model": {}, "datasets": []}
    job = {"v": 1, "namespace": "default", "name": "a", "jobUID": "one", "spec": spec, "mayEnter": 0}
    (tmp_path / "job.json").write_text(json.dumps(job))
    own = {"RATCHET_JOB_FILE": tmp_path / "job.json", "RATCHET_TERMINATION_LOG": tmp_path / "log"}
    env = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "PYTHONHASHSEED")}
    env |= {k: str(v) for k, v in own.items()} | {"RATCHET_JOB_UID": "another", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    command = [sys.executable, "-m", "ratchet_trainer"]
    process = subprocess.run(command, env=env | {"NPROC": "1"} | given, capture_output=True, text=True, timeout=60)
    again = [line.split("starting again with ")[1] for line in process.stderr.splitlines() if "again" in line]
    assert [sorted(line.split()) for line in again] == [sorted(set_again.split())]
    assert "is of job one" in json.loads((tmp_path / "log").read_text())["message"]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:23767: Connection reset by peer"), True),
        (ValueError("INTERNAL: no such device"), False),
        (ValueError("Connection of a reward function: refused"), False),
        (OSError("UNAVAILABLE: a heartbeat"), False),
    ],
)
def test_a_collective_that_breaks_while_it_is_started_is_a_lost_peer(monkeypatch, error, lost) -> None:
    """As `make soak` met it: JAX raises a ValueError then, and not its own kind of error."""
    import jax

    from ratchet_trainer.app import _collective_broke

    assert not _collective_broke(error), "one process has no peers"
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert _collective_broke(error) == lost


def test_a_number_of_devices_replaces_another_and_no_other_flag() -> None:
    from ratchet_trainer.checkpoints.identity import DEVICE_COUNT, flags_with_devices

    assert flags_with_devices(f"--xla_a=1 {DEVICE_COUNT}4 --xla_b", 2) == f"--xla_a=1 --xla_b {DEVICE_COUNT}2"
    assert flags_with_devices(f"--xla_a=1 {DEVICE_COUNT}4") == "--xla_a=1"


def test_a_trainer_whose_settings_for_speed_are_taken_away_goes_on_without(tmp_path, monkeypatch) -> None:
    from ratchet_trainer import app

    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name, value in app.exact_environment_of({"podTemplate": {}}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(app._REEXECUTED, "1")
    app._reexecute_if_needed({"spec": {}}, None)
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    with pytest.raises(app.ConfigurationInvalid, match="PYTHONHASHSEED"):
        app._reexecute_if_needed({"spec": {}}, None)


def test_a_hang_is_found_and_leaves_its_stacks(
    folder: Folder, start: Callable[..., Watched], undisturbed: dict[int, dict[str, Any]]
) -> None:
    watched = start(2, {"hold": "generate:4", "patience": 5})
    codes = watched.codes()
    assert codes[0] == Exit.HUNG
    assert codes[1] in (Exit.HUNG, Exit.PEER_LOST), "it waits for process 0, which may be the first to say so"
    message = watched.gang.termination()
    assert (message["reason"], message["step"]) == ("Hung", 3)
    assert "s, more than 5; the newest frames" in message["message"]
    assert "MainThread: maybe_hold (small_run.py" in message["message"]
    assert "Thread 0x" in (folder.local / "process-0.log").read_text(), "all stacks are in the log"
    finish(folder, 2, undisturbed[2])


def test_newest_frames_fit_and_name_the_main_thread_first() -> None:
    done = threading.Event()
    threads = [threading.Thread(target=done.wait, name=f"waiting-{i}") for i in range(30)]
    for thread in threads:
        thread.start()
    found: list[str] = []
    asker = threading.Thread(target=lambda: found.extend(stacks.newest_frames(n) for n in (200, 3072)))
    asker.start()
    asker.join()
    done.set()
    for text, limit in zip(found, (200, 3072), strict=True):
        assert len(text.encode()) <= limit
    assert found[1].startswith("MainThread: ")
    assert "waiting-29: wait (threading.py" in found[1]
