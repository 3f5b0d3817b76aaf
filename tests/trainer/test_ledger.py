"""Where the seconds of an attempt went: all of them, each once, however it ended."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from ratchet_api.job import RLTrainingJob
from ratchet_api.protocol import Exit
from ratchet_trainer.process import ledger
from ratchet_trainer.process.ledger import CATEGORIES, Ledger
from ratchet_trainer.tools.local import Folder, Gang, write_json

SMALL_RUN = (sys.executable, str(Path(__file__).with_name("small_run.py")))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    spec = {
        "model": {"preset": "tiny"},
        "datasets": [{"name": "d", "jsonl": {"path": "/unused"}}],
        "stages": [{"name": "only", "sft": {"dataset": "d"}, "advance": {"steps": 6}}],
        "checkpoint": {"directory": "/replaced", "everySteps": 4},
        "placements": [{"name": "here", "cpu": {"hosts": 1}}],
    }
    return Folder(tmp_path / "work", "small", RLTrainingJob.model_validate({"spec": spec}))


def attempt(folder: Folder, number: int | None = None) -> tuple[list[int], float]:
    """One attempt, ended by a signal once it stands still (None: not at all): exit codes and seconds."""
    for name in ("held", "release"):
        (folder.local / name).unlink(missing_ok=True)
    began = time.monotonic()
    gang = Gang.start(folder, 1, command=SMALL_RUN)
    try:
        if number is not None:
            while not (folder.local / "held").exists():
                assert gang.wait(0.01) is None, (folder.local / "process-0.log").read_text()[-3000:]
            gang.send(number)
            while number == signal.SIGTERM and "told to go" not in (folder.local / "process-0.log").read_text():
                time.sleep(0.005)  # else it may be past the safe point before it has heard the signal
            (folder.local / "release").touch()
        codes = gang.wait(60)
    finally:
        gang.end()
    assert codes is not None
    return codes, time.monotonic() - began


def seconds(line: dict) -> float:
    return sum(line.get(category, 0.0) for category in CATEGORIES)


def test_every_second_of_every_attempt_is_in_one_category(folder: Folder) -> None:
    write_json(folder.local / "small.json", {"hold": "generate:4"})
    killed, _ = attempt(folder, signal.SIGKILL)
    drained, took = attempt(folder, signal.SIGTERM)
    write_json(folder.local / "small.json", {})
    finished, _ = attempt(folder)
    assert (killed, drained, finished) == ([-signal.SIGKILL], [Exit.DRAINED], [Exit.DONE])

    books = ledger.read(folder.path)
    assert [tag.split("-")[0] for tag in books][-2:] == ["a2", "a3"]
    for lines in books.values():
        assert sum(map(seconds, lines)) == pytest.approx(lines[-1]["at"], abs=1e-4)
    *first, second, third = books.values()
    assert not any("exit" in line for lines in first for line in lines), "killed before it could say so"
    assert (second[0]["from"], second[-1]["step"], second[-1]["exit"]) == (0, 3, 75)
    assert second[-1]["drain"] > 0
    assert took - 1.0 < second[-1]["at"] < took, "from the start of the process to its end"
    assert (third[0]["from"], third[-1]["step"], third[-1]["exit"]) == (3, 6, 0)
    assert sum(line.get("steps", 0) for line in third) == 3, "those that nobody had made before"

    found = ledger.summary(folder.path)
    assert found["wallSeconds"] == pytest.approx(sum(found["seconds"].values()), abs=0.01)
    assert 0 < found["goodput"] < 1
    assert found["stepsReplayed"] in (0, 1, 2, 3), "what the killed one had time to write down"


def test_what_an_attempt_before_had_reported_is_replay(tmp_path: Path) -> None:
    now = 100.0

    def books(tag: str, step: int) -> Ledger:
        made = Ledger(now, lambda: now)
        made.open(tmp_path, tag, step)
        return made

    first = books("a9-before00", 0)
    first.enter("generate")
    for step in (1, 2, 3):
        now += 2
        first.step_done(step, 10)
    first.close(75)

    second = books("a10-after000", 1)  # its steps 2 and 3 were reported, but not committed
    second.enter("update")
    for step in (2, 3, 4):
        now += 0.25
        second.step_done(step, 10)
    second.close(0)

    assert [line.get("generate") for line in ledger.read(tmp_path)["a9-before00"]] == [2, 2, 2, None]
    (line,) = ledger.read(tmp_path)["a10-after000"]
    assert (line["steps"], line["replayedSteps"], line["tokens"], line["replayedTokens"]) == (1, 2, 10, 20)
    assert (line["at"], line["replay"], line["update"]) == (0.75, 0.5, 0.25)
    assert ledger.summary(tmp_path)["stepsReplayed"] == 2


def test_half_a_line_of_a_killed_attempt_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    good = json.dumps({"at": 1.5, "step": 2, "init": 1.5})
    (tmp_path / "ledger/a1-00000000.jsonl").write_text(f'{good}\n{{"at": 3.0, "st')
    assert ledger.read(tmp_path) == {"a1-00000000": [json.loads(good)]}
    assert ledger.summary(tmp_path)["wallSeconds"] == 1.5


def test_a_folder_that_cannot_be_written_costs_the_books_only(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("a file stands in the way")
    books = Ledger(time.monotonic())
    books.open(tmp_path, "a1-00000000", 0)
    books.step_done(1, 1)
    books.close(0)
    assert books.seconds["init"] > 0
