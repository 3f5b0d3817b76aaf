"""Advantage `vine`: each step of a response earns how much it raised the expected reward, which is sampled (VinePPO,
arXiv 2410.01679).

From each state, the prompt and a response up to the beginning of a step, K continuations are sampled by the policy as
it is. The mean of their rewards is the state's value, without bias and without a critic:

    V(s) = 1/K sum_k R(s + y_k),    A_j = V(s_j+1) - V(s_j),    of the last step A = r - V(s)

gamma is 1. Every token of a step earns the step's advantage. Advantages are whitened over the step's tokens, as in the
paper's code. Continuations are for values only: they are never trained on. How responses become steps is in `steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice, pairwise

import numpy as np

from ratchet_api.canonical import sha256
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.advantage.group import without_cut
from ratchet_trainer.algorithm.advantage.statistics import real_tokens, whitened
from ratchet_trainer.algorithm.advantage.steps import Text, step_starts
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.slots import Context, CriticSettings, ModelOutputs, Rewards
from ratchet_trainer.algorithm.types import Batch, Draw, Group, Request, Rollout, Rounds

State = tuple[int, str | None, tuple[int, ...]]
"""Item, edit of its prompt, and the tokens of a response so far: who share these share the value."""
UNSAID = ("timeout", "crash")
"""Of these outcomes a reward says nothing."""


def step_advantages(values: Sequence[float | None], reward: float) -> list[float]:
    """What each step of a response earns, from the values of the states that they begin in (None: not known) and the
    response's reward. What is not known is taken for what comes next, so that the step before it earns what both do.
    The sum is reward - values[0]."""
    known: list[float] = [reward]
    for value in reversed(values):
        known.append(known[-1] if value is None else value)
    known.reverse()
    return [after - before for before, after in pairwise(known)]


@dataclass(frozen=True)
class Vine:
    """`kind`, `size` and `most_steps`: how a response is split, see `steps.step_starts`. `continuations`: K. `rewards`:
    what continuations are worth, which is what responses are. `masks_cut`: as `without_cut`."""

    kind: str
    size: int
    most_steps: int
    continuations: int
    rewards: Rewards
    masks_cut: bool = False

    @property
    def penalty(self) -> Kl | None:
        return None

    @property
    def critic(self) -> CriticSettings | None:
        return None

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return (self.continuations,)

    def assign(self, groups: Sequence[Group], outputs: ModelOutputs, ctx: Context) -> Rounds[Batch]:
        assert ctx.decode is not None, "steps are of text"
        rollouts = [r for g in groups for r in g.rollouts]
        text = cache(ctx.decode)  # all responses have the same few tokens
        starts = [self.starts(r, text) for r in rollouts]
        requests = self.requests(rollouts, starts)
        sampled = iter((yield list(requests.values())))
        continued = {s: Group(asked.draw, tuple(islice(sampled, asked.n))) for s, asked in requests.items()}
        values = {state: self.value(group, ctx) for state, group in continued.items()}

        lengths, forced = (np.array(x) for x in ([len(r.response) for r in rollouts], [r.forced for r in rollouts]))
        real = real_tokens(lengths, ctx.rl.max_response_tokens, forced)
        advantages, rewards = np.zeros(real.shape), [reward for g in groups for reward in g.rewards]
        for row, (rollout, begins, reward) in enumerate(zip(rollouts, starts, rewards, strict=True)):
            earned = step_advantages([values[state_of(rollout, at)] for at in begins], reward)
            sizes = np.diff([*begins, len(rollout.response)])
            advantages[row, rollout.forced : len(rollout.response)] = np.repeat(earned, sizes)
        white = whitened(advantages, real)
        return Batch(tuple(rollouts), without_cut(white, rollouts) if self.masks_cut else white)

    def starts(self, rollout: Rollout, text: Text) -> list[int]:
        """Where the steps of a response begin."""
        return step_starts(rollout.response, rollout.forced, self.kind, self.size, self.most_steps, text)

    def requests(self, rollouts: Sequence[Rollout], starts: Sequence[Sequence[int]]) -> dict[State, Request]:
        """What is to be sampled for each state, once for all responses that share it, under the lowest ordinal of
        theirs."""
        found: dict[State, Request] = {}
        for rollout, begins in zip(rollouts, starts, strict=True):
            for at in begins:
                state, draw = state_of(rollout, at), rollout.request.draw
                if state in found:
                    ordinal = min(found[state].draw.ordinal, draw.ordinal)
                    found[state] = replace(found[state], draw=Draw(ordinal, draw.item))
                    continue
                _, edit, prefix = state
                of_prompt = rollout.trained_prompt if edit is None else rollout.prompt
                tag = int(sha256([list(of_prompt.tokens), list(prefix)])[:16], 16)
                found[state] = Request(draw, Purpose.VALUE, self.continuations, tag=tag, edit=edit, prefix=prefix)
        return found

    def value(self, group: Group, ctx: Context) -> float | None:
        """The mean reward of a state's continuations, float64, in their order; None where no verifier said anything."""
        rewards = self.rewards.score(group, ctx).rewards
        said = [reward for reward, r in zip(rewards, group.rollouts, strict=True) if r.outcome.status not in UNSAID]
        return sum(said) / len(said) if said else None

    def disposition(self, group: Group) -> Group:
        """Steps of responses that are all right or all wrong may still differ, so every group teaches."""
        return replace(group, disposition="trained")


def state_of(rollout: Rollout, at: int) -> State:
    """The state before token `at` of a response, under the prompt that it is trained on."""
    edit = None if rollout.request.train_plain else rollout.request.edit
    return rollout.request.draw.item, edit, rollout.response[:at]
