"""The verifier `reasoningGym`: by the task's own rules, as far as they can be trusted. Pure.

Decides how a row of the vetted table (`reasoning_gym_tasks`) becomes a judgement. Most tasks are compared here, inline.
Those with several right answers go to the library's scorer, in a worker; only full marks count, because what the
library gives for less is no measure of anything. A scorer needs what the library knows of an item beside question and
answer. That is no JSON, so the item carries its `seed` and the worker makes it again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from ratchet_trainer.algorithm.outcome import Case, Outcome, graded, unparsable
from ratchet_trainer.algorithm.verifiers.extract import extract, last_number
from ratchet_trainer.algorithm.verifiers.number import number
from ratchet_trainer.algorithm.verifiers.reasoning_gym_comparisons import COMPARISONS, TEXT_MAX, arithmetic, fold
from ratchet_trainer.algorithm.verifiers.reasoning_gym_tasks import TASKS, Task, has_form
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import ConfigurationInvalid

VERSION = "1"
NEED_ENTRY = ("scorer", "numbers used")
"""Ways of verifying that need all that the library knows of an item."""
ENTRIES = 4096
"""Items that a worker remembers."""


def task_of(name: str) -> Task:
    """The row of a task. Raises ConfigurationInvalid for one that is refused or not in the table."""
    task = TASKS.get(name)
    if task is None:
        raise ConfigurationInvalid(
            f"reasoning-gym task {name}: nobody has looked yet at how it is scored; choose another verifier, or "
            "add it to reasoning_gym_tasks"
        )
    if task.by == "refused":
        raise ConfigurationInvalid(
            f"reasoning-gym task {name}: its answers cannot be verified: {task.why}; choose another task, or a "
            "verifier of your own (verifier: python)"
        )
    return task


def in_process(name: str) -> bool:
    """Whether a task is verified inline: cheap, safe, without the library."""
    return task_of(name).by not in NEED_ENTRY


def build(spec: VerifierSpec) -> Callable[[Case], Outcome]:
    """The verifier of a task. Raises ConfigurationInvalid as `task_of` does; imports the library for a scorer only."""
    task = task_of(spec.settings["task"])
    if task.by in NEED_ENTRY:
        return _with_entry(spec, task)

    def verify(case: Case) -> Outcome:
        expected = str(case.item["answer"])
        numeric = task.by == "number" or (task.by == "number or text" and number(expected) is not None)
        loosely = numeric or task.by in ("near", "three figures")
        auto = spec.extraction.kind == "auto"
        found = last_number(case.response) if auto and loosely else extract(spec.extraction, case.response)
        if found is None or len(found) > TEXT_MAX:
            return unparsable(None if found is None else found[:TEXT_MAX])
        if numeric:
            given, wanted = number(found), number(expected)
            if given is None:
                return unparsable(found)
            return graded(float(given == wanted), found)
        if not expected.strip():
            return graded(0.0, found)  # saying nothing earns nothing
        compare = fold if task.by == "number or text" else COMPARISONS[task.by]
        return graded(float(compare(found, expected)), found)

    return verify


def uses_numbers(answer: str, metadata: Mapping[str, Any]) -> bool:
    """Whether an expression makes the target of the question (24 without one) from just its numbers."""
    result = arithmetic(answer)
    if result is None:
        return False
    value, used = result
    return bool(value == metadata.get("target", 24) and sorted(used) == sorted(metadata["numbers"]))


def _with_entry(spec: VerifierSpec, task: Task) -> Callable[[Case], Outcome]:
    import reasoning_gym  # takes a second

    name, config = spec.settings["task"], dict(spec.settings.get("config", {}))
    known = reasoning_gym.factory.DATASETS
    if name not in known:
        raise ConfigurationInvalid(f"the installed reasoning-gym has no task {name}")
    of_data, of_config = known[name]
    try:
        scorer = of_data(of_config(**config, size=1, seed=0))
    except (TypeError, AssertionError, ValueError) as error:
        raise ConfigurationInvalid(f"reasoning-gym task {name} refuses config {config}: {error}") from error

    @lru_cache(ENTRIES)
    def entry_of(seed: int) -> dict[str, Any]:
        return dict(of_data(of_config(**config, size=1, seed=seed))[0])

    def verify(case: Case) -> Outcome:
        found = extract(spec.extraction, case.response)
        if found is None or (task.by == "scorer" and not has_form(task, found)):
            return unparsable(None if found is None else found[:TEXT_MAX])
        if "seed" not in case.item:
            raise ConfigurationInvalid(f"the item has no seed, which task {name} needs; items of reasoningGym have one")
        entry = entry_of(int(case.item["seed"]))
        if entry["answer"] != case.item["answer"]:
            raise ConfigurationInvalid("the installed reasoning-gym makes another item of this seed; pin its version")
        if task.by == "numbers used":
            return graded(float(uses_numbers(found, entry["metadata"])), found)
        # A copy: some scorers write into what they are given.
        paid = float(scorer.score_answer(found, copy.deepcopy(entry)))
        return graded(float(paid >= 1.0), found)

    return verify
