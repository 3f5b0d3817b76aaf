"""What `ratchet train` says: a sample at the start, whether the stage learns, evaluations before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ratchet_cli.train_printer import Printer
from ratchet_cli.train_summary import evaluations, in_words, seen
from ratchet_trainer.step.learning_signs import WINDOWS
from ratchet_trainer.storage import Location

ROLLOUT = {
    "stage": "reason",
    "place": "data set sums, item 7",
    "prompt": "What is 2 + 3?",
    "tokens": 9,
    "finish": "end",
    "expected": "5",
    "score": 0.0,
    "status": "ok",
    "reward": 0.0,
    "parts": {"accuracy": 0.0},
    "disposition": "all_wrong",
    "edit": None,
}
UNKNOWN = {"status": "Unknown", "reason": "NotYetKnown", "message": "too few steps of this stage are made to tell"}
LEARNS = {"status": "True", "reason": "Learning", "message": "40% of the groups teach something"}
NOTHING = {"status": "False", "reason": "NoInformativeGroups", "message": "for example, 2 + 3? expects 5"}


def keep(folder: Path, step: int, *answers: tuple[str, float]) -> None:
    """Samples of a step: what was given, and its accuracy."""
    lines = [
        ROLLOUT | {"step": step, "sample": i, "response": text, "extracted": text, "accuracy": accuracy}
        for i, (text, accuracy) in enumerate(answers)
    ]
    (folder / "samples").mkdir(exist_ok=True)
    (folder / f"samples/{step:08d}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def document(step: int, learning: dict[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "attempt": 1,
        "phase": "generate",
        "stage": {"name": "reason", "index": 0, "startStep": 0},
        "startStep": 0,
        "step": step,
        "targetStep": 30,
        "reward": 0.0,
        "accuracy": 0.0,
        "tokensPerSecond": 100.0,
        "learning": learning,
        **more,
    }


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What is printed for one document more, without the lines of progress."""
    monkeypatch.setenv("COLUMNS", "100")
    printer = Printer(Location.parse(tmp_path))

    def of(shown: dict[str, Any]) -> str:
        printer(shown)
        lines = capsys.readouterr().err.splitlines()
        return "\n".join(line for line in lines if not line.startswith("  step ") and "attempt 1" not in line)

    return of


def test_the_first_sample_is_shown_once(said, tmp_path) -> None:
    assert said(document(0, stage=None, startStep=None)) == ""
    assert said(document(0)) == ""
    keep(tmp_path, 1, ("2 + 3 = 5", 0.0), ("5", 1.0))
    text = said(document(1, UNKNOWN))
    assert "a sample of step 1; `ratchet samples` shows more:" in text
    assert "response   2 + 3 = 5" in text
    assert text.count("expected") == 1
    keep(tmp_path, 2, ("six", 0.0))
    assert said(document(2, UNKNOWN)) == ""


def test_samples_of_an_earlier_call_are_not_this_ones_start(said, tmp_path) -> None:
    keep(tmp_path, 10, ("old", 0.0))
    assert said(document(12, startStep=12)) == ""
    keep(tmp_path, 20, ("new", 0.0))
    assert "response   new" in said(document(20, startStep=12))


def test_a_stage_that_does_not_learn_is_said_once_with_two_wrong_samples(said, tmp_path) -> None:
    keep(tmp_path, 1, ("right", 1.0))
    said(document(1, UNKNOWN))
    keep(tmp_path, 4, ("right", 1.0), ("wrong one", 0.0), ("wrong two", 0.0), ("wrong three", 0.0))
    text = said(document(4, NOTHING))
    assert "NOT LEARNING: NoInformativeGroups: for example, 2 + 3? expects 5" in text
    assert [f"wrong {n}" in text for n in ("one", "two", "three")] == [True, True, False]
    assert "response   right" not in text
    assert said(document(5, NOTHING | {"message": "for example, another"})) == ""
    assert "learning again: 40% of the groups teach something" in said(document(6, LEARNS))
    assert said(document(7, LEARNS)) == ""
    assert "NOT LEARNING" in said(document(8, NOTHING))


def test_doubts_about_expected_answers_are_said_before_the_first_step(said) -> None:
    message = UNKNOWN["message"] + "; data set d: 2 of the first 9 expected answers cannot earn accuracy 1"
    text = said(document(0, UNKNOWN | {"message": message}, stage=None))
    assert "warning: data set d: 2 of the first 9 expected answers cannot earn accuracy 1" in text
    assert said(document(1, UNKNOWN | {"message": message})) == ""


def test_a_sample_that_cannot_be_read_disturbs_nothing(said, tmp_path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples/00000001.jsonl").write_text('{"half')
    assert said(document(1, UNKNOWN)) == ""
    assert "NOT LEARNING" in said(document(1, NOTHING))


def test_without_a_folder_progress_alone_is_printed(capsys) -> None:
    Printer()(document(3, NOTHING))
    assert capsys.readouterr().err == "  step 3/30  reason  reward 0.000  accuracy 0.000  tok/s 100\n"


def stream(folder: Path, *lines: tuple[int, dict[str, float]]) -> bytes:
    text = [json.dumps({"step": s, "stage": "r", "metrics": {n: repr(v) for n, v in m.items()}}) for s, m in lines]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in text) + '{"torn')
    return (folder / "metrics.jsonl").read_bytes()


def held(accuracy: float, pass_at_4: float) -> dict[str, float]:
    return {
        "evaluation/held/accuracy": accuracy,
        "evaluation/held/pass_at_1": accuracy,
        "evaluation/held/pass_at_4": pass_at_4,
        "train/loss": 1.0,
    }


def test_evaluations_before_and_after(tmp_path) -> None:
    found = stream(tmp_path, (0, held(0.25, 0.5)), (1, {"train/loss": 2.0}), (2, held(0.5, 0.75)), (4, held(0.75, 1.0)))
    found = evaluations(found)
    assert found["held"]["accuracy"] == {"before": 0.25, "after": 0.75, "steps": [0, 4]}
    assert list(in_words({"evaluations": found})) == [
        "evaluation held: accuracy 0.250 -> 0.750, pass@4 0.500 -> 1.000 (step 0 -> 4)"
    ]
    assert evaluations(b"") == {}


def test_what_learning_says_at_the_end_is_of_the_last_commit(tmp_path) -> None:
    stream(tmp_path)
    (tmp_path / "steps/4").mkdir(parents=True)
    windows = {name: [(0.0).hex()] * min(size, 3) for name, size in WINDOWS.items()}
    control = {"stage": {"windows": windows}}
    (tmp_path / "steps/4/control.json").write_text(json.dumps(control))
    result = {"checkpoint": "steps/4"}
    found = seen(Location.parse(tmp_path), result, NOTHING)["learning"]
    assert found == NOTHING, "its words hold answers"
    found = seen(Location.parse(tmp_path), result, LEARNS)["learning"]
    assert (found["status"], found["reason"]) == ("False", "NoInformativeGroups"), "what was last heard is older"
    (line,) = in_words({"learning": found})
    assert line.startswith("learning: False, NoInformativeGroups: in 3 steps in a row")
    (tmp_path / "steps/4/control.json").write_text(json.dumps({"stage": {"windows": {}}}))
    assert "learning" not in seen(Location.parse(tmp_path), result, {}), "a supervised stage"
    assert list(in_words({"learning": {"status": "Unknown", "reason": "NotApplicable", "message": ""}})) == []


def test_the_command_explains_itself() -> None:
    from ratchet_cli.main import main

    assert "samples" in CliRunner().invoke(main, ["--help"]).output
