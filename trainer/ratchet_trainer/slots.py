"""The six slots of a method: which questions an algorithm answers, and what it is given to answer them.

Decides signatures only. Answers live in `selection`, `expansion`, `rewards`, `credit`, `objective` and `reference`;
which method takes which answer is a row in `methods`; the order in which they are asked is `run`.

Slots are deterministic functions of their arguments, so every process computes the same without a word. What they keep
is plain JSON data (or arrays, for credit) inside `State`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from ratchet_api.stages import Rl
from ratchet_trainer.rollout.types import Batch, Draw, Group, Request, Rounds

Plain = dict[str, Any]
Metrics = dict[str, jax.Array]


@dataclass(frozen=True)
class DataFacts:
    """What a slot may know of a data set without reading it."""

    digest: str
    size: int


@dataclass(frozen=True)
class Context:
    """Where the run stands when a slot is asked. `next_ordinal` is the first ordinal that no draw has."""

    seed: int
    step: int
    next_ordinal: int
    rl: Rl


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Micro:
    """Rows that one pass of the model sees, [P, G, T] float32 unless said: what the objective weighs.

    `old` is the log-probability under the weights that the step began with, None while these are the current ones;
    `weight` is the share of each token in the loss (0 for dummies and after the end; see Objective.weights).
    """

    advantages: jax.Array
    weight: jax.Array
    old: jax.Array | None


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


class Credit(Protocol):
    """Which tokens earn it?"""

    def assign(self, groups: Sequence[Group], ctx: Context) -> Rounds[Batch]: ...
    def fate(self, group: Group) -> Group:
        """The scored group with what became of its draw."""


class Objective(Protocol):
    """How is the policy moved?"""

    def weights(self, lengths: np.ndarray, slots: int) -> np.ndarray:
        """The share of each token in a mini-batch's loss, float64[R, T], from the whole mini-batch's response lengths
        int[R] (0 = dummy), on the host: no micro-batch, device or dummy changes a denominator."""

    def loss(self, log_probs: jax.Array, micro: Micro, settings: Metrics) -> tuple[jax.Array, Metrics]:
        """The scalar to be minimised, as this micro's share of the sum, from log_probs [P, G, T] of the new policy."""

    def settings(self) -> dict[str, float]:
        """The numbers that `loss` needs; they are arguments of the compiled program, so changing them compiles
        nothing."""


class Reference(Protocol):
    """Against what is drift measured?"""

    def after(self, metrics: dict[str, float], ctx: Context) -> str:
        """`keep`, `reset` or `reset+optimiser`, at the end of a step."""
