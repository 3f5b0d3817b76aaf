"""Steps and journal entries that were cut short, changed or removed: a start goes on from the newest good one."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from damage import cut, flip
from restarts import STEPS, altered, entry, goes_on, made, newest, refused, restored, runtime

from ratchet_api.protocol import Exit


def arrays(directory: Path) -> list[Path]:
    """Files of the newest step's arrays, the largest last."""
    files = [f for f in (newest(directory) / "arrays").rglob("*") if f.is_file()]
    return sorted(files, key=lambda f: f.stat().st_size)


def file_instead(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


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


def test_of_states_that_lack_something_nothing_is_left(directory: Path) -> None:
    before = runtime(directory, 1)
    restored(before)
    before.durable.sampler = "workers of one kind"
    before.durable.exact_since(2, "a reason")
    made(before, 1, STEPS)
    heir = runtime(directory, 2, last_step=STEPS)
    replicated = jax.sharding.NamedSharding(heir.mesh, jax.sharding.PartitionSpec())
    assert heir.restore(lambda path, shape: replicated, lambda control: "its weights are gone") is None
    durable, shown = heir.durable, heir.progress.document
    assert durable.sampler is None, "whoever samples first decides the kind of machine"
    assert (shown["step"], shown["exactSince"], shown["checkpoint"]) == (0, None, None)
    assert durable._restart_step() == 0, "steps that were passed over count for nothing"
    made(heir, 1, 2)
    assert restored(runtime(directory, 3, last_step=STEPS)).step == 2
