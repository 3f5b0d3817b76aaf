"""Which versions are kept, and what is told of answers, while steps are made and committed on two threads."""

from __future__ import annotations

import sys
import threading
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from ratchet_trainer.step.sampling_weights import SamplingWeights


def weights(**runtime: Any) -> SamplingWeights:
    """Those of a run whose versions are named by number."""
    numbers = count()
    one: Any = SimpleNamespace(
        spend=lambda category: None, dtype="float32", process=0, processes=1, gather=lambda value: [value], **runtime
    )
    found = SamplingWeights(one, None)  # type: ignore[arg-type]
    vars(found)["_versions"] = SimpleNamespace(publish=lambda *arguments: f"v{next(numbers)}")
    return found


def test_no_version_is_forgotten_that_is_made_while_a_commit_looks_for_old_ones() -> None:
    found, ended, steps = weights(), threading.Event(), 3000
    found._board = SimpleNamespace(list_old=lambda step, keep: [])  # type: ignore[assignment]
    found.publish(0, 0, {})

    def commits() -> None:
        while not ended.is_set():
            found.list_old(1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=commits)
    thread.start()
    try:
        for step in range(1, steps):
            found.publish(0, step, {})
    finally:
        ended.set()
        thread.join()
        sys.setswitchinterval(before)
    assert {f"v{step}" for step in range(1, steps)} - found._steps.keys() == set()


@pytest.mark.parametrize(
    ("known", "since"), [(None, 5), ({"step": 3, "reason": ""}, 5), ({"step": 7, "reason": ""}, 7)]
)
def test_answers_that_were_unequal_once_move_nothing_when_they_are_heard_of_again(known: Any, since: int) -> None:
    document = {"exactSince": known, "step": 9}

    def exact_since(step: int, reason: str) -> None:
        document["exactSince"] = {"step": step, "reason": reason}

    found = weights(durable=SimpleNamespace(exact_since=exact_since), progress=SimpleNamespace(document=document))
    for _ in range(2):
        found._doubt(5, "unequal")
    assert document["exactSince"]["step"] == since
