"""Whether a stage learns: each sign by a table of metrics, and what the message quotes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ratchet_api.protocol.documents import LEARNING_REASONS
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Outcome
from ratchet_trainer.algorithm.types import Draw, Group, Prompt, Request, Rollout, StepSamples
from ratchet_trainer.step.learning_signs import NOT_APPLICABLE, SIGNS, WINDOWS, learning

WELL = {
    "train/informative": [0.5] * 3,
    "train/solved": [0.2] * 3,
    "train/accuracy": [0.4] * 3,
    "train/truncated": [0.1] * 3,
    "train/entropy": [0.5] * 10,
    "train/logprob_mismatch": [0.001] * 3,
    "train/reward": [0.4] * 40,
}
NAN = math.nan


def judged(samples: StepSamples | None = None, doubts: str = "", **windows: list[float]) -> Any:
    """The condition for a stage that does well but for the given windows (names without train/)."""
    found = WELL | {f"train/{name}": values for name, values in windows.items()}
    return learning({k: [float(v).hex() for v in values] for k, values in found.items()}, samples, text_of, doubts)


def text_of(tokens: tuple[int, ...]) -> str:
    return bytes(tokens).decode()


@pytest.mark.parametrize(
    ("windows", "status", "reason"),
    [
        ({}, "True", "Learning"),
        # Nothing to learn from, whatever the reward.
        ({"informative": [0.0] * 3, "solved": [0.0] * 3, "accuracy": [0.0] * 3}, "False", "NoInformativeGroups"),
        ({"informative": [0.0, 0.0, 0.01], "accuracy": [0.0] * 3}, "True", "Learning"),
        ({"informative": [0.0] * 3, "solved": [0.5] * 3}, "False", "NoInformativeGroups"),  # the other half never
        ({"informative": [0.0] * 2}, "Unknown", "NotYetKnown"),
        ({"informative": [0.0] * 3, "solved": [1.0] * 3, "accuracy": [1.0] * 3}, "False", "AllSolved"),
        ({"solved": [0.97] * 3}, "True", "Learning"),
        ({"solved": [1.0] * 3, "informative": [0.5] * 3}, "True", "Learning"),  # another part of the reward teaches
        ({"truncated": [0.5] * 3}, "False", "ResponsesTruncated"),
        ({"truncated": [0.9] * 3, "accuracy": [0.5] * 3}, "True", "Learning"),  # cut, and yet right
        ({"truncated": [0.9] * 3, "informative": [0.0] * 3, "solved": [0.0] * 3}, "False", "ResponsesTruncated"),
        ({"truncated": [0.6] * 3, "informative": [0.0] * 3, "solved": [0.0] * 3}, "False", "NoInformativeGroups"),
        ({"entropy": [0.004] * 10}, "False", "EntropyCollapsed"),
        ({"entropy": [0.004] * 9}, "True", "Learning"),
        ({"entropy": [0.004] * 10, "accuracy": [0.96] * 3}, "True", "Learning"),  # sure, and right
        ({"logprob_mismatch": [0.06] * 3}, "False", "SamplerTrainerMismatch"),
        ({"logprob_mismatch": [NAN, 0.06, NAN]}, "False", "SamplerTrainerMismatch"),
        ({"logprob_mismatch": [NAN] * 3}, "True", "Learning"),  # no update, nothing to compare
        ({"logprob_mismatch": [0.04] * 3}, "True", "Learning"),
        ({"reward": [0.8] * 30 + [0.7] * 10}, "False", "RewardFalling"),
        ({"reward": [0.8] * 30 + [0.76] * 10}, "True", "Learning"),
        ({"reward": [0.9, 0.5] * 5 + [0.5] * 20 + [0.4] * 10}, "True", "Learning"),  # within what it varies anyway
        ({"reward": [0.8] * 20 + [0.7] * 10}, "True", "Learning"),
    ],
)
def test_signs(windows, status, reason) -> None:
    found = judged(**windows)
    assert (found.status, found.reason) == (status, reason)
    assert found.message


@pytest.mark.parametrize("estimator", ["gae", "vine"])
def test_with_values_prompts_teach_whose_responses_earn_the_same(estimator: str) -> None:
    windows = {"train/informative": [0.0] * 3, "train/truncated": [0.0] * 3}

    def reason(rewards: list[float], estimator: str) -> str:
        found = windows | {"train/reward": rewards, "train/accuracy": rewards}
        return learning(
            {k: [float(v).hex() for v in values] for k, values in found.items()}, None, text_of, "", estimator
        ).reason

    assert reason([0.7, 0.6, 0.7], estimator) == "Learning"
    assert reason([0.7, 0.6, 0.7], "mean-std") == "NoInformativeGroups"
    assert reason([0.0, 0.0, 0.0], estimator) == "NoInformativeGroups", "no response of three steps differs"


def test_what_a_rule_has_kept_longer_changes_no_sign() -> None:
    nothing = [0.5] * 20 + [0.0] * 3
    found = judged(informative=nothing, solved=nothing, accuracy=nothing)
    assert found.reason == "NoInformativeGroups"
    assert "in 3 steps" in found.message


def test_a_stage_that_has_just_begun_is_not_judged() -> None:
    found = learning({}, None, text_of)
    assert (found.status, found.reason) == ("Unknown", "NotYetKnown")
    assert learning({}, None, text_of, "1 of 2 answers").message.endswith("; 1 of 2 answers")
    assert "1 of 2" not in judged(doubts="1 of 2 answers").message, "what is known now counts"


def test_every_reason_is_one_that_the_operator_knows() -> None:
    known = {(status, reason) for reason, (status, _) in LEARNING_REASONS.items()}
    said = {("False", reason) for reason in SIGNS} | {("True", "Learning"), ("Unknown", "NotYetKnown")}
    assert said | {(NOT_APPLICABLE.status, NOT_APPLICABLE.reason)} == known


def test_every_window_that_a_sign_needs_is_kept() -> None:
    assert {metric for _, needed in SIGNS.values() for metric in needed} <= WINDOWS.keys()


def rollout(
    question: str, expected: str, response: str, extracted: str | None, accuracy: float, finish: str
) -> Rollout:
    prompt, nothing = Prompt((1,), expected, question), np.zeros(0, np.float32)
    request, outcome = Request(Draw(0, 0), Purpose.TRAIN, 1), Outcome(accuracy, accuracy, extracted)
    return Rollout(request, prompt, prompt, 0, tuple(response.encode()), nothing, nothing, 0, finish, outcome)  # type: ignore[arg-type]


def test_the_message_quotes_the_commonest_expected_and_given_answer() -> None:
    rollouts = (
        rollout("1 + 1?", "2", "It is 2.", "2", 1.0, "end"),
        rollout("2 + 3?", "5", "2 + 3\n = 5", "2 + 3\n = 5", 0.0, "end"),
        rollout("2 + 3?", "5", "2 + 3 = 5", "2 + 3\n = 5", 0.0, "length"),
        rollout("2 + 3?", "5", "six", None, 0.0, "end"),
        rollout("9 + 9?", "18", "x" * 500, None, 0.0, "end"),
    )
    samples = StepSamples((Group(Draw(0, 0), rollouts, (0.0,) * 5),))
    found = judged(samples, informative=[0.0] * 3)
    assert found.reason == "NoInformativeGroups"
    assert "for example, '2 + 3?' expects '5' and was answered '2 + 3 = 5' (ended by its end token)" in found.message
    assert "\n" not in found.message
    assert len(judged(samples, informative=[0.0] * 3).plain()["message"]) <= 1000
    nothing_read = StepSamples((Group(Draw(0, 0), rollouts[4:], (0.0,)),))
    assert "was answered 'xxx" in judged(nothing_read, informative=[0.0] * 3).message, "then the response itself"


def test_after_a_restart_the_same_is_said_without_a_quote() -> None:
    found = judged(None, informative=[0.0] * 3)
    assert found.reason == "NoInformativeGroups"
    assert "for example" not in found.message
