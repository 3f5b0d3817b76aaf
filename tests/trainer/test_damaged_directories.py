"""Checkpoint directories that are not this job's, or gone, or full: a start leaves with the code and the words that say
what is wrong, and overwrites nothing."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from damage import cut
from restarts import STEPS, contents, entry, fill, goes_on, made, newest, refused, restored, runtime

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_cli.train_summary import seen
from ratchet_trainer.errors import CheckpointUnreadable, TrainerError
from ratchet_trainer.step.state import State
from ratchet_trainer.storage import Location
from ratchet_trainer.tools.local import Folder

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


@pytest.mark.parametrize("harm", [cut, Path.unlink, lambda file: file.write_text('{"stage": {"index": 7}}')])
@pytest.mark.parametrize("name", ["control.json", "digests.json"])
def test_of_a_damaged_step_a_command_knows_the_number(
    directory: Path, tmp_path: Path, name: str, harm: Callable[[Path], object]
) -> None:
    """What the trainer says of it is what counts; a traceback would hide it."""
    job = RLTrainingJob(spec=runtime(directory, 2).job.spec)
    folder = Folder(tmp_path / "work", "sums", job, directory=Location.parse(directory))
    harm(newest(directory) / name)
    assert folder.result() == {"step": STEPS, "stage": "unknown"}
    assert "evaluations" in seen(folder.directory, folder.result(), {})


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

    logger = logging.getLogger("ratchet_trainer.storage.retries")
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
    template = {"params": {"a": leaf(2, 3), "b": leaf(4)}, "optimizer": None, "advantage": None, "reference": None}
    for arrays, words in (
        ({"params/a": leaf(2, 3), "params/b": leaf(5)}, r"array params/b is \(5,\) in the checkpoint and \(4,\)"),
        ({"params/a": leaf(2, 3)}, r"array params/b is absent in the checkpoint and \(4,\)"),
        ({"params/a": leaf(2, 3), "params/b": leaf(4), "params/c": leaf(1)}, r"array params/c is \(1,\) .*absent"),
    ):
        with pytest.raises(CheckpointUnreadable, match=words) as caught:
            State.restored(arrays, {}, template)
        assert "resume with the image that wrote it" in str(caught.value)
