"""A run that has lasted long asks its bucket as few questions, one after the other, as one that has just begun: a
bucket answers in tens of milliseconds, and nobody may wait for thousands of answers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from ratchet_trainer.checkpoints.checkpoint import Checkpoints
from ratchet_trainer.checkpoints.journal import Journal
from ratchet_trainer.checkpoints.trusted_step import Content
from ratchet_trainer.process.ledger import Ledger
from ratchet_trainer.storage import Location, bucket

RUN = Location("gs", "bucket", "run")


class Bucket:
    """Objects by key. `alone` counts what was read one after the other, `read` everything."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.alone = self.read = 0

    def one(self, place: Location) -> bytes | None:
        self.alone += 1
        self.read += 1
        return self.objects.get(place.key)

    def many(self, places: Iterable[Location]) -> list[bytes | None]:
        found = [self.objects.get(place.key) for place in places]
        self.read += len(found)
        return found

    def write(self, place: Location, data: bytes, durable: bool = True) -> None:
        self.objects[place.key] = data

    def tree(self, folder: Location) -> list[str]:
        begin = f"{folder.key}/"
        return sorted(key.removeprefix(begin) for key in self.objects if key.startswith(begin))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    made = Bucket()
    monkeypatch.setattr(bucket, "read", made.one)
    monkeypatch.setattr(bucket, "read_all", made.many)
    monkeypatch.setattr(bucket, "write", made.write)
    monkeypatch.setattr(bucket, "tree", made.tree)
    return made


def entry(step: int) -> bytes:
    commit = {"v": 1, "lineage": 1, "step": step, "path": f"steps/{step}-a1-12345678", "sha256": "0" * 64}
    return json.dumps({"commit": commit}).encode()


def test_a_restart_reads_the_journal_at_once(asked: Bucket) -> None:
    asked.objects |= {f"run/journal/{seq:010d}.json": entry(seq) for seq in range(1, 501)}
    journal = Journal(RUN)
    assert [commit.step for commit in journal.read()] == list(range(1, 501))
    assert asked.alone == 1, "whether there is one more"
    asked.objects["run/journal/0000000501.json"] = entry(501)
    assert [commit.step for commit in journal.read()] == [501]


def test_a_journal_on_a_path_is_read_as_before(tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    for seq in (1, 2, 4):
        (folder / f"{seq:010d}.json").write_bytes(entry(seq))
    assert [commit.step for commit in Journal(tmp_path).read()] == [1, 2, 4]


def test_a_commit_reads_none_of_the_timings_before_it(asked: Bucket) -> None:
    checkpoints = Checkpoints(RUN, "a1-12345678", 2, {})
    for step in range(1, 101):
        before = asked.read
        checkpoints._extend_streams(Content(step, {}, {}, [], [f'{{"step":{step}}}\n'.encode()]))
        assert asked.read == before
    written = b"".join(data for key, data in sorted(asked.objects.items()) if key.startswith("run/timings/"))
    assert [json.loads(line)["step"] for line in written.splitlines()] == list(range(1, 101))


def test_an_attempt_reads_the_last_line_of_each_ledger_before_it(asked: Bucket) -> None:
    for attempt in (1, 2):
        offset = 0
        for step in range(100 * attempt):
            line = f'{{"step":{step}}}\n'.encode()
            asked.objects[f"run/ledger/a{attempt}-12345678.jsonl/{offset:012d}"] = line
            offset += len(line)
    now = [0.0]
    ledger = Ledger(0.0, lambda: now[0])
    ledger.open(RUN, "a3-12345678", 150)
    assert asked.read == 2
    ledger.step_done(199, 1)
    ledger.step_done(200, 1)
    assert (ledger._worth["replayedSteps"], ledger._worth["steps"]) == (1, 1)
