"""Selection `uniform`: every item once an epoch, in the epoch's order; of a mixture, each data set by its weight."""

from __future__ import annotations

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Draw, Request, Rounds, StepSamples
from ratchet_trainer.data.epochs import visits
from ratchet_trainer.data.mixture import mixed_visits


class Uniform:
    """State: `accounted` = draws of the stage that have a disposition, and where the stage stands in its data: `epoch`
    and `position` = visits made in it, or, of a mixture, `drawn` = draws of each data set."""

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        at = {"drawn": [0] * len(source.parts)} if source.parts else {"epoch": 0, "position": 0}
        return SlotState({"accounted": 0, **at})

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        if source.parts:
            items, drawn = mixed_visits(ctx.seed, source.parts, s.plain["drawn"], need)
            s = s.with_plain(drawn=drawn)
        else:
            at = s.plain["epoch"], s.plain["position"]
            items, epoch, position = visits(ctx.seed, source.digest, source.size, *at, need)
            s = s.with_plain(epoch=epoch, position=position)
        requests = [
            Request(Draw(ctx.next_ordinal + i, item), Purpose.TRAIN, ctx.rl.group_size) for i, item in enumerate(items)
        ]
        return s, requests, []
        yield  # a generator that needs no round

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        return s.with_plain(accounted=s.plain["accounted"] + sum(g.disposition is not None for g in samples.groups))
