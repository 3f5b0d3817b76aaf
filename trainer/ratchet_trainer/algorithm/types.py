"""The words in which slots ask for rollouts and get them back.

Decides no behaviour. Slots yield *rounds* of requests and receive verified rollouts in request order; where rollouts
are made is the engine's matter (`requests`).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.data.prompt import Prompt


@dataclass(frozen=True)
class Draw:
    """One visit of one prompt. `ordinal` counts visits over the whole run and is never reused; `item` is the item's
    id."""

    ordinal: int
    item: int


@dataclass(frozen=True)
class Request:
    """`n` samples for a draw, numbered from `first`. `tag` tells kinds of samples of one draw apart (0 = plain).
    `max_new`: most tokens of a response, where that is less than the stage's limit (0: that)."""

    draw: Draw
    purpose: Purpose
    n: int
    first: int = 0
    tag: int = 0
    max_new: int = 0


@dataclass(frozen=True)
class Outcome:
    """A verifier's judgement. `accuracy` = [score >= threshold]; `pure` = the same response always gets the same."""

    accuracy: float
    score: float
    parts: dict[str, float] = field(default_factory=dict)
    status: Literal["ok", "timeout", "crash", "unparsable"] = "ok"
    pure: bool = True


@dataclass(frozen=True)
class Rollout:
    """One response, judged.

    `response` holds its tokens, with the end token or stop string that it ends with; of that length, float32,
    `behaviour_logp` is as sampled, truncation included, and `entropy` the policy's. `version` is the step whose weights
    sampled it.
    """

    request: Request
    prompt: Prompt
    sample: int
    response: tuple[int, ...]
    behaviour_logp: np.ndarray
    entropy: np.ndarray
    version: int
    finish: Literal["end", "stop", "length"]
    outcome: Outcome


@dataclass(frozen=True)
class Group:
    """All rollouts of one draw. `rewards` is filled by the rewards slot; `fate` says what became of the draw."""

    draw: Draw
    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...] = ()
    fate: Literal["trained", "all_right", "all_wrong", "failed"] | None = None


@dataclass(frozen=True)
class Batch:
    """What a step trains on: rows in draw order, with an advantage for each token, float64[R, T]; for a critic the
    `returns` that it is to expect and the `values` that it did, likewise."""

    rollouts: tuple[Rollout, ...]
    advantages: np.ndarray
    returns: np.ndarray | None = None
    values: np.ndarray | None = None


R = TypeVar("R")
Rounds = Generator[Sequence[Request], Sequence[Rollout], R]
