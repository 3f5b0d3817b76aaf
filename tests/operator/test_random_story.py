"""Faults, spec edits and losses in any order: no invariant breaks, and the job ends with the right weights."""

from __future__ import annotations

import os

import pytest
from random_story import Story
from running_operator import World

SEED = int(os.environ.get("RATCHET_SEED") or 1)
"""Of the story in `make test`, where it is the same each time; `make soak` draws others unless it is set."""


async def told(world: World, acts: int, seed: int) -> None:
    story = Story(world, seed)
    try:
        status = await story.told(acts)
    finally:
        print(f"RATCHET_SEED={seed}", *story.acts, sep="\n  ")
    for it in status["attempts"]:
        print(f"  attempt {it['number']}: {it['verdict']}, charged to {it.get('chargedTo')}: {it.get('evidence')}")
    print(f"{status['attempt']['number']} attempts, {world.kubelet.storage[story.name].refused} commits refused")
    assert status["attempt"]["number"] > 1


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_fifty_acts_at_random(world):
    await told(world, 50, SEED)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(10))
async def test_fifty_acts_at_random_ten_times(world, number):
    await told(world, 50, SEED + number if "RATCHET_SEED" in os.environ else int.from_bytes(os.urandom(4)))
