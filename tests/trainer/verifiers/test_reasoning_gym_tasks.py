"""The table of tasks is honest: right answers get full marks; wrong, padded, empty and listed ones never do."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from cases import spec

from ratchet_api.datasets import ReasoningGym
from ratchet_trainer.algorithm.outcome import Case, Outcome
from ratchet_trainer.algorithm.verifiers import registry
from ratchet_trainer.algorithm.verifiers.number import number
from ratchet_trainer.algorithm.verifiers.reasoning_gym import in_process
from ratchet_trainer.algorithm.verifiers.reasoning_gym_tasks import TASKS
from ratchet_trainer.data.reasoning_gym_items import ReasoningGymItems
from ratchet_trainer.errors import ConfigurationInvalid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import reasoning_gym

SLOW = {"arc_agi", "group_anagrams", "word_ladder", "rearc", "sokoban", "knight_swap", "zebra_puzzles"}
SEVERAL = {"n_queens"}
"""Tasks in which the answer of another item may be right, too."""
SMALL = {"sokoban": {"max_w": 6, "max_h": 6, "max_boxes": 4}}
USABLE = sorted(name for name, task in TASKS.items() if task.by != "refused")


@cache
def items(task: str) -> list[dict[str, Any]]:
    """Items as the trainer makes them: one for each seed."""
    cls, config = reasoning_gym.factory.DATASETS[task]
    return [
        {**cls(config(**SMALL.get(task, {}), size=1, seed=seed))[0], "seed": seed}
        for seed in range(11, 12 if task in SLOW else 15)
    ]


def verifier(task: str) -> Callable[[Case], Outcome]:
    return registry.build(spec("reasoningGym", task=task, config=SMALL.get(task, {})))


def as_case(entry: dict[str, Any], response: str) -> Case:
    item = {"question": entry["question"], "answer": entry["answer"], "seed": entry["seed"], "index": 0}
    return Case(item, entry["question"], response, "end")


def changed(text: str) -> str:
    """The text with its first letter or digit replaced by the next one."""
    for place, character in enumerate(text):
        if character.isascii() and character.isalnum():
            new = str((int(character) + 1) % 10) if character.isdigit() else chr(ord(character) + 1)
            return text[:place] + new + text[place + 1 :]
    return text[1:]


def numeric(task: str, answer: str) -> bool:
    """Whether the last number of a response counts, so that what stands before it does not."""
    return TASKS[task].by in ("number", "near", "three figures", "number or text") and number(answer) is not None


def wrong_ones(task: str, entry: dict[str, Any], others: list[str]) -> Iterator[tuple[str, str]]:
    """Kind and text of responses that must not get full marks."""
    right = entry["answer"]
    yield "empty", ""
    yield "blank", " \n\t "
    yield "a promise", "I know the answer."
    yield "changed", changed(right)
    yield "code", "__import__('os').system('true')"
    if not numeric(task, right):
        yield "the question", entry["question"]
        yield "doubled", f"{right} {right}"
        yield "padded", f"The answer is {right}, I think."
        yield "all candidates", "\n".join([*others, right])
    for other in others:
        if task not in SEVERAL:
            yield "another item's answer", other
        if not numeric(task, right) or number(other) is not None:
            yield "all candidates, the right one not last", f"{right} or {other}"
            yield "all candidates by line, the right one not last", f"{right}\n{other}"


@pytest.mark.parametrize("task", USABLE)
def test_a_right_answer_gets_full_marks_and_no_other_does(task: str):
    verify = verifier(task)
    entries = items(task)
    paid = []
    for entry in entries:
        right = entry["answer"]
        if not right.strip():
            continue
        outcome = verify(as_case(entry, right))
        assert (outcome.accuracy, outcome.status) == (1.0, "ok"), f"{right!r} got {outcome}"
        others = [
            a for a in dict.fromkeys(e["answer"] for e in entries) if a.casefold() != right.casefold() and a.strip()
        ][:2]
        for kind, text in wrong_ones(task, entry, others):
            if text.strip() == right.strip():
                continue
            outcome = verify(as_case(entry, text))
            if outcome.accuracy or outcome.score:
                paid.append((kind, text[:80], right[:80]))
    assert not paid


def test_the_table_knows_every_task_of_the_installed_library_and_no_other():
    assert sorted(TASKS) == sorted(reasoning_gym.factory.DATASETS)


@pytest.mark.parametrize("task", sorted(name for name, row in TASKS.items() if row.by == "refused"))
def test_a_task_that_cannot_be_verified_is_refused_with_the_reason(task: str):
    with pytest.raises(ConfigurationInvalid, match=task):
        registry.build(spec("reasoningGym", task=task, config={}))


def test_a_task_that_nobody_has_looked_at_is_refused():
    with pytest.raises(ConfigurationInvalid, match="nobody has looked"):
        registry.build(spec("reasoningGym", task="brand_new", config={}))


def test_noise_around_a_right_answer_of_a_scorer_is_never_paid():
    noise = random.Random(5)
    for task in [name for name in USABLE if not in_process(name)]:
        verify = verifier(task)
        for entry in items(task)[:2]:
            for _ in range(10):
                place = noise.randrange(len(entry["answer"]) + 1)
                text = entry["answer"][:place] + noise.choice("#@;xq?") * noise.randint(1, 3) + entry["answer"][place:]
                assert not verify(as_case(entry, text)).accuracy, (task, text)


@pytest.mark.parametrize("task", ["countdown", "shortest_path"])
def test_an_item_of_the_trainers_data_carries_what_its_verifier_needs(task: str):
    item = ReasoningGymItems("d", ReasoningGym(task=task)).item(3)
    verify = registry.build(spec("reasoningGym", task=task, config={}))
    case = Case({**item.fields, "question": item.question, "answer": item.answer, "index": 3}, "", item.answer, "end")
    assert verify(case).accuracy == 1.0


def test_an_item_that_the_installed_library_makes_otherwise_is_named():
    verify = registry.build(spec("reasoningGym", task="countdown", config={}))
    with pytest.raises(ConfigurationInvalid, match="another item"):
        verify(as_case(items("countdown")[0] | {"answer": "1 + 1"}, "1 + 1"))


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("{0}", True),
        ("({0})", True),
        ("{0} + 0", False),
        ("{0} - 0*{1}", False),
        ("{1}", False),
        ("1{0}", False),
        ("", False),
    ],
)
def test_countdown_wants_the_target_from_just_the_numbers(answer: str, right: bool):
    verify = registry.build(spec("reasoningGym", task="countdown", config={}))
    entry = items("countdown")[0]
    said = answer.format(entry["answer"], entry["metadata"]["target"])
    assert (verify(as_case(entry, said)).accuracy == 1.0) == right
