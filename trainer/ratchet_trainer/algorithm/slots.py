"""The six slots of a method: which questions an algorithm answers, and what it is given to answer them.

Decides signatures only. Answers live in `selection`, `expansion`, `rewards`, `advantage`, `objective` and `reference`;
which method takes which answer is a row in `methods`; the order in which they are asked is `run`.

Slots are deterministic functions of their arguments, so every process computes the same without a word. What they keep
is plain JSON data (or arrays, for advantage) inside `State`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.objective.drift import Kl
from ratchet_trainer.algorithm.types import Batch, Draw, Group, Request, Rounds

Plain = dict[str, Any]
Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class DataFacts:
    """What a slot may know of a data set without reading it."""

    digest: str
    size: int


@dataclass(frozen=True)
class Context:
    """Where the run stands when a slot is asked. `next_ordinal` is the first ordinal that no draw has; `start_step`,
    the step whose weights the stage started from."""

    seed: int
    step: int
    next_ordinal: int
    rl: Rl
    start_step: int = 0


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
class Judged:
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


class Selection(Protocol):
    """Which prompts?"""

    def init(self, source: DataFacts, ctx: Context) -> Plain: ...
    def plan(self, s: Plain, source: DataFacts, need: int, ctx: Context) -> Rounds[tuple[Plain, list[Request]]]: ...
    def observe(self, s: Plain, groups: Sequence[Group], ctx: Context) -> Plain:
        """Sees every drawn group, whatever its fate."""


class Expansion(Protocol):
    """What else is sampled? `more(n)` draws n further prompts."""

    def init(self, ctx: Context) -> Plain: ...
    def first(self, e: Plain, requests: list[Request], ctx: Context) -> list[Request]: ...
    def run(
        self, e: Plain, groups: list[Group], more: Callable[[int], list[Draw]], ctx: Context
    ) -> Rounds[tuple[Plain, list[Group]]]: ...


class Rewards(Protocol):
    """What is a rollout worth, in its group?"""

    def score(self, group: Group, ctx: Context) -> Group: ...


class Advantage(Protocol):
    """Which tokens earn it? `penalty` is the drift that is taken off the rewards, `critic` how values are learned."""

    @property
    def penalty(self) -> Kl | None: ...
    @property
    def critic(self) -> CriticSettings | None: ...
    def assign(self, groups: Sequence[Group], judged: Judged, ctx: Context) -> Rounds[Batch]: ...
    def fate(self, group: Group) -> Group:
        """The scored group with what became of its draw."""


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
    def after(self, metrics: dict[str, float], ctx: Context) -> str:
        """`keep`, `reset` or `reset+optimizer`, at the end of step ctx.step: whether its weights are the reference from
        now on, and whether the optimizer starts afresh."""
