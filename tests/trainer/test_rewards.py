"""What a response is worth: each part by a table, their weighted sum, and what a part that is no number becomes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ratchet_api.rewards import FormatReward, Reward
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Case, Outcome
from ratchet_trainer.algorithm.rewards.length import cosine, overlong
from ratchet_trainer.algorithm.rewards.registry import rewards_of, text_parts
from ratchet_trainer.algorithm.rewards.text import form, language
from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Draw, Group, Prompt, Request, Rollout
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.run import run
from ratchet_trainer.step.samples import read


def case(response: str) -> Case:
    return Case({"question": "2 + 3?", "answer": "5", "index": 0}, "2 + 3?", response, "end")


@pytest.mark.parametrize(
    ("settings", "response", "value"),
    [
        ({"tags": ["think", "answer"]}, "<think>2+3\n</think>\n<answer>5</answer>\n", 1.0),
        ({"tags": ["think", "answer"]}, "so <think>2</think> then <answer>5</answer>", 1.0),
        ({"tags": ["think", "answer"]}, "<answer>5</answer><think>2</think>", 0.0),
        ({"tags": ["think", "answer"]}, "<think>2</think><answer>5</answer> or 6", 0.0),
        ({"tags": ["answer"]}, "<answer>5</answer><answer>5</answer>", 0.0),
        ({"tags": ["answer"]}, "<answer>5", 0.0),
        ({"tags": ["answer"]}, "", 0.0),
        ({"pattern": "[0-9]+"}, " 42\n", 1.0),
        ({"pattern": "[0-9]+"}, "42!", 0.0),
        ({"pattern": "a.b"}, "a\nb", 1.0),
        ({"pattern": "(a+)+b"}, "a" * 50_000, 0.0),  # would never end elsewhere
    ],
)
def test_forms(settings: dict[str, Any], response: str, value: float) -> None:
    assert form("f", FormatReward.model_validate(settings))(case(response)) == value


def test_a_pattern_that_cannot_be_used_is_named() -> None:
    with pytest.raises(ConfigurationInvalid, match=r"rl.rewards f: format.pattern is not a regular expression"):
        form("f", FormatReward(pattern="(?<=a)b"))


@pytest.mark.parametrize(
    ("script", "response", "value"),
    [
        ("Latin", "five: 5!", 1.0),
        ("Latin", "Это five", 4 / 7),
        ("Cyrillic", "Это пять", 1.0),
        ("Han", "答案是五", 1.0),
        ("Kana", "こたえはゴ", 1.0),
        ("Latin", "5 + 5", 1.0),
        ("Greek", "", 1.0),
    ],
)
def test_languages(script: str, response: str, value: float) -> None:
    assert language(script)(case(response)) == pytest.approx(value)


def test_lengths() -> None:
    assert [overlong(n, 100, 20) for n in (1, 80, 85, 90, 100)] == [0.0, 0.0, -0.25, -0.5, -1.0]
    assert (cosine(0, 100, True, False), cosine(100, 100, True, False)) == (1.0, 0.5)
    assert (cosine(0, 100, False, False), cosine(100, 100, False, False)) == (-1.0, -0.5)
    assert cosine(50, 100, True, False) == pytest.approx(0.75)
    assert cosine(100, 100, True, True) == -1.0, "what was cut is worth nothing, right or wrong"


def group(*outcomes: Outcome) -> Group:
    prompt, nothing = Prompt((1,), "5"), np.zeros(2, np.float32)
    request = Request(Draw(0, 0), Purpose.TRAIN, len(outcomes))
    rollouts = [
        Rollout(request, prompt, prompt, i, (1, 2), nothing, nothing, 0, "end", outcome)
        for i, outcome in enumerate(outcomes)
    ]
    return Group(request.draw, tuple(rollouts))


def scored(rewards: list[dict[str, Any]], *outcomes: Outcome) -> Group:
    rl = Rl.model_validate({"dataset": "d", "maxResponseTokens": 4, "rewards": rewards})
    return rewards_of(rl.rewards).score(group(*outcomes), Context(0, 1, 0, rl))


def test_without_rewards_a_response_is_worth_its_accuracy() -> None:
    found = scored([], Outcome(1.0, 0.5), Outcome(0.0, 0.75))
    assert found.rewards == (1.0, 0.0)
    assert found.parts == {"accuracy": (1.0, 0.0)}


def test_parts_are_added_up_with_their_weights_and_each_is_kept() -> None:
    rewards = [
        {"name": "right"},
        {"name": "graded", "weight": "0.5", "of": "score"},
        {"name": "form", "weight": "-0.25", "format": {"pattern": "x"}},
        {"name": "mine", "weight": "2", "python": {"entrypoint": "a:b"}},
        {"name": "long", "weight": "0.1", "length": {"kind": "overlong", "buffer": 4}},
    ]
    found = scored(rewards, Outcome(1.0, 0.5, parts={"form": 1.0, "mine": 0.125}), Outcome(0.0, 0.0, parts={}))
    assert found.parts == {
        "right": (1.0, 0.0),
        "graded": (0.5, 0.0),
        "form": (1.0, 0.0),
        "mine": (0.125, 0.0),
        "long": (-0.5, -0.5),
    }
    assert found.rewards == (1.0 + 0.25 - 0.25 + 0.25 - 0.05, -0.05)


def test_a_response_that_does_not_end_earns_a_constant() -> None:
    """Whatever the verifier said of it, and however long the others are."""
    rl = Rl.model_validate(
        {
            "dataset": "d",
            "rewards": [
                {"name": "right"},
                {"name": "ends", "weight": "0.5", "unfinished": {}},
                {"name": "own", "unfinished": {"value": "-0.25"}},
            ],
        }
    )
    made = group(Outcome(1.0, 1.0), Outcome(1.0, 1.0), Outcome(0.0, 0.0))
    ended, cut, stopped = made.rollouts
    made = replace(made, rollouts=(ended, replace(cut, finish="length"), replace(stopped, finish="stop")))
    found = rewards_of(rl.rewards).score(made, Context(0, 1, 0, rl))
    assert (found.parts["ends"], found.parts["own"]) == ((0.0, -1.0, 0.0), (0.0, -0.25, 0.0))
    assert found.rewards == (1.0, 0.25, 0.0)


@pytest.mark.parametrize("start", [0, 41])
def test_a_cycle_counts_from_the_first_step_of_the_stage(start: int) -> None:
    """PRORL-4: 100 on, 500 off; a restart at step 1250 of the stage is 50 steps into an `on`."""
    reward = {"name": "right", "weight": "2", "cycle": {"on": 100, "off": 500}}
    rl = Rl.model_validate({"dataset": "d", "rewards": [reward, {"name": "always", "weight": "0.5"}]})

    def worth(since: int) -> float:
        """What a right response earns `since` steps after the stage's first one; the part itself is always there."""
        ctx = Context(0, start + 1 + since, 0, rl, start_step=start)
        found = rewards_of(rl.rewards).score(group(Outcome(1.0, 1.0)), ctx)
        assert found.parts["right"] == (1.0,)
        return found.rewards[0] - 0.5

    assert [worth(since) for since in (0, 99, 600, 1250)] == [2.0] * 4
    assert [worth(since) for since in (100, 599, 1300)] == [0.0] * 3


