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
    from ratchet_trainer.run import Run

REMEMBERED = 8
"""Mini-batches whose times are looked at."""


def learn(run: Run, state: State, pending: Pending, part: MiniBatch) -> tuple[State, Pending]:
    """State and step after one mini-batch, whose arrays are used up. A critic learns from every one, the policy only
    where there is anything to learn: a zero gradient would still move the weights under Adam."""
    pending = replace(pending, done=pending.done + 1)
    if pending.values is not None:
        state, pending = _critic(run, state, pending, part)
    if not pending.batch.advantages[part.place].any():
        return state, pending
    return _policy(run, state, pending, part)


def _critic(run: Run, state: State, pending: Pending, part: MiniBatch) -> tuple[State, Pending]:
    stage, learnt = run.stage, pending.values
    assert learnt is not None
    assert pending.batch.values is not None
    assert pending.batch.returns is not None
    settings = stage.method.advantage.critic
    assert settings is not None
    shown = {"values": pending.batch.values[part.place], "returns": pending.batch.returns[part.place]}
    critic, found = run.programs.critic.update(
        state.critic,
        stage.layout,
        part.rows,
        shown["values"],
        shown["returns"],
        settings.clip,
        stage.critic_numbers((state.step - state.stage.start_step) * stage.rl.updates_per_step + len(learnt)),
    )
    state = replace(state, critic=critic)
    if nonfinite.problem(found):
        nonfinite.skip_or_fail(run, "critic", found, part.rows, shown)
        return state, pending
    return state, replace(pending, values=(*learnt, found))


def _policy(run: Run, state: State, pending: Pending, part: MiniBatch) -> tuple[State, Pending]:
    stage, rl = run.stage, run.stage.rl
    advantages = pending.batch.advantages[part.place]
    params, moments, found = run.programs.learner.update(
        state.params,
        state.optimizer,
        stage.layout,
        part.rows,
        advantages,
        part.old,
        float(rl.temperature),
        stage.method.objective,
        optimizer.numbers(rl.optimizer, state.updates - state.stage.updates_at_start),
        part.reference,
    )
    state = replace(state, params=params, optimizer=moments)
    if nonfinite.problem(found):
        nonfinite.skip_or_fail(run, "policy", found, part.rows, {"advantages": advantages})
        return state, pending
    limit = run.programs.policy.how.old_gap_limit
    if not pending.updates and found.get("old_gap", 0.0) > limit:
        raise OldPolicyMismatch(
            f"step {state.step + 1}: old and new log-probabilities of the same weights differ by "
            f"{found['old_gap']:.1e}, more than {limit:.0e}"
        )
    found |= {"tokens": float(sum(len(row.response) for row in part.rows))}
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
        known = list(self._seconds)[1:] or list(self._seconds)
        return len(parts) * max(known, default=float("inf"))
