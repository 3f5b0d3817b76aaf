"""Selection `learnability` without a buffer (LILO, arXiv 2502.12272v6): in every step candidates are answered, and the
step trains on those whose answers are nearest to half right.

Decides which candidates there are and what becomes of them. A chosen candidate is answered anew to be trained on, under
the same draw; with `reuse` its scored group is. That the scores chose it makes a reused group look nearer to half right
than its prompt is. A candidate that is not chosen is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ratchet_api import selection as api
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.selection.position import beginning, next_items
from ratchet_trainer.algorithm.selection.scores import most_learnable
from ratchet_trainer.algorithm.selection.uniform import accounted
from ratchet_trainer.algorithm.slots import Context, DataFacts, Planned, SlotState
from ratchet_trainer.algorithm.types import Draw, Request, Rounds, StepSamples, grouped

NAME = "/scored"
"""Candidates go through the data in an order of their own."""


class Learnability:
    """State: `accounted`, the candidates' `position` in the data, `step` = the last one that was planned, and `scored`
    = responses that its candidates were scored by."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return (api.rollouts(rl),)

    def init(self, source: DataFacts, ctx: Context) -> SlotState:
        return SlotState({"accounted": 0, "candidates": beginning(source), "step": 0, "scored": 0})

    def plan(self, s: SlotState, source: DataFacts, need: int, ctx: Context) -> Rounds[Planned]:
        further = s.plain["step"] == ctx.step  # an expansion asks for more; it can take requests only
        count = -(-api.candidates(ctx.rl) * need // ctx.rl.prompts_per_step)
        items, at = next_items(ctx.seed, source, s.plain["candidates"], count, NAME)
        asked = score_requests(items, ctx)
        groups = grouped(asked, (yield asked))
        scored = sum(request.n for request in asked) + (s.plain["scored"] if further else 0)
        s = s.with_plain(candidates=at, step=ctx.step, scored=scored)
        ranked = most_learnable(groups, api.rollouts(ctx.rl))
        chosen = sorted(ranked[:need], key=lambda g: g.draw.ordinal)
        rest = [replace(g, disposition="dropped") for g in ranked[need:]]
        if api.reuse(ctx.rl) and not further:
            return s, [], [*chosen, *rest]
        return s, [Request(g.draw, Purpose.TRAIN, ctx.rl.group_size) for g in chosen], rest

    def observe(self, s: SlotState, samples: StepSamples, ctx: Context) -> SlotState:
        return s.with_plain(accounted=accounted(s, samples))

    def metrics(self, s: SlotState, ctx: Context) -> dict[str, float]:
        return {"train/scored_rollouts": float(s.plain["scored"])}


def score_requests(items: Sequence[int], ctx: Context) -> list[Request]:
    """Candidates to be answered, with the first draws of a plan."""
    n = api.rollouts(ctx.rl)
    return [Request(Draw(ctx.next_ordinal + i, item), Purpose.SCORE, n) for i, item in enumerate(items)]
