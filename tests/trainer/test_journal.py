"""The journal under writers that race, return from the dead, or belong to another job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from racing_owners import race

from ratchet_trainer.checkpoints.journal import Claim, Journal
from ratchet_trainer.errors import CheckpointUnreadable, ConfigurationInvalid, Fenced, StorageUnavailable
from ratchet_trainer.storage.posix import sweep


def claim(
    attempt: int = 1, jobset: str = "jobset-1", uid: str = "uid-1", name: str = "sums", spec: str = "hash"
) -> Claim:
    return Claim(0, "default", name, uid, spec, attempt, jobset)


def owner(directory: Path, mine: Claim, existing: str | None = None, last_step: int = 0) -> Journal:
    journal = Journal(directory)
    journal.claim(mine, existing, last_step)
    return journal


def test_the_files_are_as_documented(tmp_path: Path) -> None:
    journal = owner(tmp_path, claim())
    journal.commit(7, "steps/7-a1-jobset-1", "ab" * 32, {"stage": 0, "step": 7, "rule": "steps 7"})
    files = sorted(os.listdir(tmp_path / "journal"))
    assert files == ["0000000001.json", "0000000002.json"]
    first, second = (json.loads((tmp_path / "journal" / name).read_text()) for name in files)
    assert first["claim"]["jobUID"] == "uid-1"
    assert first["claim"]["lineage"] == 1
    assert second["commit"] == {
        "v": 1,
        "lineage": 1,
        "step": 7,
        "path": "steps/7-a1-jobset-1",
        "sha256": "ab" * 32,
        "boundary": {"stage": 0, "step": 7, "rule": "steps 7"},
    }


def test_the_highest_step_counts_and_then_the_latest_entry(tmp_path: Path) -> None:
    journal = owner(tmp_path, claim())
    for step, path in ((1, "a"), (3, "b"), (2, "c"), (3, "d")):
        journal.commit(step, path, "00")
    again = Journal(tmp_path)
    again.read()
    assert [c.path for c in again.candidates()] == ["d", "b", "c", "a"]


def test_a_writer_that_was_overtaken_commits_nothing_more(tmp_path: Path) -> None:
    zombie = owner(tmp_path, claim(1))
    zombie.commit(1, "one", "00")
    heir = owner(tmp_path, claim(2, "jobset-2"))
    with pytest.raises(Fenced) as caught:
        zombie.commit(2, "two", "00")
    assert caught.value.owner == {"jobUID": "uid-1", "attempt": 2}
    heir.commit(2, "heir", "00")
    assert [c.path for c in heir.candidates()] == ["heir", "one"]


@pytest.mark.parametrize(
    ("attempt", "jobset", "may"),
    [(2, "jobset-2", True), (3, "jobset-3", True), (2, "another", False), (1, "jobset-1", False)],
)
def test_who_of_one_job_may_claim(tmp_path: Path, attempt: int, jobset: str, may: bool) -> None:
    owner(tmp_path, claim(2, "jobset-2")).commit(5, "five", "00")
    if may:
        assert owner(tmp_path, claim(attempt, jobset), last_step=5).candidates()[0].step == 5
    else:
        with pytest.raises(Fenced):
            owner(tmp_path, claim(attempt, jobset), last_step=5)


@pytest.mark.parametrize(
    ("name", "spec", "existing", "may"),
    [
        ("sums", "hash", None, True),  # deleted and applied again
        ("sums", "hash", "Refuse", False),
        ("other", "hash", None, False),
        ("sums", "other", None, False),
        ("other", "other", "Resume", True),
    ],
)
def test_checkpoints_of_another_job(tmp_path: Path, name: str, spec: str, existing: str | None, may: bool) -> None:
    owner(tmp_path, claim(9)).commit(5, "five", "00")
    other = claim(1, "jobset-2", uid="uid-2", name=name, spec=spec)
    if may:
        assert owner(tmp_path, other, existing).candidates()[0].step == 5
        return
    with pytest.raises(ConfigurationInvalid, match="existing: Resume"):
        owner(tmp_path, other, existing)
    assert len(os.listdir(tmp_path / "journal")) == 2, "a refused claim leaves no trace"


def test_a_job_that_was_replaced_does_not_take_the_directory_back(tmp_path: Path) -> None:
    owner(tmp_path, claim(1))
    owner(tmp_path, claim(1, "jobset-2", uid="uid-2"))
    with pytest.raises(Fenced) as caught:
        owner(tmp_path, claim(2, "jobset-3"), last_step=0)
    assert caught.value.owner["jobUID"] == "uid-2"


@pytest.mark.parametrize("foreign", [False, True])
def test_a_known_step_without_its_checkpoints_is_never_step_0(tmp_path: Path, foreign: bool) -> None:
    if foreign:
        owner(tmp_path, claim(1, uid="uid-2"))
    with pytest.raises(CheckpointUnreadable, match="step 40"):
        owner(tmp_path, claim(4), existing="Resume", last_step=40)


def test_an_unreadable_entry_does_not_count_and_its_place_stays_taken(tmp_path: Path) -> None:
    journal = owner(tmp_path, claim(1))
    journal.commit(1, "one", "00")
    journal.commit(2, "two", "00")
    (tmp_path / "journal" / "0000000003.json").write_bytes(b'{"commit": {"v": 1, "li')
    heir = owner(tmp_path, claim(2, "jobset-2"))
    assert [c.path for c in heir.candidates()] == ["one"]
    assert heir.commit(2, "again", "00").seq == 5


def test_a_read_that_fails_once_forgets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = owner(tmp_path, claim())
    journal.commit(1, "one", "00")
    journal.commit(2, "two", "00")
    read_bytes, failures = Path.read_bytes, [OSError("stale file handle")]

    def flaky(path: Path) -> bytes:
        if path.name == "0000000002.json" and failures:
            raise failures.pop()
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", flaky)
    again = Journal(tmp_path)
    with pytest.raises(OSError, match="stale"):
        again.read()
    again.read()
    assert [e.seq for e in again.entries] == [1, 2, 3]


def test_a_writer_that_knows_of_its_heir_commits_nothing_behind_it(tmp_path: Path) -> None:
    zombie = owner(tmp_path, claim(1))
    owner(tmp_path, claim(2, "jobset-2"))
    zombie.read()
    with pytest.raises(Fenced) as caught:
        zombie.commit(1, "one", "00")
    assert caught.value.owner == {"jobUID": "uid-1", "attempt": 2}


def test_an_entry_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    owner(tmp_path, claim(1))
    (tmp_path / "journal" / "0000000002.json").write_text('{"commit": {"v": 99}}')
    with pytest.raises(CheckpointUnreadable, match="newer"):
        owner(tmp_path, claim(2, "jobset-2"))


def test_an_owner_before_it_that_sweeps_late_fences_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It claims, is overtaken, and only then removes what it takes for left-overs: the new owner's entry on its way."""
    journal = owner(tmp_path, claim(2, "jobset-2"))
    link, swept = os.link, []

    def late(source: Path, target: Path) -> None:
        if not swept:
            swept.append(source)
            sweep(journal.folder)
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    made = journal.commit(1, "one", "00")
    assert (len(swept), made.seq) == (1, 2)
    monkeypatch.setattr(os, "link", lambda source, target: late(source.with_name("gone"), target))
    with pytest.raises(StorageUnavailable, match=r"step 2 is not committed: .*0000000003\.json cannot be made"):
        journal.commit(2, "two", "00")


