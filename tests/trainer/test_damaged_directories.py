"""Whatever befell a checkpoint directory: a start goes on from the newest good step, or leaves with the code and the
words that say what is wrong, and overwrites nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ratchet_api.protocol import Exit
from ratchet_trainer import checkpoint
from ratchet_trainer.environment import Environment
from ratchet_trainer.errors import CheckpointUnreadable, TrainerError
from ratchet_trainer.peers import Peers
from ratchet_trainer.preemption import Watchdog
from ratchet_trainer.progress import Progress
from ratchet_trainer.runtime import Runtime, Saved
from ratchet_trainer.state import State

STEPS = 4


def runtime(directory: Path, attempt: int, uid: str = "uid-1", last_step: int = 0, **spec: Any) -> Runtime:
    """One process of an attempt, as in a pod."""
    log = directory.parent / "termination"
    who = "default", "sums", uid, attempt, f"jobset-{uid}-{attempt}", last_step
    environment = Environment(*who, 1, 0, None, "127.0.0.1", log, log, log, None)
    plain = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "only", "sft": {"dataset": "d"}, "advance": {"steps": 100}}],
        "checkpoint": {"directory": str(directory), "keep": 3},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    plain["checkpoint"] |= spec.pop("checkpoint", {})
    job = {"v": 1, "namespace": "default", "name": "sums", "jobUID": uid, "spec": plain | spec, "mayEnter": 0}
    return Runtime(environment, job, Peers(environment), Watchdog(log), Progress(environment))


def restored(one: Runtime) -> Saved | None:
    replicated = jax.sharding.NamedSharding(one.mesh, jax.sharding.PartitionSpec())
    return one.restore(lambda path, shape: replicated)


def state(step: int) -> Saved:
    """A state that follows from its number."""
    values = np.random.default_rng(step).standard_normal((40, 30)).astype(np.float32)
    arrays = {"params/a": jax.numpy.asarray(values), "optimiser/mu": jax.numpy.asarray(values[0] * 2)}
    control = {"stage": {"name": "only", "index": 0, "start_step": 0}, "step": step, "metricsDigest": ""}
    return Saved(step, arrays, control, [b'{"step":%d}\n' % step])


def made(one: Runtime, first: int, last: int) -> None:
    for step in range(first, last + 1):
        one.commit(state(step), wait=True)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that fails is tried again at once."""
    monkeypatch.setattr(checkpoint, "BACK_OFF_SECONDS", (0.0, 0.0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    one = runtime(place := tmp_path_factory.mktemp("whole") / "checkpoints", 1)
    assert restored(one) is None
    made(one, 1, STEPS)
    return place


@pytest.fixture
def directory(whole: Path, tmp_path: Path, quick: None) -> Path:
    """Steps 2 to 4 of attempt 1, which is gone; the journal has the claim and steps 1 to 4."""
    return shutil.copytree(whole, tmp_path / "checkpoints")


def goes_on(directory: Path, step: int, last_step: int = STEPS, **changes: Any) -> None:
    """A restart is at `step` with the state of that step, makes the rest, and the next one finds all of it."""
    heir = runtime(directory, 2, last_step=last_step, **changes)
    found = restored(heir)
    assert found.step == step
    expected = state(step)
    assert all((np.asarray(found.arrays[p]) == np.asarray(expected.arrays[p])).all() for p in expected.arrays)
    assert found.control == expected.control
    made(heir, step + 1, STEPS + 1)
    assert restored(runtime(directory, 3, last_step=STEPS + 1, **changes)).step == STEPS + 1
    stream = (directory / "metrics.jsonl").read_bytes()
    lines = [json.loads(line)["step"] for line in stream.splitlines() if line.strip()]
    assert lines[-2:] == [STEPS, STEPS + 1]
    assert lines == sorted(set(lines)), "no line stands twice"


def refused(directory: Path, code: Exit, *words: str, attempt: int = 2, **changes: Any) -> None:
    """A start leaves with the code; its message has the words; every file is as it was."""
    before = contents(directory)
    with pytest.raises(TrainerError) as caught:
        restored(runtime(directory, attempt, **changes))
    assert caught.value.exit == code, caught.value
    for word in (str(directory), *words):
        assert word in str(caught.value)
    after = contents(directory)
    assert {name: after.get(name) for name in before} == before, "what was there is as it was"
    assert all(name.startswith(("journal/", "ledger/")) for name in after.keys() - before.keys())


def contents(directory: Path) -> dict[str, bytes]:
    if not directory.is_dir():
        return {".": directory.read_bytes()} if directory.exists() else {}
    return {str(f.relative_to(directory)): f.read_bytes() for f in directory.rglob("*") if f.is_file()}


def newest(directory: Path) -> Path:
    (folder,) = (directory / "steps").glob(f"{STEPS}-*")
    return folder


def entry(directory: Path, number: int) -> Path:
    return directory / "journal" / f"{number:010d}.json"


# Steps


def arrays(directory: Path) -> list[Path]:
    """Files of the newest step's arrays, the largest last."""
    files = [f for f in (newest(directory) / "arrays").rglob("*") if f.is_file()]
    return sorted(files, key=lambda f: f.stat().st_size)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def file_instead(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


def altered(file: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(file.read_bytes())
    change(data)
    file.write_text(json.dumps(data))


HARMED_STEPS: dict[str, Callable[[Path], object]] = {
    "arrays cut": lambda d: cut(arrays(d)[-1]),
    "arrays flipped": lambda d: flip(arrays(d)[-1]),
    "arrays deleted": lambda d: arrays(d)[-1].unlink(),
    "arrays empty": lambda d: os.truncate(arrays(d)[-1], 0),
    "the manifest of the arrays cut": lambda d: cut(newest(d) / "arrays" / "manifest.ocdbt"),
    "the manifest of the arrays deleted": lambda d: (newest(d) / "arrays" / "manifest.ocdbt").unlink(),
    "all arrays deleted": lambda d: shutil.rmtree(newest(d) / "arrays"),
    "a file instead of the arrays": lambda d: file_instead(newest(d) / "arrays"),
    "step deleted": lambda d: shutil.rmtree(newest(d)),
    "a file instead of the step": lambda d: file_instead(newest(d)),
    "digests.json deleted": lambda d: (newest(d) / "digests.json").unlink(),
    "digests.json altered": lambda d: altered(newest(d) / "digests.json", lambda j: j["leaves"].popitem()),
    "digests.json cut": lambda d: cut(newest(d) / "digests.json"),
    "a newer digests.json, not journalled": lambda d: altered(newest(d) / "digests.json", lambda j: j.update(v=99)),
    "control.json altered": lambda d: altered(newest(d) / "control.json", lambda j: j.update(step=40)),
    "control.json cut": lambda d: cut(newest(d) / "control.json"),
    "control.json deleted": lambda d: (newest(d) / "control.json").unlink(),
    "metrics.jsonl cut": lambda d: cut(newest(d) / "metrics.jsonl"),
    "metrics.jsonl deleted": lambda d: (newest(d) / "metrics.jsonl").unlink(),
    "the journal entry cut": lambda d: cut(entry(d, STEPS + 1)),
    "the journal entry empty": lambda d: os.truncate(entry(d, STEPS + 1), 0),
    "the journal entry deleted": lambda d: entry(d, STEPS + 1).unlink(),
    "a journal entry of an unknown kind": lambda d: entry(d, STEPS + 1).write_text('{"remark": {"v": 1}}'),
    "a journal entry that is no object": lambda d: entry(d, STEPS + 1).write_text("[1, 2]"),
    "a journal entry without a path": lambda d: altered(entry(d, STEPS + 1), lambda j: j["commit"].pop("path")),
}


@pytest.mark.parametrize("harm", HARMED_STEPS)
def test_a_harmed_step_takes_the_one_before(directory: Path, harm: str) -> None:
    HARMED_STEPS[harm](directory)
    goes_on(directory, STEPS - 1)


HARMLESS: dict[str, Callable[[Path], object]] = {
    "nothing": lambda d: None,
    "files that nobody knows": lambda d: [(f / "notes.txt").write_text("x") for f in (newest(d), newest(d) / "arrays")],
    "a gap in the journal": lambda d: entry(d, 3).unlink(),
    "an older entry cut": lambda d: cut(entry(d, 2)),
    "a half-written entry of a dead writer": lambda d: (d / "journal" / ".abc.tmp").write_text('{"com'),
    "a half-written step of a dead writer": lambda d: (d / "steps" / "5-a1-jobset-u" / "arrays").mkdir(parents=True),
    "the metric stream deleted": lambda d: (d / "metrics.jsonl").unlink(),
    "the metric stream cut in a line": lambda d: os.truncate(d / "metrics.jsonl", 17),
    "timings that are cut": lambda d: [(d / "timings").mkdir(), (d / "timings" / "a1-x.jsonl").write_text('{"st')],
    "a ledger that is no folder": lambda d: [shutil.rmtree(d / "ledger"), (d / "ledger").write_text("x")],
}


@pytest.mark.parametrize("harm", HARMLESS)
def test_what_does_not_matter_changes_nothing(directory: Path, harm: str) -> None:
    HARMLESS[harm](directory)
    goes_on(directory, STEPS)


def test_only_what_a_trainer_made_is_ever_removed(directory: Path) -> None:
    kept = [directory / "steps" / "my-own-copy", directory / "steps" / "4", directory / "journal" / "README"]
    for folder in kept:
        folder.mkdir()
    goes_on(directory, STEPS)
    assert all(folder.is_dir() for folder in kept)


def test_no_step_that_can_be_read_is_said_and_never_answered_by_starting_over(directory: Path) -> None:
    for folder in (directory / "steps").iterdir():
        cut(folder / "control.json")
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "none of the journalled steps", "from a copy", "another directory")


def test_a_step_of_a_newer_format_is_not_passed_over(directory: Path) -> None:
    """Its digests.json is the one that was journalled: a newer trainer was here, and its work is not thrown away."""
    altered(proof := newest(directory) / "digests.json", lambda j: j.update(v=99))
    digest = hashlib.sha256(proof.read_bytes()).hexdigest()
    altered(entry(directory, STEPS + 1), lambda j: j["commit"].update(sha256=digest))
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "format 99", "use the image that wrote it")


def test_a_journal_entry_of_a_newer_format_is_refused(directory: Path) -> None:
    altered(entry(directory, STEPS + 1), lambda j: j["commit"].update(v=99))
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "0000000005.json", "format 99", "use the image that wrote it")


# The journal


@pytest.mark.parametrize("last_step", [0, STEPS])
def test_steps_without_a_journal_are_not_started_over(directory: Path, last_step: int) -> None:
    shutil.rmtree(directory / "journal")
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "whose they are", "restore the journal", last_step=last_step)


