"""Selection `uniform`: every item once an epoch, in the epoch's order; of a mixture, each data set by its weight."""

from __future__ import annotations

from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.selection.position import beginning, next_items
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Draw, Request, Rounds, StepSamples


class Uniform:
    """State: `accounted` = draws of the stage that have a disposition, and where the stage stands in its data
    (`position`)."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return ()

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        return SlotState({"accounted": 0, **beginning(source)})

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        items, at = next_items(ctx.seed, source, s.plain, need)
        return s.with_plain(**at), requests_for(items, ctx), []
        yield  # a generator that needs no round

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        return s.with_plain(accounted=accounted(s, samples))

    def metrics(self, s: SlotState, ctx: Context) -> dict[str, float]:
        return {}


def requests_for(items: list[int], ctx: Context, made: int = 0) -> list[Request]:
    """A group of each item, to be trained on, whose draws follow `made` others of this plan."""
    first = ctx.next_ordinal + made
    return [Request(Draw(first + i, item), Purpose.TRAIN, ctx.rl.group_size) for i, item in enumerate(items)]


def accounted(s: SlotState, samples: StepSamples) -> int:
    """Draws of the stage that have a disposition, this step's included. One that is carried over is counted once it is
    trained on or dropped."""
    before: int = s.plain["accounted"]
    return before + sum(g.disposition not in (None, "carried") for g in samples.groups)
