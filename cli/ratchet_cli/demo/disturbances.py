"""When the demo takes which node away: a schedule drawn from a seed.

Odd ones come with notice, the first of them while responses are generated; even ones come without. All strike in stages
of kind `rl`, each after the one before it has been recovered from.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from ratchet_api.job import Spec
from ratchet_api.stages import Stage


@dataclass(frozen=True)
class Disturbance:
    """Strike once `step` is finished; `during` waits for that phase of the next one; `host` counts modulo the hosts."""

    step: int
    kind: Literal["graceful", "abrupt"]
    during: str | None
    host: int


def certain_steps(stage: Stage) -> int:
    """Steps that the stage makes at least, whatever its rules say."""
    if stage.curate is not None:
        return 1  # how many items there are is not in the manifest
    advance = stage.advance
    if not advance.when:
        return advance.steps
    return min(advance.steps, max(advance.min_steps, min(rule.window for rule in advance.when)))


def schedule(spec: Spec, count: int, seed: int) -> list[Disturbance]:
    """`count` disturbances, spread over the steps that the RL stages make for certain; ascending by step."""
    before = 0
    for stage in spec.stages:
        if stage.rl is not None:
            break
        before += certain_steps(stage)
    span = sum(certain_steps(stage) for stage in spec.stages) - before
    draw = random.Random(seed)
    steps = [before + round(span * (i + draw.uniform(0.2, 0.8)) / (count + 1)) for i in range(count)]
    return [
        Disturbance(step, "abrupt" if i % 2 else "graceful", "generate" if i == 0 else None, draw.randrange(1 << 16))
        for i, step in enumerate(steps)
    ]
