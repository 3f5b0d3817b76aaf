"""The end of each process's log beside the checkpoints: what is there after each kind of end. It harms no run."""

from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from test_leaving import SMALL_RUN, STEPS, Watched, small_job

from ratchet_api.protocol import Exit
from ratchet_trainer import storage
from ratchet_trainer.process import kept_log
from ratchet_trainer.process.kept_log import KeptLog, Tail
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local import Folder, train


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "work", "small", small_job())


def logs(folder: Folder) -> dict[str, str]:
    """attempt/process -> what is kept."""
    root = folder.path / kept_log.FOLDER
    return {f"{file.parent.name.split('-')[0]}/{file.name}": file.read_text() for file in root.rglob("*.log")}


def test_a_tail_keeps_whole_lines_of_the_end_and_costs_no_more():
    tail = Tail(limit=20)
    tail.add("first line\n")
    assert tail.content() == b"first line\n"
    tail.add("second line\nthird\n")
    assert tail.content() == b"second line\nthird\n"
    tail.add("x" * 1000)
    assert tail.content() == b"x" * 20
    assert sum(map(len, tail._parts)) <= 40


def test_any_number_of_threads_may_speak():
    tail = Tail(limit=1 << 20)
    threads = [threading.Thread(target=lambda: [tail.add("line\n") for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tail.content() == b"line\n" * 4000


def test_every_process_leaves_its_log_when_it_is_done(folder):
    watched = Watched(folder, 2)
    watched.until(lambda d: d["step"] == STEPS)
    assert watched.codes() == [Exit.DONE, Exit.DONE]
    found = logs(folder)
    assert sorted(found) == ["a1/process-0.log", "a1/process-1.log"]
    assert all("leaving with 0 (Done): all stages are done" in text for text in found.values())


def test_a_log_in_json_is_an_object_a_line_in_both_places(folder, monkeypatch):
    monkeypatch.setenv("RATCHET_LOG_FORMAT", "json")
    watched = Watched(folder, 1)
    watched.until(lambda d: d["step"] == STEPS)
    assert watched.codes() == [Exit.DONE]
    for text in (logs(folder)["a1/process-0.log"], (folder.local / "process-0.log").read_text()):
        lines = [json.loads(line) for line in text.splitlines()]
        assert {(line["job"], line["namespace"], line["attempt"], line["process"]) for line in lines} == {
            ("small", "default", 1, 0)
        }
        assert lines[-1]["message"].startswith("leaving with 0 (Done)")


def test_a_process_that_is_told_to_go_leaves_its_log(folder):
    watched = Watched(folder, 1)
    watched.until(lambda d: d["step"] >= 2)
    watched.gang.send(signal.SIGTERM)
    assert watched.codes() == [Exit.DRAINED]
    assert "leaving with 75" in logs(folder)["a1/process-0.log"]


def test_a_start_that_is_refused_leaves_its_log(tmp_path):
    job = small_job()
    wrong = job.spec.model_copy(
        update={"model": job.spec.model.model_copy(update={"preset": None, "path": "/nowhere"})}
    )
    folder = Folder(tmp_path / "work", "small", job.model_copy(update={"spec": wrong}))
    code, message = train(folder, 1)
    assert code == Exit.CONFIGURATION_INVALID
    assert message["reason"] in logs(folder)["a1/process-0.log"]


KILLED = """
import os, signal, sys, time
from pathlib import Path
from ratchet_trainer.process import kept_log
from ratchet_trainer.storage import Location
kept_log.PACE_SECONDS = 0.02
kept_log.KeptLog(kept_log.listen(), Location.parse(sys.argv[1]), "a1-0", 0).begin()
print("said before", flush=True)
file = Path(sys.argv[1]) / "logs/a1-0/process-0.log"
while not file.exists():
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_what_was_written_at_the_last_interval(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert kept_log.read(Location.parse(tmp_path), 1, 0)[0][1] == b"said before\n"


def test_where_nothing_can_be_written_a_run_ends_as_well_with_a_line(folder):
    (folder.path / kept_log.FOLDER).write_text("a file is in the way")
    assert train(folder, 1, command=SMALL_RUN)[0] == Exit.DONE
    said = (folder.local / "process-0.log").read_text()
    assert said.count("the log is not kept beside the checkpoints") == 1


def test_a_full_disk_costs_one_line_and_is_tried_again(tmp_path, monkeypatch, caplog):
    tail, place = Tail(), Location.parse(tmp_path)
    kept = KeptLog(tail, place, "a1-00000000", 0)
    with monkeypatch.context() as patch:

        def full(*_, **__):
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(storage, "write", full)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                tail.add("said\n")
                assert kept.keep() is False
    assert [r.message for r in caplog.records if "No space left" in r.message] == [caplog.records[0].message]
    assert kept.keep() is True
    assert kept_log.read(place, 1, 0)[0][1] == b"said\nsaid\nsaid\n"


LEAVES = """
import sys, threading, time
from pathlib import Path
from ratchet_trainer import storage
from ratchet_trainer.process import kept_log
from ratchet_trainer.process.shutdown import Watchdog
from ratchet_trainer.storage import Location
if sys.argv[2] == "hangs":
    storage.write = lambda *_, **__: threading.Event().wait()
watchdog = Watchdog(Path(sys.argv[1]) / "termination")
kept = kept_log.KeptLog(kept_log.listen(), Location.parse(sys.argv[3]), "a1-0", 0)
watchdog.keep_log = kept.keep
print("said")
watchdog.leave(75, "Drained", "told to go")
"""


@pytest.mark.parametrize("storage_is", ["hangs", "refuses"])
def test_no_process_stays_for_its_log(tmp_path, monkeypatch, storage_is):
    """On a disk that hangs, and on a bucket at which nobody answers."""
    monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "any")
    place = "gs://bucket/sums" if storage_is == "refuses" else str(tmp_path / "sums")
    command = [sys.executable, "-c", LEAVES, str(tmp_path), storage_is, place]
    assert subprocess.run(command, timeout=120).returncode == 75


def test_logs_of_the_newest_attempts_are_kept(tmp_path):
    root = tmp_path / kept_log.FOLDER
    for number in (1, 2, 9, 10, 11):
        (root / f"a{number}-0abc").mkdir(parents=True)
        (root / f"a{number}-0abc" / "process-0.log").write_text(str(number))
    (root / "mine").mkdir()
    kept_log.prune(Location.parse(root), most=2)
    assert sorted(path.name for path in root.iterdir()) == ["a10-0abc", "a11-0abc", "mine"]


def test_an_attempt_number_that_was_used_twice_has_both_logs(tmp_path):
    for uid in ("aaaa", "bbbb"):
        KeptLog(said(uid), Location.parse(tmp_path), f"a1-{uid}", 3).keep()
    found = kept_log.read(Location.parse(tmp_path), 1, 3)
    assert [data for _, data in found] == [b"aaaa", b"bbbb"]
    assert kept_log.read(Location.parse(tmp_path), 1, 0) == kept_log.read(Location.parse(tmp_path), 2, 3) == []


def said(text: str) -> Tail:
    tail = Tail()
    tail.add(text)
    return tail
