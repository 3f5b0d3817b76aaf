"""Tasks of reasoning-gym are known before a slice is taken."""

from __future__ import annotations

import dataclasses

import pytest
from manifests_for_tests import full

from ratchet_api.reasoning_gym_tasks import TASKS
from ratchet_api.validate import problems


def test_the_table_is_that_of_the_library():
    from reasoning_gym.factory import DATASETS

    own = {"seed", "size"}
    there = {name: {f.name for f in dataclasses.fields(config)} - own for name, (_, config) in DATASETS.items()}
    assert {name: set(settings) for name, settings in TASKS.items()} == there


@pytest.mark.parametrize(
    ("gym", "words"),
    [
        ({"task": "chain_sums"}, ["reasoningGym.task: reasoning-gym has no task chain_sums; did you mean chain_sum?"]),
        ({"task": "zzzz"}, ["reasoningGym.task: reasoning-gym has no task zzzz"]),
        (
            {"task": "chain_sum", "config": {"max_term": 2}},
            ["reasoningGym.config.max_term: unknown setting of the task; did you mean max_terms?"],
        ),
        (
            {"task": "chain_sum", "config": {"seed": 2}},
            ["reasoningGym.config.seed: is the job's to choose; leave it out"],
        ),
        ({"task": "chain_sum", "config": {"max_terms": 2}}, []),
    ],
)
def test_a_name_that_the_library_does_not_have_is_refused(gym, words):
    manifest = full()
    del manifest["spec"]["image"]  # an image of one's own may have tasks of its own
    manifest["spec"]["datasets"][0]["reasoningGym"] = gym
    assert [str(p) for p in problems(manifest)] == [f"spec.datasets[0].{text}" for text in words]
