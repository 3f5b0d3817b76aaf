"""What the trainer's own programs say of a step's rows before a weight moves: once a step, whatever its updates.

Decides which programs are asked (old policy, reference, critic) and in which shape: that of the updates, since the bits
of a row depend on the batch that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from ratchet_trainer.algorithm.slots import Judged
from ratchet_trainer.algorithm.types import Rollout
from ratchet_trainer.learning.learner import Row
from ratchet_trainer.step.stage import Stage
from ratchet_trainer.step.state import State


@dataclass(frozen=True)
class MiniBatch:
    """The rows of one update: where they stand in the batch, and their log-probabilities [P, G, T] under the old policy
    and the reference, on the devices or read back from a checkpoint (None: not asked)."""

    place: slice
    rows: list[Row]
    old: jax.Array | np.ndarray | None = None
    reference: jax.Array | np.ndarray | None = None


def mini_batches(rollouts: Sequence[Rollout], updates: int) -> list[MiniBatch]:
    """The rollouts of a step in as many mini-batches, in order; nothing is said of them yet."""
    rows = [Row(r.prompt.tokens, r.response, r.behaviour_logp) for r in rollouts]
    size = len(rows) // updates
    return [MiniBatch(slice(i, i + size), rows[i : i + size]) for i in range(0, len(rows), size)]


def judge(stage: Stage, state: State, rollouts: Sequence[Rollout]) -> tuple[list[MiniBatch], Judged]:
    """The step's mini-batches, and what advantage may know of them on the host; between two of them is a safe point.
    *Collective.*"""
    learner, layout, temperature = stage.programs.learner, stage.layout, float(stage.rl.temperature)
    parts = []
    for part in mini_batches(rollouts, stage.rl.updates_per_step):
        if parts:
            jax.block_until_ready((parts[-1].old, parts[-1].reference))  # who leaves would wait for all that is queued
            stage.team.safe_point()
        old, reference = (
            learner.log_probs(params, layout, part.rows, temperature) if params is not None else None
            for params in (state.params if stage.needs_old_logprobs else None, state.whole_reference)
        )
        parts.append(replace(part, old=old, reference=reference))
    judged = Judged()
    if stage.method.advantage.penalty is not None:
        old, reference = (
            np.concatenate([learner.on_host(getattr(part, name), layout, part.rows) for part in parts])
            for name in ("old", "reference")
        )
        judged = Judged(old, reference)
    if state.critic is not None:
        values = []
        for part in parts:
            stage.team.safe_point()
            values.append(stage.programs.critic.values(state.critic, layout, part.rows))
        judged = Judged(judged.old, judged.reference, np.concatenate(values))
    return parts, judged
