"""The words in which slots ask for rollouts and get them back.

Decides no behavior. Slots yield *rounds* of requests and receive verified rollouts in request order; where rollouts are
made is the engine's matter (`rollout.engine`). A slot that asks for two more samples of each draw:

    def run(self, s, groups, more, reward, ctx):
        rollouts = yield [Request(g.draw, Purpose.HINT, 2, first=len(g.rollouts)) for g in groups]
        ...
        return s, StepSamples(trained, dropped)
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.outcome import Finish, Outcome
from ratchet_trainer.data.prompt import Prompt

__all__ = [
    "Batch",
    "Draw",
    "Finish",
    "Group",
    "Outcome",
    "Prompt",
    "Request",
    "Rollout",
    "Rounds",
    "StepSamples",
    "grouped",
]

Disposition = Literal["trained", "all_right", "all_wrong", "carried", "dropped", "failed"]


@dataclass(frozen=True)
class Draw:
    """One visit of one prompt. `ordinal` counts visits over the whole run and is never reused; `item` is the item's
    id."""

    ordinal: int
    item: int


@dataclass(frozen=True)
class Request:
    """`n` samples for a draw, numbered from `first`. `tag` tells kinds of samples of one draw apart (0 = plain).

    `edit` names a change of the prompt (a hint's level, a template), which process 0 renders (`data.edits`); with
    `train_plain` what is sampled from the changed prompt is trained on the plain one. `prefix`: response tokens that
    the samples go on from. `max_new`: most tokens of a response, where that is less than the stage's limit (0: that).
    """

    draw: Draw
    purpose: Purpose
    n: int
    first: int = 0
    tag: int = 0
    edit: str | None = None
    train_plain: bool = False
    prefix: tuple[int, ...] = ()
    max_new: int = 0


@dataclass(frozen=True)
class Rollout:
    """One response, verified.

    `prompt` is what it was sampled from, `trained_prompt` what it is trained on. `response` holds its tokens, with the
    end token or stop string that it ends with; the first `forced` of them are the request's prefix and are not trained
    on. Of the response's length, float32: `behaviour_logp` as sampled, truncation included, and `entropy` the policy's,
    both 0 where forced. `version` is the step whose weights sampled it; `old_logp`, float32 likewise, what the
    trainer's program said under these weights, of a rollout that was carried over from an earlier step (None: of this
    one).
    """

    request: Request
    prompt: Prompt
    trained_prompt: Prompt
    sample: int
    response: tuple[int, ...]
    behaviour_logp: np.ndarray
    entropy: np.ndarray
    version: int
    finish: Finish
    outcome: Outcome
    forced: int = 0
    old_logp: np.ndarray | None = None


@dataclass(frozen=True)
class Group:
    """All rollouts of one draw. `rewards` and `parts` (name of a part -> its value for each rollout) are filled by the
    rewards slot; `disposition` says what became of the draw; `replaced`: first rollouts that others stand for now,
    which are not trained on, and `first_rewards` and `first_parts` what the first rollouts earned (empty while none is
    replaced)."""

    draw: Draw
    rollouts: tuple[Rollout, ...]
    rewards: tuple[float, ...] = ()
    parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    disposition: Disposition | None = None
    replaced: tuple[Rollout, ...] = ()
    first_rewards: tuple[float, ...] = ()
    first_parts: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def informative(self) -> bool:
        """Whether its rewards differ."""
        return max(self.rewards) > min(self.rewards)


@dataclass(frozen=True)
class StepSamples:
    """What a step sampled: every drawn group is in exactly one of the two."""

    trained: tuple[Group, ...]
    dropped: tuple[Group, ...] = ()

    @property
    def groups(self) -> tuple[Group, ...]:
        """All of them, in the order of their draws."""
        return tuple(sorted((*self.trained, *self.dropped), key=lambda group: group.draw.ordinal))

    @property
    def rollouts(self) -> tuple[Rollout, ...]:
        """Those that are trained on, in order."""
        return tuple(r for group in self.trained for r in group.rollouts)


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


def grouped(requests: Sequence[Request], rollouts: Sequence[Rollout]) -> list[Group]:
    """Rollouts, which come in request order, as one group a draw, whose requests are neighbours."""
    groups: list[Group] = []
    at = 0
    for request in requests:
        made = tuple(rollouts[at : at + request.n])
        if groups and groups[-1].draw == request.draw:
            groups[-1] = Group(request.draw, (*groups[-1].rollouts, *made))
        else:
            groups.append(Group(request.draw, made))
        at += request.n
    return groups
