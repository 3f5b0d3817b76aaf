"""What may be changed while a job runs, what may not, and from when on it counts."""

from __future__ import annotations

import copy

import pytest
from scripted_trainer import Pace

from ratchet_cluster.api import ApiError


async def test_what_has_begun_is_refused_and_what_lies_ahead_counts(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    stages = (await world.job())["spec"]["stages"]
    begun = copy.deepcopy(stages)
    begun[0]["advance"]["steps"] = 11
    for change, words in (
        ({"seed": 8}, "seed cannot change"),
        ({"stages": begun}, "stage that has begun cannot change"),
        ({"model": {"preset": None, "path": "gs://bucket/model"}}, "cannot change"),
        ({"checkpoint": {"directory": "/checkpoints/elsewhere"}}, "cannot change"),
    ):
        with pytest.raises(ApiError, match=words):
            await world.edit(**change)
    job = await world.job()
    assert (job["metadata"]["generation"], job["status"]["observedGeneration"]) == (1, 1), "what is refused is no edit"
    stages[1]["advance"]["steps"] = 25
    await world.edit(stages=stages)
    await world.until("the edit is observed", lambda s: s["observedGeneration"] == 2)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert [s["endStep"] for s in status["stages"]] == [10, 35]
    assert status["attempt"]["number"] == 1, "later stages change without a restart"
