"""What the trainer's own programs say of a step's rows before a weight moves: once a step, whatever its updates.

Decides which programs are asked (old policy, reference, critic) and in which shape: that of the updates, since the bits
of a row depend on the batch that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from ratchet_trainer.learner import Row
from ratchet_trainer.rollout.types import Rollout
from ratchet_trainer.slots import Judged
from ratchet_trainer.stage import Stage
from ratchet_trainer.state import State


@dataclass(frozen=True)
class MiniBatch:
    """The rows of one update: where they stand in the batch, and their log-probabilities [P, G, T] on the devices under
    the old policy and the reference (None: not asked)."""

    place: slice
    rows: list[Row]
    old: jax.Array | None
    reference: jax.Array | None


def judge(stage: Stage, state: State, rollouts: Sequence[Rollout]) -> tuple[list[MiniBatch], Judged]:
    """The step's mini-batches, and what credit may know of them on the host. *Collective.*"""
    rows = [Row(r.prompt.tokens, r.response, r.behaviour_logp) for r in rollouts]
    learner, layout, temperature = stage.machine.learner, stage.layout, float(stage.rl.temperature)
    size = len(rows) // stage.rl.updates_per_step
    parts = []
    for start in range(0, len(rows), size):
        mine = rows[start : start + size]
        old, reference = (
            learner.log_probs(params, layout, mine, temperature) if params is not None else None
            for params in (state.params if stage.judges_old else None, state.whole_reference)
        )
        parts.append(MiniBatch(slice(start, start + size), mine, old, reference))
    judged = Judged()
    if stage.method.credit.penalty is not None:
        old, reference = (
            np.concatenate([learner.on_host(getattr(part, name), layout, part.rows) for part in parts])
            for name in ("old", "reference")
        )
        judged = Judged(old, reference)
    if state.credit is not None:
        values = [stage.machine.critic.values(state.credit, layout, part.rows) for part in parts]
        judged = Judged(judged.old, judged.reference, np.concatenate(values))
    return parts, judged
