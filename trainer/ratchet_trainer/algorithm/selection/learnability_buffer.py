"""Selection `learnability` with a buffer (SFL, arXiv 2502.12272v1): every so many steps candidates are answered, the
most learnable items are kept, and a share of each step's prompts comes from them.

Decides when the buffer is filled and which prompts come from it: in each step it is shuffled anew and taken from
without replacement. The other prompts are drawn as in `uniform`, so an item may come twice. All candidates are dropped:
what is trained on is answered anew, with the weights of then.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from ratchet_api import selection as api
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.selection.learnability import NAME, score_requests
from ratchet_trainer.algorithm.selection.position import beginning, next_items
from ratchet_trainer.algorithm.selection.scores import most_learnable
from ratchet_trainer.algorithm.selection.uniform import accounted, requests_for
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Group, Rounds, StepSamples, grouped
from ratchet_trainer.data.epochs import visits
from ratchet_trainer.data.mixture import schedule


class LearnabilityBuffer:
    """State: as `Learnability`'s, the `position` of the uniform draws, and `taken` = [shuffles, visits in the last] of
    the buffer in step `step`. Array `buffer` int64[K]: its items, most learnable first."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return (api.rollouts(rl),)

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        own = {"candidates": beginning(source), "step": 0, "scored": 0, "taken": [0, 0]}
        return SlotState({"accounted": 0, **beginning(source), **own})

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        every, size, share = api.buffer(ctx.rl)
        dropped: list[Group] = []
        if s.plain["step"] != ctx.step:  # else an expansion asks for more
            s = s.with_plain(step=ctx.step, scored=0, taken=[0, 0])
            if (ctx.step - ctx.start_step - 1) % every == 0:
                items, at = next_items(ctx.seed, source, s.plain["candidates"], api.candidates(ctx.rl), NAME)
                asked = score_requests(items, ctx)
                groups = grouped(asked, (yield asked))
                s = s.with_plain(candidates=at, scored=sum(request.n for request in asked))
                s = SlotState(s.plain, {"buffer": kept(groups, api.rollouts(ctx.rl), size)})
                dropped = [replace(g, disposition="dropped") for g in groups]
        own, others = split(need, share)
        buffer = s.arrays["buffer"]
        name = f"{source.digest}/buffer/{ctx.step}"
        epoch, position = s.plain["taken"]
        places, *taken = visits(ctx.seed, name, len(buffer), epoch, position, own)
        uniform, at = next_items(ctx.seed, source, s.plain, others)
        items = interleaved([int(buffer[place]) for place in places], uniform)
        return s.with_plain(taken=taken, **at), requests_for(items, ctx, len(dropped)), dropped

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        return s.with_plain(accounted=accounted(s, samples))

    def metrics(self, s: SlotState, ctx: Context) -> dict[str, float]:
        return {"train/scored_rollouts": float(s.plain["scored"])}


def kept(groups: list[Group], rollouts: int, size: int) -> np.ndarray:
    """The items of the `size` most learnable groups, each once, int64[K]; fewer where there are no more items."""
    items = [group.draw.item for group in most_learnable(groups, rollouts)]
    return np.array(list(dict.fromkeys(items))[:size], np.int64)


def split(need: int, share: Fraction) -> tuple[int, int]:
    """How many of a batch come from the buffer, rounded down, and how many do not; together they are the batch."""
    own = int(share * need)
    return own, need - own


def interleaved(some: list[int], others: list[int]) -> list[int]:
    """Both lists in one, evenly: a mini-batch of the step gets its part of each."""
    if not some or not others:
        return [*some, *others]
    waiting = iter(some), iter(others)
    return [next(waiting[which]) for which in schedule([len(some), len(others)], [0, 0], len(some) + len(others))]
