"""Trackers follow the committed steps: each is there once, wherever processes died, and none costs the run anything."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.checkpoints.checkpoint import stream_of
from ratchet_trainer.step.state import metric_line
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local import Folder, Gang, train, write_json
from ratchet_trainer.trackers.follower import Follower
from ratchet_trainer.trackers.tracker import TrackedRun, TrackerLeft, open_tracker

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))
STEPS = 30
KILLS = 5


def job(trackers: dict[str, Any] | None) -> RLTrainingJob:
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [
            {"name": name, "sft": {"dataset": "d"}, "advance": {"steps": STEPS // 2}} for name in ("first", "second")
        ],
        "checkpoint": {"directory": "/replaced", "everySteps": 2},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return RLTrainingJob.model_validate({"spec": spec | ({"trackers": trackers} if trackers else {})})


def to_the_end(folder: Folder) -> list[dict[str, Any]]:
    """Trains until the job is done; what /progress said of trackers."""
    heard: list[dict[str, Any]] = []
    write_json(folder.local / "small.json", {})
    code, message = train(folder, 1, command=SMALL_RUN, listener=lambda d: heard.extend(d["trackers"] or []))
    log = (folder.local / "process-0.log").read_text()[-3000:]
    assert code == Exit.DONE, f"{message}\n{log}"
    return heard


def killed_at(folder: Folder, step: int, delay: float) -> None:
    """One attempt, that dies without notice so long after it has begun a step."""
    (folder.local / "held").unlink(missing_ok=True)
    write_json(folder.local / "small.json", {"hold": f"generate:{step}"})
    gang = Gang.start(folder, 1, command=SMALL_RUN)
    try:
        while not (folder.local / "held").exists():
            assert gang.wait(0.01) is None, (folder.local / "process-0.log").read_text()[-3000:]
        time.sleep(delay)
        gang.send(signal.SIGKILL)
        assert gang.wait(60) == [-signal.SIGKILL]
    finally:
        gang.end()


def in_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of every event, as TensorBoard's own reader finds them."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def committed(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_bytes().splitlines()]


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = Folder(tmp_path_factory.mktemp("untracked") / "work", "small", job(None))
    to_the_end(folder)
    return folder.result()


def test_tensorboards_own_reader_finds_every_step_once_after_five_kills(tmp_path: Path, untracked: Any) -> None:
    folder = Folder(tmp_path / "work", "small", job({"tensorBoard": {}}))
    draw = random.Random("trackers")
    for step in sorted(draw.sample(range(2, STEPS), KILLS)):
        killed_at(folder, step, draw.uniform(0.0, 1.0))
    to_the_end(folder)
    found = in_tensorboard(folder.path / "tensorboard")
    lines = committed(folder.path)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert found.keys() == {"train/mean", "train/kl"}
    assert found["train/mean"] == [(line["step"], float(line["metrics"]["train/mean"])) for line in lines]
    assert [step for step, _ in found["train/kl"]] == list(range(1, STEPS + 1))
    assert all(math.isnan(value) for _, value in found["train/kl"])
    assert len(list((folder.path / "tensorboard").glob("events.*"))) == 1, "one file, that was gone on with"
    result = folder.result()
    assert {k: result[k] for k in ("stateSha256", "streamSha256")} == {
        k: untracked[k] for k in ("stateSha256", "streamSha256")
    }


def follower(work: Path, name: str = "tensorBoard", uid: str = "uid-1", **settings: Any) -> tuple[Follower, list]:
    """One that is held against a folder's metric stream in this process; and what it says."""
    place = Location.parse(work)
    said: list[dict[str, Any]] = []
    run = TrackedRun("default", "sums", uid, place, {"podTemplate": {}})
    return Follower(lambda: open_tracker(name, settings, run), stream_of(place), said.append), said


