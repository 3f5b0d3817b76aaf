"""Each part of a run that keeps something, on a path and in buckets: what one attempt left, the next one finds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ratchet_cli.main import main
from ratchet_trainer import storage
from ratchet_trainer.algorithm.outcome import Case, Outcome
from ratchet_trainer.algorithm.verifiers.outcome_journal import OutcomeJournal
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.checkpoints.program_cache import ProgramCache
from ratchet_trainer.data.remembered import Remembered
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.process import ledger
from ratchet_trainer.rollout.rollout_journal import Kept, RolloutJournal
from ratchet_trainer.storage import Location
from ratchet_trainer.storage.local_copy import at_its_source, local_copy
from ratchet_trainer.storage.stream import Stream

HTTP = VerifierSpec("http", "1", pure=False)


def test_rollouts(place: Location) -> None:
    parts = {0: (np.arange(6, dtype=np.float32),)}
    one = RolloutJournal(place, 0, 1, lambda mine: [mine])
    one.bind("here")
    one.keep("call", Kept(np.ones((3, 1, 1, 2), np.float32), parts), leaving=True)
    one.write()
    again = RolloutJournal(place, 0, 1, lambda mine: [mine])
    again.bind("here")
    assert again.find("call", [0]).parts[0][0].tolist() == [0, 1, 2, 3, 4, 5]
    again.bind("the next step")
    assert storage.tree(place) == [], "what was used is removed"


def test_rollouts_of_another_number_of_processes_go(place: Location) -> None:
    one = RolloutJournal(place, 0, 1, lambda mine: [mine])
    one.bind("here")
    one.keep("call", Kept(np.ones((3, 1, 1, 2), np.float32)))
    one.write()
    RolloutJournal(place, 0, 2, lambda mine: [mine, mine]).bind("here")
    assert storage.tree(place) == []


def test_outcomes(place: Location) -> None:
    case = Case({"index": 1, "question": "1?", "answer": "1"}, "1?", "a", "end")
    journal = OutcomeJournal(place)
    for score in (0.25, 0.5):
        other = replace(case, response=str(score))
        journal.keep(HTTP, [case, other], [Outcome(1.0, 0.125, pure=False), Outcome(0.0, score, pure=False)])
    again = OutcomeJournal(place)
    assert len(again) == 3
    assert again.get(HTTP, case).score == 0.125


def test_compiled_programs(place: Location) -> None:
    cache = ProgramCache(place)
    assert cache.get("key") is None
    cache.put("key", b"program" * 1000)
    assert ProgramCache(place).get("key") == b"program" * 1000
    storage.write(place / "key.program", b"x" * 7000)
    assert cache.get("key") is None, "a damaged one is as good as none"


def test_what_was_found_out_about_data(place: Location) -> None:
    Remembered(place).keep("key", {"ends": np.arange(4), "digest": np.array("abc")})
    found = Remembered(place).find("key", "ends", "digest")
    assert (found["ends"].tolist(), str(found["digest"])) == ([0, 1, 2, 3], "abc")
    assert Remembered(place).find("other", "ends") is None


def test_the_ledger(place: Location) -> None:
    now = [100.0]
    for number, exit_code in ((1, 75), (2, 0)):
        books = ledger.Ledger(now[0], lambda: now[0])
        books.open(place, f"a{number}-12345678", number - 1)
        books.enter("generate")
        now[0] += 2
        books.step_done(number, 10)
        books.close(exit_code)
    assert list(ledger.read(place)) == ["a1-12345678", "a2-12345678"]
    assert [lines[-1]["exit"] for lines in ledger.read(place).values()] == [75, 0]
    assert ledger.summary(place)["seconds"]["generate"] == 4


def test_a_copy_of_a_folder_follows_it(place: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_COPIES", str(tmp_path / "copies"))
    monkeypatch.setattr("ratchet_trainer.storage.bucket.PIECE", 1000)
    sizes = {"config.json": 10, "a/one.safetensors": 2500, "two.safetensors": 3000, "empty": 0}
    for name, size in sizes.items():
        storage.write(place / "model" / name, bytes(range(250)) * (size // 250 + 1) if size else b"")
    copy = local_copy(str(place / "model"))
    times = {name: (copy / name).stat().st_mtime_ns for name in sizes}
    for name in sizes:
        assert (copy / name).read_bytes() == storage.read(place / "model" / name)
    storage.write(place / "model" / "config.json", b"other")
    if place.on_bucket:
        storage.delete(place / "model" / "empty")
    assert local_copy(str(place / "model")) == copy
    assert at_its_source(f"{copy}/config.json: not JSON") == f"{place / 'model'}/config.json: not JSON"
    assert (copy / "config.json").read_bytes() == b"other"
    assert (copy / "two.safetensors").stat().st_mtime_ns == times["two.safetensors"], "what is the same stays"
    assert (copy / "empty").exists() != place.on_bucket
    one = local_copy(place / "model" / "two.safetensors")
    assert one.read_bytes() == storage.read(place / "model" / "two.safetensors")
    if place.on_bucket:
        with pytest.raises(ConfigurationInvalid, match=r"spec.model.path: .*/nothing has nothing in it"):
            local_copy(place / "nothing", "spec.model.path")


def test_commands_read_it(place: Location) -> None:
    lines = [json.dumps({"step": s, "stage": "x", "metrics": {"train/accuracy": repr(s / 4)}}) + "\n" for s in (1, 2)]
    stream = Stream(place / "metrics.jsonl")
    stream.restart(0, lines[0].encode())
    stream.put(len(lines[0]), lines[1].encode())
    done = CliRunner().invoke(main, ["curve", str(place)])
    assert done.output.startswith("train/accuracy 0.250 -> 0.500 (step 1 -> 2)"), done.output
    done = CliRunner().invoke(main, ["samples", str(place)])
    assert "no samples; a run writes them" in done.output
    storage.write(place / "samples" / "00000002.jsonl", b'{"step": 2, "stage": "x", "accuracy": 1.0}\n')
    done = CliRunner().invoke(main, ["samples", str(place), "--json"])
    assert json.loads(done.output)["step"] == 2
