"""Selection `uniform`: every item once an epoch, in the epoch's order."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.slots import Context, DataFacts, Plain
from ratchet_trainer.algorithm.types import Draw, Group, Request, Rounds
from ratchet_trainer.data.epochs import visits


class Uniform:
    """State: `epoch`, `position` = visits made in it, `accounted` = draws of the stage whose group got a fate."""

    def init(self, source: DataFacts, ctx: Context) -> Plain:
        return {"epoch": 0, "position": 0, "accounted": 0}

    def plan(self, s: Plain, source: DataFacts, need: int, ctx: Context) -> Rounds[tuple[Plain, list[Request]]]:
        items, epoch, position = visits(ctx.seed, source.digest, source.size, s["epoch"], s["position"], need)
        requests = [
            Request(Draw(ctx.next_ordinal + i, item), Purpose.TRAIN, ctx.rl.group_size) for i, item in enumerate(items)
        ]
        return s | {"epoch": epoch, "position": position}, requests
        yield  # a generator that needs no round

    def observe(self, s: Plain, groups: Sequence[Group], ctx: Context) -> Plain:
        return s | {"accounted": s["accounted"] + sum(g.fate is not None for g in groups)}