@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_a_journal_without_its_claim_needs_the_users_word(directory: Path, harm: Callable[[Path], object]) -> None:
    harm(entry(directory, 1))
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "whose they are", "existing: Resume")
    goes_on(directory, STEPS, checkpoint={"existing": "Resume"})


def test_a_directory_that_was_replaced_by_an_empty_one(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.mkdir()
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "step 4", "is it the right volume?", last_step=STEPS)


# Directories of others


@pytest.mark.parametrize("existing", [None, "Resume"])
def test_a_job_that_was_deleted_and_applied_again_goes_on(directory: Path, existing: str | None) -> None:
    again = runtime(directory, 1, uid="uid-2", checkpoint={"existing": existing} if existing else {})
    assert restored(again).step == STEPS


def test_a_job_that_is_told_to_refuse_refuses(directory: Path) -> None:
    changes = {"uid": "uid-2", "attempt": 1, "checkpoint": {"existing": "Refuse"}}
    refused(directory, Exit.CONFIGURATION_INVALID, "default/sums (uid uid-1)", "existing: Resume", **changes)


@pytest.mark.parametrize("existing", [None, "Refuse"])
def test_a_job_with_another_model_or_seed_leaves_them_alone(directory: Path, existing: str | None) -> None:
    changes = {"uid": "uid-2", "attempt": 1, "seed": 5, "checkpoint": {"existing": existing} if existing else {}}
    refused(directory, Exit.CONFIGURATION_INVALID, "another name, model, seed", "another directory", **changes)


