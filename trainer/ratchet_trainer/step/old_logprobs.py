"""What the trainer's own programs say of a step's rows before a weight moves: once a step, whatever its updates.

Decides which programs are asked (old policy, reference, critic) and in which shape: that of the updates, since the bits
of a row depend on the batch that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from ratchet_trainer.algorithm.slots import ModelOutputs
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


def mini_batches(rollouts: Sequence[Rollout], updates: int, rows_per_update: int) -> list[MiniBatch]:
    """The rollouts of a step in as many mini-batches as there are updates, in order; nothing is said of them yet.

    A mini-batch has at most `rows_per_update` rows; where there are fewer rollouts the last ones have less or are left
    out, and dummies fill their shape. Raises ValueError for more rollouts than fit: a step never cuts silently.
    """
    if len(rollouts) > updates * rows_per_update:
        raise ValueError(f"{len(rollouts)} rollouts do not fit {updates} updates of {rows_per_update}")
    rows = [Row(r.trained_prompt.tokens, r.response, r.behaviour_logp, r.forced) for r in rollouts]
    return [
        MiniBatch(slice(i, min(i + rows_per_update, len(rows))), rows[i : i + rows_per_update])
        for i in range(0, len(rows), rows_per_update)
    ]


def model_outputs(stage: Stage, state: State, rollouts: Sequence[Rollout]) -> tuple[list[MiniBatch], ModelOutputs]:
    """The step's mini-batches, and what advantage may know of them on the host; between two of them is a safe point.
    *Collective.*"""
    learner, layout, temperature = stage.programs.learner, stage.layout_of, float(stage.rl.temperature)
    parts: list[MiniBatch] = []
    for part in mini_batches(rollouts, stage.rl.updates_per_step, stage.rows_per_update):
        if parts:
            jax.block_until_ready((parts[-1].old, parts[-1].reference))  # who leaves would wait for all that is queued
            stage.group.safe_point()
        old, reference = (
            learner.log_probs(params, layout(part.rows), part.rows, temperature) if params is not None else None
            for params in (state.params if stage.needs_old_logprobs else None, state.whole_reference)
        )
        parts.append(replace(part, old=old, reference=reference))
    outputs = ModelOutputs()
    if stage.method.advantage.penalty is not None:
        of_old, of_reference = (
            np.concatenate([learner.on_host(getattr(part, name), layout(part.rows), part.rows) for part in parts])
            for name in ("old", "reference")
        )
        outputs = ModelOutputs(of_old, of_reference)
    if state.critic is not None:
        values = []
        for part in parts:
            stage.group.safe_point()
            values.append(stage.programs.critic.values(state.critic, layout(part.rows), part.rows))
        outputs = ModelOutputs(outputs.old, outputs.reference, np.concatenate(values))
    return parts, outputs
