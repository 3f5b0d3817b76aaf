"""A supervised step: one batch in epoch order, cross-entropy on answer and end tokens only, one update.

Decides the loss and the order of items. Slots are not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from ratchet_api.stages import Sft
from ratchet_trainer.algorithm.slots import DataFacts, Metrics, Micro, Plain, SlotState
from ratchet_trainer.data.epochs import visits
from ratchet_trainer.data.items import Source, answer_tokens, prompt_of
from ratchet_trainer.data.tokenizer import Tokenizer
from ratchet_trainer.learning.learner import Row
from ratchet_trainer.rollout.engine import ProcessGroup
from ratchet_trainer.step.state import MidStep, State


@dataclass(frozen=True)
class CrossEntropy:
    """Mean over all answer tokens of the batch of -log p, in nats."""

    @property
    def loss(self) -> Callable[..., tuple[jax.Array, Metrics]]:
        return cross_entropy

    def settings(self) -> dict[str, float]:
        return {}

    def weights(self, lengths: np.ndarray, slots: int) -> np.ndarray:
        real = np.arange(slots) < np.asarray(lengths)[:, None]
        return real / max(1.0, float(np.sum(lengths)))


def cross_entropy(
    log_probs: jax.Array, entropy: jax.Array, micro: Micro, settings: Metrics
) -> tuple[jax.Array, Metrics]:
    return -jnp.sum(micro.weight * log_probs), {}


def batch(
    group: ProcessGroup,
    source: Source | None,
    tokenizer: Tokenizer,
    facts: DataFacts,
    seed: int,
    position: Plain,
    sft: Sft,
) -> tuple[Plain, list[Row]]:
    """The next `batchSize` items of {epoch, position}, tokenized on process 0 (which alone needs `source`), and the
    position after them. Raises ConfigurationInvalid for an item that is too long."""
    items, epoch, at = visits(seed, facts.digest, facts.size, position["epoch"], position["position"], sft.batch_size)
    record = None
    if group.process == 0:
        assert source is not None
        record = []
        for item in items:
            prompt = prompt_of(source, tokenizer, item, sft.max_prompt_tokens)
            answer = answer_tokens(source, tokenizer, item, prompt.answer, sft.max_response_tokens)
            record.append([prompt.tokens, answer])
    rows = [Row(tuple(prompt), tuple(answer)) for prompt, answer in group.broadcast(record)]
    return {"epoch": epoch, "position": at}, rows


def left(before: State, after: State, metrics: Mapping[str, float]) -> State:
    """The state in the middle of a step whose update is made and whose evaluations are not. `metrics`: the update's."""
    kept = {name: float(value).hex() for name, value in metrics.items()}
    pending = MidStep({}, {"miniBatch": 1, "selection": after.selection.plain, "metrics": kept})
    return replace(after, step=before.step, selection=before.selection, pending=pending)


def taken_up(state: State) -> tuple[State, dict[str, float]]:
    """The state after the update of a step that was left in its evaluations, and the update's metrics."""
    assert state.pending is not None, "asked of such a step"
    control = state.pending.control
    after = replace(state, step=state.step + 1, selection=SlotState(control["selection"]), pending=None)
    return after, {name: float.fromhex(value) for name, value in control["metrics"].items()}
