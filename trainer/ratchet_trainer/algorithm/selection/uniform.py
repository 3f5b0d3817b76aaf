"""Selection `uniform`: every item once an epoch, in the epoch's order."""

from __future__ import annotations

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Draw, Request, Rounds, StepSamples
from ratchet_trainer.data.epochs import visits


class Uniform:
    """State: `epoch`, `position` = visits made in it, `accounted` = draws of the stage that have a disposition."""

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        return SlotState({"epoch": 0, "position": 0, "accounted": 0})

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        at = s.plain["epoch"], s.plain["position"]
        items, epoch, position = visits(ctx.seed, source.digest, source.size, *at, need)
        requests = [
            Request(Draw(ctx.next_ordinal + i, item), Purpose.TRAIN, ctx.rl.group_size) for i, item in enumerate(items)
        ]
        return s.with_plain(epoch=epoch, position=position), requests, []
        yield  # a generator that needs no round

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        return s.with_plain(accounted=s.plain["accounted"] + sum(g.disposition is not None for g in samples.groups))