def test_writers_that_race_never_interleave(tmp_path: Path) -> None:
    race(tmp_path, owners=5, steps=199)
    assert not [n for n in os.listdir(tmp_path / "journal") if not n.endswith(".json")], "temporary files stay behind"


def ended(directory: Path) -> Journal:
    """The journal of a job whose first stage ended at step 2, and which has made two steps and a half of the second."""
    journal = owner(directory, claim())
    journal.commit(1, "steps/1", "00")
    journal.commit(2, "steps/2", "00", {"stage": 0, "step": 2, "rule": "steps 2"})
    for step, path in ((2, "steps/2-u1"), (3, "steps/3"), (4, "steps/4")):
        journal.commit(step, path, "00")
    return journal


def paths(journal: Journal) -> list[str]:
    return [commit.path for commit in journal.candidates()]


def test_after_a_rewind_nothing_of_the_stage_counts_and_what_came_before_does(tmp_path: Path) -> None:
    zombie = ended(tmp_path)
    again = Journal(tmp_path)
    again.claim(claim(2, "jobset-2"), None, 2, (1, 1))
    assert (again.lineage, paths(again)) == (2, ["steps/2", "steps/1"])
    again.commit(3, "steps/3-again", "00")
    assert paths(again) == ["steps/3-again", "steps/2", "steps/1"]
    with pytest.raises(Fenced):
        zombie.commit(5, "steps/5", "00")


def test_an_order_is_carried_out_once_and_a_later_one_again(tmp_path: Path) -> None:
    ended(tmp_path)
    for attempt, order, lineage in ((2, (1, 1), 2), (3, (1, 1), 2), (4, (3, 1), 3), (5, (2, 1), 3)):
        journal = Journal(tmp_path)
        journal.claim(claim(attempt, f"jobset-{attempt}"), None, 2, order)
        assert journal.lineage == lineage
        assert paths(journal)[-2:] == ["steps/2", "steps/1"]
        journal.commit(3, f"steps/3-a{attempt}", "00")
    assert paths(journal) == ["steps/3-a5", "steps/3-a4", "steps/2", "steps/1"]


def test_the_first_stage_begins_again_with_nothing(tmp_path: Path) -> None:
    ended(tmp_path)
    again = Journal(tmp_path)
    again.claim(claim(2, "jobset-2"), None, 0, (1, 0))
    assert (again.lineage, paths(again), again.has_commits) == (2, [], False)


def test_a_stage_that_has_not_begun_is_no_order(tmp_path: Path) -> None:
    journal = owner(tmp_path, claim())
    journal.commit(1, "steps/1", "00")
    again = Journal(tmp_path)
    again.claim(claim(2, "jobset-2"), None, 1, (1, 1))
    assert (again.lineage, paths(again)) == (1, ["steps/1"])


def test_another_job_may_begin_a_stage_again_and_knows_whose_steps_it_has(tmp_path: Path) -> None:
    ended(tmp_path)
    heir = Journal(tmp_path)
    heir.claim(claim(uid="uid-2", name="other", jobset="jobset-9"), "Resume", 0, (1, 1))
    assert (heir.lineage, paths(heir)) == (2, ["steps/2", "steps/1"])
    assert heir.inherited_from is not None
    assert (heir.inherited_from.name, heir.inherited_from.job_uid) == ("sums", "uid-1")
    assert owner(tmp_path / "empty", claim()).inherited_from is None