def test_a_job_with_another_seed_does_not_go_on_even_if_told_to(directory: Path) -> None:
    changes = {"uid": "uid-2", "attempt": 1, "seed": 5, "checkpoint": {"existing": "Resume"}}
    before = contents(directory)
    with pytest.raises(TrainerError, match="another model, seed, data set or stage") as caught:
        restored(runtime(directory, **changes))
    assert caught.value.exit == Exit.CONFIGURATION_INVALID
    assert {name: data for name, data in contents(directory).items() if name in before} == before


def test_a_job_that_knows_a_step_does_not_take_another_jobs(directory: Path) -> None:
    changes = {"uid": "uid-2", "attempt": 3, "last_step": 9}
    refused(directory, Exit.CHECKPOINT_UNREADABLE, "step 9", "checkpoints of default/sums (uid uid-1) only", **changes)


# The place itself


@pytest.mark.parametrize("where", [".", "below"])
def test_a_directory_that_is_a_file(tmp_path: Path, quick: None, where: str) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(TrainerError, match="cannot be a folder, something else is at") as caught:
        restored(runtime(tmp_path / "file" / where, 1))
    assert caught.value.exit == Exit.CONFIGURATION_INVALID
    assert "spec.checkpoint.directory" in str(caught.value)
    assert (tmp_path / "file").read_text() == "a file"


