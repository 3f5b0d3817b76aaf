"""The documents between operator and trainer: what one side writes the other side reads, also across versions."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ratchet_api.protocol import PROGRESS_LIMIT, TERMINATION_MESSAGE_LIMIT, V
from ratchet_api.protocol.documents import (
    LEARNING_REASONS,
    JobFile,
    Learning,
    ProgressDocument,
    StageGate,
    progress_answer,
    read_termination_message,
    termination_message,
)

JOB_FILE = {"v": V, "namespace": "team", "name": "sums", "jobUID": "u", "spec": {"seed": 7}, "mayEnter": 0}
GATE = {
    "v": V, "jobUID": "u", "attempt": 2, "mayEnter": 1, "specHash": "h", "finish": False, "checkpointRequest": 0,
    "stages": [{"index": 1, "specHash": "h", "spec": {"name": "reason"}}],
}  # fmt: skip
PROGRESS = {"v": V, "jobUID": "u", "attempt": 2, "jobSetUID": "s", "revision": "r-1", "phase": "update"}
BOUNDARY = {"stage": 0, "step": 10, "rule": "steps"}


@pytest.mark.parametrize(("model", "said"), [(JobFile, JOB_FILE), (StageGate, GATE)], ids=["job file", "stage gate"])
def test_names_on_the_wire_are_these(model, said):
    assert model.model_validate(said).plain() == said


@pytest.mark.parametrize(
    ("model", "said"),
    [(JobFile, JOB_FILE), (StageGate, GATE), (ProgressDocument, PROGRESS)],
    ids=["job file", "stage gate", "progress"],
)
def test_the_version_before_is_read_and_the_one_after_is_not(model, said):
    assert model.model_validate({**said, "v": V - 1, "newer": [1]}).v == V - 1
    with pytest.raises(ValidationError):
        model.model_validate({**said, "v": V + 1})


def test_a_stage_gate_needs_no_more_than_identity_and_ceiling():
    gate = StageGate.model_validate({"v": V, "jobUID": "u", "attempt": 2, "mayEnter": 1})
    assert (gate.finish, gate.checkpoint_request, gate.stages) == (False, 0, [])


def test_a_reward_that_is_no_number_costs_only_the_reward():
    answer = json.loads(progress_answer({**PROGRESS, "step": 3, "reward": float("nan"), "accuracy": 0.5}))
    assert (answer["step"], answer["reward"], answer["accuracy"]) == (3, None, 0.5)
    ProgressDocument.model_validate(answer)


def test_a_long_rule_is_shortened_and_the_end_of_the_stage_is_still_told():
    rule = "accuracy atLeast 0.9 and\n" * 5000
    answer = progress_answer({**PROGRESS, "boundary": {**BOUNDARY, "rule": rule}})
    assert len(answer) < PROGRESS_LIMIT
    said = ProgressDocument.model_validate(json.loads(answer)).boundary
    assert said is not None
    assert (said.stage, said.step, said.rule[:20]) == (0, 10, "accuracy atLeast 0.9")


def test_the_largest_answer_fits():
    line = "\u00e9" * 1024
    everything = {
        **PROGRESS,
        "stage": {"name": line, "index": 1, "startStep": 1},
        "checkpoint": {"step": 1, "path": line, "time": line},
        "boundary": {**BOUNDARY, "rule": line},
        "exactSince": {"step": 1, "reason": line},
        "parts": {str(i) * 20: 1.5 for i in range(32)},
        "learning": Learning.because("NoInformativeGroups", line * 9).plain(),
        "artifacts": [{"stage": f"s{i}", "step": i, "path": line} for i in range(64)],
    }
    answer = progress_answer(everything)
    assert len(answer) <= PROGRESS_LIMIT
    said = json.loads(answer)
    assert said["learning"]["reason"] == "NoInformativeGroups"
    assert said["artifacts"][-1]["stage"] == "s63", "the newest is told, older ones were told before"


def test_an_end_of_a_stage_says_whether_it_needs_an_approval():
    """An older trainer does not; both ways of telling have it."""
    waits = {**BOUNDARY, "needsApproval": True}
    for boundary, expected in ((BOUNDARY, False), (waits, True)):
        shown = ProgressDocument.model_validate(json.loads(progress_answer({**PROGRESS, "boundary": boundary})))
        left = read_termination_message(termination_message("Drained", "left", 7, boundary).decode())
        for document in (shown, left):
            assert document.boundary is not None
            assert document.boundary.needs_approval is expected


def test_every_reason_for_learning_has_one_status_and_a_meaning():
    assert {status for status, _ in LEARNING_REASONS.values()} == {"True", "False", "Unknown"}
    assert all(meaning for _, meaning in LEARNING_REASONS.values())


def test_a_termination_message_is_read_as_it_was_written():
    written = termination_message("Fenced", "left", 7, BOUNDARY, {"jobUID": "u", "attempt": 3})
    said = read_termination_message(written.decode())
    assert said.boundary is not None
    assert said.owner is not None
    assert (said.reason, said.message, said.step) == ("Fenced", "left", 7)
    assert (said.boundary.step, said.owner.attempt) == (10, 3)


CHARACTERS = {"ascii": "x", "accent": "\u00e9", "emoji": "\U0001f600", "newline": "\n", "surrogate": "\ud800"}


@pytest.mark.parametrize("character", CHARACTERS)
def test_a_long_termination_message_keeps_its_start_and_its_end(character):
    text = CHARACTERS[character] * 9000
    written = termination_message("Hung", f"start {text} end", 7, {**BOUNDARY, "rule": "r" * 9000})
    assert len(written) <= TERMINATION_MESSAGE_LIMIT
    said = read_termination_message(written.decode())
    assert said.message is not None
    assert said.message.startswith("start ")
    assert said.message.endswith(" end")
    assert len(written) > TERMINATION_MESSAGE_LIMIT * 0.8
