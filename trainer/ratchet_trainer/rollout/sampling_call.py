"""One call of the sampler as plain data: all that decides its responses but the weights and the program.

Decides which requests share a call, and what it is named by. Where it is made, by this process or by a worker of a
fleet, is the matter of whoever has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from ratchet_api.canonical import sha256
from ratchet_trainer.algorithm.types import Request

if TYPE_CHECKING:
    from ratchet_trainer.rollout.sampler import Sampled


@dataclass(frozen=True)
class SamplingCall:
    """`samples` responses to each prompt, numbered from `first`. Of each prompt: its tokens, the ordinal of its draw,
    its tag, and the most tokens of its responses; `name` tells it from the other calls of its step. `prompt_slots`:
    room for a prompt."""

    name: str
    purpose: int
    samples: int
    first: int
    prompt_slots: int
    prompts: tuple[tuple[int, ...], ...]
    ordinals: tuple[int, ...]
    tags: tuple[int, ...]
    limits: tuple[int, ...]


Round = Literal["plan", "first", "later"]
"""Rounds of a step: those that are asked while it is planned, its first one, and what its slots ask afterwards."""
Here = Callable[[SamplingCall], "Sampled"]
"""Makes a call in this process. *Collective.*"""


class Elsewhere(Protocol):
    """Where a stage's calls are made if not one after the other by whoever asks. All methods are *collective*."""

    def bind(self, step: int, weights: str, rounds: Round) -> None:
        """Calls from here on are of this step and these rounds, and are made with the weights of that digest."""

    def send(self, calls: Sequence[SamplingCall], here: Here) -> None:
        """Has calls made whose responses are asked for later. `here` makes one in this process, where nobody else
        does."""

    def responses(self, calls: Sequence[SamplingCall], here: Here) -> list[Sampled]:
        """The responses of calls, sent before or not. Raises Drain while it waits for them."""


def calls_of(
    requests: Sequence[Request],
    prompts: Sequence[tuple[int, ...]],
    slots: Sequence[int],
    limits: Sequence[int],
    most: int | None,
) -> Iterator[tuple[list[int], SamplingCall]]:
    """The calls of a round, each with the places of its requests: those with the same samples, purpose and slots, in
    their order, at most so many. `prompts`, `slots` and `limits`: of each request."""
    alike: dict[tuple[int, int, int, int], list[int]] = {}
    for i, r in enumerate(requests):
        alike.setdefault((r.n, r.first, int(r.purpose), slots[i]), []).append(i)
    for (samples, first, purpose, prompt_slots), places in alike.items():
        step = most or len(places)
        for start in range(0, len(places), step):
            some = places[start : start + step]
            own = [requests[i] for i in some]
            yield (
                some,
                SamplingCall(
                    name_of(own),
                    purpose,
                    samples,
                    first,
                    prompt_slots,
                    tuple(tuple(prompts[i]) for i in some),
                    tuple(r.draw.ordinal for r in own),
                    tuple(r.tag for r in own),
                    tuple(limits[i] for i in some),
                ),
            )


def name_of(requests: Sequence[Request]) -> str:
    """What tells the calls of one step apart."""
    return ",".join(
        f"{r.purpose}:{r.draw.ordinal}:{r.tag}:{r.first}+{r.n}:{r.max_new}:{r.edit or ''}:"
        f"{sha256(list(r.prefix))[:16] if r.prefix else 0}"
        for r in requests
    )