def test_what_is_removed_under_a_running_attempt(directory: Path) -> None:
    """Steps that vanish are made again; without its claim an attempt writes nothing more."""
    one = runtime(directory, 2, last_step=STEPS)
    assert restored(one).step == STEPS
    shutil.rmtree(directory / "steps")
    made(one, 5, 5)
    assert [f.name.split("-")[0] for f in (directory / "steps").iterdir()] == ["5"]
    shutil.rmtree(directory)
    with pytest.raises(TrainerError, match="still mounted") as caught:
        made(one, 6, 6)
    assert caught.value.exit == Exit.STORAGE_UNAVAILABLE
    assert not directory.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for few steps."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 1024):
            pass
    return ballast


def test_a_full_disk_is_waited_for(small_disk: Path, quick: None) -> None:
    """The first try fails; there is room again before the last one."""
    one = runtime(small_disk / "checkpoints", 1)
    restored(one)
    made(one, 1, 2)
    ballast = fill(small_disk)

    class Janitor(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "again in" in record.getMessage():
                ballast.unlink(missing_ok=True)

    logger = logging.getLogger("ratchet_trainer.checkpoint")
    logger.addHandler(janitor := Janitor())
    try:
        made(one, 3, 3)
    finally:
        logger.removeHandler(janitor)
    assert not ballast.exists(), "the disk was full"
    assert restored(runtime(small_disk / "checkpoints", 2, last_step=3)).step == 3
    assert (small_disk / "checkpoints" / "metrics.jsonl").read_bytes() == b'{"step":1}\n{"step":2}\n{"step":3}\n'


def test_a_disk_that_stays_full_is_named_and_loses_nothing(small_disk: Path, quick: None) -> None:
    one = runtime(small_disk / "checkpoints", 1)
    restored(one)
    made(one, 1, 2)
    ballast = fill(small_disk)
    with pytest.raises(TrainerError, match="free some space there") as caught:
        made(one, 3, 3)
    assert caught.value.exit == Exit.STORAGE_UNAVAILABLE
    assert f"saving step 3 to {small_disk}" in str(caught.value)
    ballast.unlink()
    heir = runtime(small_disk / "checkpoints", 2, last_step=2)
    assert restored(heir).step == 2
    made(heir, 3, 3)


def test_a_disk_that_cannot_be_written(small_disk: Path, quick: None) -> None:
    one = runtime(small_disk / "checkpoints", 1)
    restored(one)
    made(one, 1, 2)
    one.progress.ledger.close(0)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused(small_disk / "checkpoints", Exit.STORAGE_UNAVAILABLE, "mount it writable", last_step=2)


@pytest.fixture
def as_anybody() -> Iterator[Path]:
    """A folder that belongs to root, seen by somebody else; who is not root is somebody else."""
    with tempfile.TemporaryDirectory() as folder:
        place, me = Path(folder), os.geteuid()
        place.chmod(0o555)
        if me == 0:
            os.seteuid(65534)
        try:
            yield place
        finally:
            os.seteuid(me)
            place.chmod(0o755)


def test_a_directory_that_is_not_the_trainers_to_write(as_anybody: Path, quick: None) -> None:
    refused(as_anybody / "checkpoints", Exit.STORAGE_UNAVAILABLE, "let the trainer's user write there", attempt=1)


# A model that is not the checkpoint's


def test_leaves_of_another_model_are_named() -> None:
    leaf = lambda *shape: np.zeros(shape, np.float32)  # noqa: E731
    template = {"params": {"a": leaf(2, 3), "b": leaf(4)}, "optimiser": None, "credit": None, "reference": None}
    for arrays, words in (
        ({"params/a": leaf(2, 3), "params/b": leaf(5)}, r"array params/b is \(5,\) in the checkpoint and \(4,\)"),
        ({"params/a": leaf(2, 3)}, r"array params/b is absent in the checkpoint and \(4,\)"),
        ({"params/a": leaf(2, 3), "params/b": leaf(4), "params/c": leaf(1)}, r"array params/c is \(1,\) .*absent"),
    ):
        with pytest.raises(CheckpointUnreadable, match=words) as caught:
            State.restored(arrays, {}, template)
        assert "resume with the image that wrote it" in str(caught.value)