def write(directory: Path, steps: range, scale: float = 1.0) -> None:
    """Adds committed steps to the metric stream."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "metrics.jsonl", "ab") as file:
        for step in steps:
            file.write(metric_line(step, "only", {"train/loss": scale * step, "train/kl": math.inf}))


def losses(directory: Path) -> list[tuple[int, float]]:
    return in_tensorboard(directory / "tensorboard")["train/loss"]


def test_half_a_record_at_the_end_is_cut_off_wherever_it_was_cut(tmp_path: Path) -> None:
    write(tmp_path, range(1, 6))
    one, _ = follower(tmp_path)
    one.catch_up()
    one.close()
    (file,) = (tmp_path / "tensorboard").glob("events.*")
    whole = file.read_bytes()
    for size in (0, 5, 40, len(whole) - 1, len(whole) - 20, len(whole)):
        file.write_bytes(whole[:size])
        heir, said = follower(tmp_path)
        assert heir.catch_up() is None
        heir.close()
        assert losses(tmp_path) == [(step, float(step)) for step in range(1, 6)], size
        assert said[-1] == {"state": "Following", "step": 5, "message": ""}


def test_steps_that_were_made_again_with_other_values_stand_once_for_new_readers_and_open_ones(tmp_path: Path) -> None:
    write(tmp_path, range(1, 8))
    one, _ = follower(tmp_path)
    one.catch_up()
    one.close()
    opened = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    opened.Reload()
    stream = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(stream[:4]))  # step 4 was restored, and what came after
    write(tmp_path, range(5, 9), scale=10.0)
    heir, _ = follower(tmp_path)
    heir.catch_up()
    heir.close()
    expected = [(step, float(step)) for step in range(1, 5)] + [(step, 10.0 * step) for step in range(5, 9)]
    assert losses(tmp_path) == expected
    opened.Reload()
    assert [(e.step, e.value) for e in opened.Scalars("train/loss")] == expected


def test_a_tracker_is_told_of_whole_lines_only_and_of_what_is_added_later(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    line = metric_line(3, "only", {"train/loss": 3.0})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b"   \n" + line[:20])  # a blank one, as a damaged stream has, and one that is being written
    one, said = follower(tmp_path)
    one.catch_up()
    assert said[-1]["step"] == 2
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(line[20:])
    one.catch_up()
    one.close()
    assert losses(tmp_path) == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_jobs_share_a_folder_and_one_that_is_made_anew_leaves_the_files_of_the_old_alone(tmp_path: Path) -> None:
    shared = str(tmp_path / "boards")
    write(tmp_path / "old", range(1, 5))
    write(tmp_path / "new", range(1, 5), scale=2.0)
    write(tmp_path / "resumed", range(1, 7))
    one, _ = follower(tmp_path / "old", directory=shared)
    one.catch_up()
    one.close()
    files = {path: path.read_bytes() for path in Path(shared).rglob("events.*")}
    assert [path.parent for path in files] == [Path(shared, "default", "sums")]
    other, _ = follower(tmp_path / "new", uid="uid-2", directory=shared)
    with pytest.raises(TrackerLeft, match=r"has the event files of another job, sums \(uid-1\); move that folder away"):
        other.catch_up()
    other.close()
    assert {path: path.read_bytes() for path in files} == files
    heir, said = follower(tmp_path / "resumed", uid="uid-3", directory=shared)  # spec.checkpoint.existing: Resume
    heir.catch_up()
    heir.close()
    assert said[-1]["step"] == 6


def test_a_folder_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    write(tmp_path, range(1, 3))
    (tmp_path / "tensorboard").write_text("something else")
    one, said = follower(tmp_path)
    assert one.catch_up() == 2.0
    assert one.catch_up() == 4.0
    assert said[-1]["state"] == "Behind"
    assert "tensorboard" in said[-1]["message"]
    (tmp_path / "tensorboard").unlink()
    assert one.catch_up() is None
    one.close()
    assert losses(tmp_path) == [(1, 1.0), (2, 2.0)]


@pytest.mark.parametrize(
    ("name", "settings", "package"),
    [
        ("wandb", {"project": "p"}, "wandb"),
        ("mlflow", {}, "mlflow-skinny"),
        ("trackio", {"project": "p"}, "trackio"),
    ],
)
def test_a_package_that_is_missing_is_said_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, settings: dict[str, Any], package: str
) -> None:
    for module in ("wandb", "mlflow", "trackio"):
        monkeypatch.setitem(sys.modules, module, None)  # type: ignore[arg-type]
    write(tmp_path, range(1, 3))
    one, _ = follower(tmp_path, name, **settings)
    with pytest.raises(TrackerLeft, match=f"pip install {package}; the next attempt makes up for the steps"):
        one.catch_up()


def test_a_follower_that_dies_costs_no_step(tmp_path: Path, untracked: Any) -> None:
    folder = Folder(tmp_path / "work", "small", job({"tensorBoard": {}}))
    heard: list[dict[str, Any]] = []
    (folder.local / "held").unlink(missing_ok=True)
    write_json(folder.local / "small.json", {"hold": "generate:5"})
    gang = Gang.start(folder, 1, command=SMALL_RUN, listener=lambda d: heard.extend(d["trackers"] or []))
    try:
        while not (folder.local / "held").exists() or not heard:
            assert gang.wait(0.01) is None, (folder.local / "process-0.log").read_text()[-3000:]
        os.kill(child_of(gang.children[0].pid), signal.SIGKILL)
        while heard[-1]["state"] != "Left":
            time.sleep(0.01)
        (folder.local / "release").touch()
        assert gang.wait(60) == [Exit.DONE]
    finally:
        gang.end()
    assert "its process ended with -9; the next attempt makes up for the steps" in heard[-1]["message"]
    assert folder.result()["stateSha256"] == untracked["stateSha256"]


def child_of(parent: int) -> int:
    """The process of the follower that a trainer started."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            above = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if b"trackers.follower" in command and above == parent:
                return int(entry.name)
    raise AssertionError("no follower")


def test_a_tracker_that_hangs_at_the_end_does_not_end_a_job_of_several_processes(tmp_path: Path) -> None:
    """Process 0 waited alone, longer than JAX bears the silence of the others, and was ended by it."""
    folder = Folder(tmp_path / "work", "small", job({"tensorBoard": {}}))
    write_json(folder.local / "small.json", {})
    program = str(Path(__file__).with_name("hanging_tracker.py"))
    gang = Gang.start(folder, 2, command=(sys.executable, program))
    try:
        codes = gang.wait(400)
    finally:
        gang.end()
    assert codes == [Exit.DONE, Exit.DONE], (folder.local / "process-0.log").read_text()[-3000:]
