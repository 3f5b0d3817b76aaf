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
from ratchet_trainer.algorithm.types import Group, Rollout
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


def with_old_logprobs(stage: Stage, state: State, groups: Sequence[Group]) -> list[Group]:
    """The groups, which this step has sampled and a later one will train on, with what the trainer's program says of
    them now: the weights that sampled them are gone then. *Collective.*"""
    learner, temperature = stage.programs.learner, float(stage.rl.temperature)
    rollouts: list[Rollout] = [r for g in groups for r in g.rollouts]
    said: list[np.ndarray] = []
    for part in mini_batches(rollouts, stage.rl.updates_per_step, stage.rows_per_update):
        stage.group.safe_point()
        layout = stage.layout_of(part.rows)
        found = learner.log_probs(state.params, layout, part.rows, temperature)
        said.extend(learner.on_host(found, layout, part.rows).astype(np.float32))
    rows = iter(said)
    return [
        replace(g, rollouts=tuple(replace(r, old_logp=next(rows)[: len(r.response)]) for r in g.rollouts))
        for g in groups
    ]


def _with_carried(old: jax.Array, part: MiniBatch, stage: Stage, rollouts: Sequence[Rollout]) -> jax.Array | np.ndarray:
    """Log-probabilities [P, G, T] of a mini-batch's rollouts under the policy that sampled each: those of carried ones
    are what was said when they were sampled. *Collective.*"""
    if all(r.old_logp is None for r in rollouts):
        return old
    layout = stage.layout_of(part.rows)
    found = stage.programs.learner.on_host(old, layout, part.rows).astype(np.float32)
    for row, rollout in enumerate(rollouts):
        if rollout.old_logp is not None:
            found[row, : len(rollout.old_logp)] = rollout.old_logp
    return layout.fill(found)


def model_outputs(stage: Stage, state: State, rollouts: Sequence[Rollout]) -> tuple[list[MiniBatch], ModelOutputs]:
    """The step's mini-batches, and what advantage may know of them on the host; between two of them is a safe point.
    *Collective.*"""
    learner, layout, temperature = stage.programs.learner, stage.layout_of, float(stage.rl.temperature)
    parts: list[MiniBatch] = []
    for part in mini_batches(rollouts, stage.rl.updates_per_step, stage.rows_per_update):
        if parts:
            jax.block_until_ready((parts[-1].old, parts[-1].reference))  # who leaves would wait for all that is queued
            stage.group.safe_point()
        made, reference = (
            learner.log_probs(params, layout(part.rows), part.rows, temperature) if params is not None else None
            for params in (state.params if stage.needs_old_logprobs else None, state.whole_reference)
        )
        old = _with_carried(made, part, stage, rollouts[part.place]) if made is not None else None
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
