"""What an endpoint once said is not asked again, whatever a crash left of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cases import case, spec

from ratchet_trainer.algorithm.outcome import Outcome, anomaly
from ratchet_trainer.algorithm.verifiers.outcome_journal import NAME, OutcomeJournal
from ratchet_trainer.errors import CheckpointUnreadable

HTTP = spec("http", "whole", url="http://judge/", timeoutSeconds=1, retries=0)
JUDGED = Outcome(0.0, 0.25, "caf\u00e9\ud83d\udc4d", {"style": 1.0}, pure=False)


def test_a_replay_asks_only_for_what_is_not_there(tmp_path: Path):
    journal = OutcomeJournal(tmp_path / "new")
    assert journal.get(HTTP, case("a")) is None
    journal.keep(HTTP, [case("a"), case("b")], [JUDGED, anomaly("timeout")])
    again = OutcomeJournal(tmp_path / "new")
    assert again.get(HTTP, case("a")) == JUDGED
    assert again.get(HTTP, case("b")) == anomaly("timeout")
    assert again.get(HTTP, case("c")) is None
    assert again.replayed == 2


@pytest.mark.parametrize(
    "other",
    [
        (HTTP, case("a", index=1)),
        (HTTP, case("a", answer="6")),
        (HTTP, case("a ")),
        (HTTP, replace(case("a"), finish="length")),
        (HTTP, replace(case("a"), prompt="another")),
        (HTTP, replace(case("a"), item={**case("a").item, "messages": [{"role": "user", "content": "earlier"}]})),
        (spec("http", "whole", url="http://other/", timeoutSeconds=1, retries=0), case("a")),
    ],
)
def test_what_a_verifier_sees_otherwise_is_another_key(tmp_path: Path, other: tuple):
    journal = OutcomeJournal(tmp_path)
    journal.keep(HTTP, [case("a")], [JUDGED])
    assert journal.get(*other) is None


def test_pure_outcomes_are_not_kept_and_the_first_of_a_key_counts(tmp_path: Path):
    journal = OutcomeJournal(tmp_path)
    journal.keep(HTTP, [case("a")], [Outcome(1.0, 1.0)])
    assert len(journal) == 0
    assert not (tmp_path / NAME).exists()
    journal.keep(HTTP, [case("a"), case("a")], [JUDGED, anomaly("crash")])
    journal.keep(HTTP, [case("a")], [anomaly("crash")])
    assert OutcomeJournal(tmp_path).get(HTTP, case("a")) == JUDGED


@pytest.mark.parametrize("torn", [b"{", b'{"key":["http', b"\xff\xff", b"\x00" * 100])
def test_a_torn_last_line_is_cut_off_and_writing_goes_on(tmp_path: Path, torn: bytes):
    OutcomeJournal(tmp_path).keep(HTTP, [case("a")], [JUDGED])
    with open(tmp_path / NAME, "ab") as file:
        file.write(torn)
    journal = OutcomeJournal(tmp_path)
    assert len(journal) == 1
    journal.keep(HTTP, [case("b")], [JUDGED])
    assert len(OutcomeJournal(tmp_path)) == 2


@pytest.mark.parametrize(
    "damaged", [b"nonsense\n", b"{}\n", b'{"v":2,"key":["a"],"outcome":{}}\n', b'{"v":9}\n', b"\n"]
)
def test_a_line_that_is_damaged_elsewhere_is_refused_by_its_number(tmp_path: Path, damaged: bytes):
    OutcomeJournal(tmp_path).keep(HTTP, [case("a"), case("b")], [JUDGED, JUDGED])
    lines = (tmp_path / NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / NAME).write_bytes(lines[0] + damaged + lines[1])
    with pytest.raises(CheckpointUnreadable, match="line 2"):
        OutcomeJournal(tmp_path)