def test_each_stage_has_its_own_form(memory_runtime, tmp_path: Path) -> None:
    """What one stage pays for, the next does not."""
    file = tmp_path / "d.jsonl"
    file.write_text('{"question": "1", "answer": "1"}\n')
    rl = {"dataset": "d", "promptsPerStep": 2, "groupSize": 4, "maxPromptTokens": 16, "maxResponseTokens": 4}
    forms = [{"name": "form", "format": {"pattern": ".*"}}, {"name": "form", "format": {"tags": ["answer"]}}]
    stages = [
        {"name": f"stage-{i}", "rl": {**rl, "rewards": [{"name": "right"}, form]}, "advance": {"steps": 1}}
        for i, form in enumerate(forms)
    ]
    runtime = memory_runtime(
        {
            "model": {"preset": "tiny"},
            "datasets": [{"name": "d", "jsonl": {"path": str(file)}}],
            "stages": stages,
            "checkpoint": {"directory": str(tmp_path / "checkpoints")},
            "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
        }
    )
    run(runtime)
    assert [record["reward/form"] for _, record, _ in runtime.steps] == [1.0, 0.0]


def test_what_reads_the_text_is_known_by_its_name() -> None:
    rewards = [{"name": "a"}, {"name": "b", "language": {"script": "Latin"}}, {"name": "c", "format": {"tags": ["t"]}}]
    assert list(text_parts([Reward.model_validate(r) for r in rewards])) == ["b", "c"]


OWN = """
def broken(case):
    return float("nan")

def huge(case):
    return 10.0 ** 400

def fine(case):
    return len(case.response) / 8
"""


def test_a_reward_that_is_no_number_is_a_failure_with_a_name_and_spoils_nothing(
    tmp_path: Path, memory_runtime, monkeypatch
) -> None:
    (tmp_path / "maps/own").mkdir(parents=True)
    (tmp_path / "maps/own/own_rewards.py").write_text(OWN)
    monkeypatch.setenv("RATCHET_VERIFIERS_FOLDER", str(tmp_path / "maps"))
    file = tmp_path / "d.jsonl"
    file.write_text('{"question": "1", "answer": "1"}\n')
    own = [
        {"name": name, "python": {"entrypoint": f"own_rewards:{name}", "configMap": "own"}}
        for name in ("broken", "huge", "fine")
    ]
    rl = {"dataset": "d", "promptsPerStep": 2, "groupSize": 2, "maxPromptTokens": 16, "maxResponseTokens": 4}
    runtime = memory_runtime(
        {
            "model": {"preset": "tiny"},
            "datasets": [{"name": "d", "jsonl": {"path": str(file)}}],
            "stages": [{"name": "r", "rl": {**rl, "rewards": own}, "advance": {"steps": 1}}],
            "checkpoint": {"directory": str(tmp_path / "checkpoints")},
            "placements": [{"name": "cpu", "cpu": {"hosts": 1}}],
        }
    )
    run(runtime)
    ((_, record, _),) = runtime.steps
    assert record["train/verifier_failures"] == 1.0
    assert record["reward/broken"] == record["reward/huge"] == 0.0
    assert record["train/reward"] == record["reward/fine"] > 0
    for line in read(tmp_path / "checkpoints"):
        assert line["status"] == "crash"
        assert line["parts"] == {"broken": 0.0, "huge": 0.0, "fine": len(line["response"]) / 8}
    assert json.loads(runtime.stream.splitlines()[-1])["metrics"]["reward/broken"] == "0.0"
