"""Calls and answers for tests of the fleet's board: what an answer is follows from the call alone."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from ratchet_trainer.fleet import result as results
from ratchet_trainer.fleet.call import Call
from ratchet_trainer.fleet.result import Result

SHA = hashlib.sha256(b"").hexdigest()


def call(number: int = 0, **changes: Any) -> Call:
    """The n-th call of a round of two prompts, three samples each, at most four tokens."""
    plain: dict[str, Any] = {
        "stage": 0,
        "stage_hash": SHA,
        "step": 1,
        "round": 0,
        "number": number,
        "version": SHA,
        "shape": SHA,
        "prompts": ((1, 2, 3), (4, 5)),
        "purpose": 1,
        "samples": 3,
        "first": 0,
        "ordinals": (2 * number, 2 * number + 1),
        "tags": (0, 0),
        "limits": (4, 4),
        "rows": 4,
        "prompt_slots": 8,
        "response_slots": 4,
        "refills": False,
    }
    return Call(**plain | changes)


def answer(asked: Call, worker: str = "w0", identity: str = SHA, change: int = 0) -> Result:
    """What any worker answers; with a `change` it is another one."""
    random = np.random.default_rng([int(asked.digest[:12], 16), change])
    size = asked.rows, asked.samples, asked.response_slots
    sampled = SimpleNamespace(
        tokens=random.integers(0, 256, size),
        log_probs=-random.random(size, np.float32),
        entropy=random.random(size, np.float32),
        lengths=random.integers(0, asked.response_slots + 1, size[:2]),
        finish=np.array(results.FINISHES)[random.integers(0, 3, size[:2])],
    )
    return results.made(asked, sampled, identity=identity, worker=worker)


class Clock:
    """One that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now
