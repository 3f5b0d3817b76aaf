"""The updates of a step: what one mini-batch does to the models, and how long one takes.

Decides who is updated by which mini-batch and with which numbers. In which order they come, and where a process may
leave between them, is `run`'s matter.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ratchet_trainer.errors import OldPolicyMismatch
from ratchet_trainer.learning import optimizer
from ratchet_trainer.step import nonfinite
from ratchet_trainer.step.old_logprobs import MiniBatch
from ratchet_trainer.step.pending import Pending
from ratchet_trainer.step.state import State

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Stage

REMEMBERED = 8
"""Mini-batches whose times are looked at."""


def learn(stage: Stage, runtime: Runtime, state: State, pending: Pending, part: MiniBatch) -> tuple[State, Pending]:
    """State and step after one mini-batch, whose arrays are used up. A critic learns from every one, the policy only
    where there is anything to learn: a zero gradient would still move the weights under Adam."""
    pending = replace(pending, done=pending.done + 1)
    if pending.values is not None:
        state, pending = _critic(stage, runtime, state, pending, part)
    if not pending.batch.advantages[part.place].any():
        return state, pending
    return _policy(stage, runtime, state, pending, part)


def _critic(stage: Stage, runtime: Runtime, state: State, pending: Pending, part: MiniBatch) -> tuple[State, Pending]:
    learnt = pending.values
    assert learnt is not None
    assert pending.batch.values is not None
    assert pending.batch.returns is not None
    settings = stage.method.advantage.critic
    assert settings is not None
    shown = {"values": pending.batch.values[part.place], "returns": pending.batch.returns[part.place]}
    critic, found = stage.programs.critic.update(
        state.critic,
        stage.layout_of(part.rows),
        part.rows,
        shown["values"],
        shown["returns"],
        settings.clip,
        stage.critic_numbers((state.step - state.stage.start_step) * stage.rl.updates_per_step + len(learnt)),
    )
    state = replace(state, critic=critic)
    if nonfinite.problem(found):
        nonfinite.skip_or_fail(stage, runtime, state.step + 1, "critic", found, part.rows, shown)
        return state, pending
    return state, replace(pending, values=(*learnt, found))


def _policy(stage: Stage, runtime: Runtime, state: State, pending: Pending, part: MiniBatch) -> tuple[State, Pending]:
    rl = stage.rl
    advantages = pending.batch.advantages[part.place]
    params, moments, found = stage.programs.learner.update(
        state.params,
        state.optimizer,
        stage.layout_of(part.rows),
        part.rows,
        advantages,
        part.old,
        float(rl.temperature),
        stage.method.objective,
        optimizer.numbers(stage.optimizer, state.updates - state.stage.updates_at_start),
        part.reference,
    )
    state = replace(state, params=params, optimizer=moments)
    if nonfinite.problem(found):
        nonfinite.skip_or_fail(stage, runtime, state.step + 1, "policy", found, part.rows, {"advantages": advantages})
        return state, pending
    limit = stage.programs.policy.how.old_gap_limit
    apart = not pending.updates and found.get("old_gap", 0.0) > limit
    if apart and all(r.old_logp is None for r in pending.samples.rollouts[part.place]):
        raise OldPolicyMismatch(
            f"step {state.step + 1}: old and new log-probabilities of the same weights differ by "
            f"{found['old_gap']:.1e}, more than {limit:.0e}"
        )
    found |= {"tokens": float(sum(len(row.response) - row.forced for row in part.rows))}
    return replace(state, updates=state.updates + 1), replace(pending, updates=(*pending.updates, found))


class Pace:
    """How long the mini-batches of a stage take in this attempt."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=REMEMBERED)

    def took(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def of(self, parts: Sequence[Any]) -> float:
        """Seconds that so many more will take if each takes as long as the longest so far. The first may have compiled:
        it is left out where there are others. Infinitely many while nothing is known."""
        return len(parts) * max(self._known, default=float("inf"))

    def outlasts(self, seconds: float) -> bool:
        """Whether a mini-batch has taken longer than that: nobody can leave in the middle of one."""
        return max(self._known, default=0.0) > seconds

    @property
    def _known(self) -> list[float]:
        return list(self._seconds)[1:] or list(self._seconds)
