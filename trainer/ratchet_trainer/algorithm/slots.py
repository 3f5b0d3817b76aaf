"""The six slots of a method: which questions an algorithm answers, and what it is given to answer them.

Decides signatures only. Answers live in `selection`, `expansion`, `rewards`, `advantage`, `objective` and `reference`;
which method takes which answer is a row in `methods`; the order in which they are asked is `run`.

Slots are deterministic functions of their arguments, so every process computes the same and they need not agree. What
they keep is data and arrays inside `State`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.types import Batch, Group, Request, Rounds, StepSamples
from ratchet_trainer.data.mixture import Part

Plain = dict[str, Any]
Metrics = dict[str, jax.Array]
Decode = Callable[[Sequence[int]], str]
"""The text of tokens."""


@dataclass(frozen=True)
class DataFacts:
    """What a slot may know of a data set without reading it. `parts`: of a mixture, the data sets it is made of."""

    digest: str
    size: int
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Context:
    """Where the run stands when a slot is asked. `next_ordinal` is the first ordinal that no draw has; `start_step`,
    the step whose weights the stage started from, and `steps`, how many it makes at most; `decode`, the text of tokens
    where a slot looks at text."""

    seed: int
    step: int
    next_ordinal: int
    rl: Rl
    start_step: int = 0
    steps: int = 0
    decode: Decode | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Micro:
    """Rows that one pass of the model sees, [P, G, T] float32 unless said: what the objective weighs.

    `real` (bool) tells tokens from padding and dummies; `weight` is the share of each token in the loss (0 where none
    is; see Objective.weights). Log-probabilities: `old` under the weights that the step began with, None while these
    are the current ones; `reference` under the reference's, None without one; `behaviour` as sampled, None for sft.
    """

    advantages: jax.Array
    weight: jax.Array
    real: jax.Array
    old: jax.Array | None
    reference: jax.Array | None
    behaviour: jax.Array | None


@dataclass(frozen=True)
class ModelOutputs:
    """What the trainer's own programs say of a step's rows before a weight moves, float64[R, T] on the host, 0 where
    no token is: log-probabilities under the old policy and the reference, and the critic's values. None: not asked."""

    old: np.ndarray | None = None
    reference: np.ndarray | None = None
    values: np.ndarray | None = None


@dataclass(frozen=True)
class CriticSettings:
    """How a critic learns: a new value counts as at most `clip` away from the old one; its peak learning rate (None:
    the policy's)."""

    clip: float
    learning_rate: str | None


@dataclass(frozen=True)
class SlotState:
    """What a selection or an expansion keeps: plain JSON data, and host arrays (counts of a million items)."""

    plain: Plain = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def with_plain(self, **changes: Any) -> SlotState:
        """The state with these entries of its plain data replaced."""
        return SlotState({**self.plain, **changes}, self.arrays)


Planned = tuple[SlotState, list[Request], list[Group]]
"""The state after planning, what is to be sampled, and groups that were sampled and verified while planning. Of these,
one that has a disposition already is not trained on. Draws are numbered from ctx.next_ordinal on, without a gap."""
More = Callable[[int], list[Request]]
Reward = Callable[[Group], Group]


class Selection(Protocol):
    """Which prompts? `plan` may yield rounds of its own, to score candidates; `selection.uniform` is a short one. It is
    asked again in the same step where an expansion wants more, and then gives requests only."""

    def samples(self, rl: Rl) -> Sequence[int]:
        """How many samples of a prompt its rounds ask for, besides groupSize: what they need is compiled before."""

    def init(self, source: DataFacts, ctx: Context) -> SlotState: ...
    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]: ...
    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        """Sees every drawn group, trained on or not."""

    def metrics(self, s: SlotState, ctx: Context) -> dict[str, float]:
        """What it says of itself in the metric stream, after `observe`."""


class Expansion(Protocol):
    """What else is sampled? `first` may change the requests of draws, and make several of one. `more(n)` gives requests
    for n further prompts, `reward` scores a group that was sampled in a round. Groups come rewarded."""

    def samples(self, rl: Rl) -> Sequence[int]:
        """How many samples of a prompt its rounds ask for, besides groupSize: what they need is compiled before."""

    def init(self, ctx: Context) -> SlotState: ...
    def first(self, e: SlotState, requests: list[Request], ctx: Context) -> list[Request]: ...
    def run(
        self, e: SlotState, groups: list[Group], more: More, reward: Reward, ctx: Context
    ) -> Rounds[tuple[SlotState, StepSamples]]: ...
    def keep(self, e: SlotState, carried: Sequence[Group]) -> SlotState:
        """The state with the groups that `run` has just given the disposition `carried`, once their rollouts have
        `old_logp`. Asked where there are some; the next step's `run` has them trained on or dropped."""

    def metrics(self, e: SlotState, ctx: Context) -> dict[str, float]:
        """What it says of itself in the metric stream, after `run`."""


class RewardPart(Protocol):
    """One part of what a rollout is worth, in its group; the reward is the weighted sum of the parts."""

    @property
    def name(self) -> str: ...

    def of(self, group: Group, ctx: Context) -> Sequence[float]:
        """One number a rollout."""


class Rewards(Protocol):
    """What is a rollout worth, in its group?"""

    def score(self, group: Group, ctx: Context) -> Group: ...


class Advantage(Protocol):
    """Which tokens earn it? `penalty` is the drift that is taken off the rewards, `critic` how values are learned.
    `assign` may yield rounds of its own, to sample values (VALUE requests with a prefix)."""

    @property
    def penalty(self) -> Kl | None: ...
    @property
    def critic(self) -> CriticSettings | None: ...
    def samples(self, rl: Rl) -> Sequence[int]:
        """How many samples of a prefix its rounds ask for: what they need is compiled before."""

    def assign(self, groups: Sequence[Group], outputs: ModelOutputs, ctx: Context) -> Rounds[Batch]: ...
    def disposition(self, group: Group) -> Group:
        """The scored group, which is trained on, with what became of its draw."""


class Objective(Protocol):
    """How is the policy moved?

    `loss(log_probs, entropy, micro, settings)` gives the scalar to be minimized, as this micro's share of the sum, and
    sums over its tokens to be reported, from log_probs and entropy [P, G, T] of the new policy. It is hashable: what
    shapes a program is in it, the numbers are in `settings`.
    """

    @property
    def loss(self) -> Callable[[jax.Array, jax.Array, Micro, Metrics], tuple[jax.Array, Metrics]]: ...
    def weights(self, lengths: np.ndarray, slots: int) -> np.ndarray:
        """The share of each token in a mini-batch's loss, float64[R, T], from the whole mini-batch's response lengths
        int[R] (0 = dummy), on the host: no micro-batch, device or dummy changes a denominator."""

    def settings(self) -> dict[str, float]:
        """The numbers that `loss` needs; they are arguments of the compiled program, so changing them compiles
        nothing."""


class Reference(Protocol):
    """Against what is drift measured? `init` gives the weights to keep for a stage that begins with `params`."""

    def init(self, params: Any) -> Any | None: ...
    def after(self, window: Plain, metrics: dict[str, float], ctx: Context) -> tuple[Plain, str]:
        """At the end of step ctx.step: what it keeps of the metrics from now on ({} at the stage's start), and `keep`,
        `reset` or `reset+optimizer`: whether the step's weights are the reference from now on, and whether the
        optimizer starts afresh."""
