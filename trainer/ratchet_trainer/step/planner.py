"""Planning: the turn of a step selects the prompts of every step that is due, and has them sampled.

Decides the order alone: each step is planned to its end before the next one, so that what arrives when moves nothing
(decision 0038). What a plan is, and how far behind it is sampled, is in `plans`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ratchet_api.expansion import prompts_per_round
from ratchet_trainer.algorithm.slots import Context, SlotState
from ratchet_trainer.step.plans import Plan
from ratchet_trainer.step.sampling_weights import SamplingWeights, Version

if TYPE_CHECKING:
    from ratchet_trainer.step.stage import Stage
    from ratchet_trainer.step.state import State


class Planner:
    """Plans the steps of one stage, in one attempt. All methods are *collective*."""

    def __init__(self, stage: Stage, weights: SamplingWeights):
        self._stage, self._weights = stage, weights
        self._sent: set[int] = set()  # steps whose first round is being sampled

    def plan(self, state: State, ctx: Context) -> tuple[SlotState, list[Plan], int]:
        """Plans every step that is due and has it sampled: the selection after it, the plans from this step's on, and
        how many draws the new ones have. Raises Drain."""
        method, engine, facts, lag = self._stage.method, self._stage.engine, self._stage.facts, self._stage.rl.lag
        now, need = self._weights.now(state), prompts_per_round(self._stage.rl)
        selection, plans, drawn = state.selection, list(state.planned), 0
        for plan in plans if lag else ():  # what an attempt before has planned, and perhaps not had answered
            self._send_ahead(plan, self._weights.of(plan, state))
        first = plans[-1].step + 1 if plans else ctx.step
        for step in range(first, min(ctx.step + lag, ctx.start_step + ctx.steps) + 1):
            at = replace(ctx, step=step, next_ordinal=state.next_ordinal + drawn)
            engine.bind(step, now.digest, "plan")
            planning = method.selection.plan(selection, facts, need, at)
            selection, requests, ready = engine.answer(planning, now.params, now.version)
            drawn += len(requests) + len(ready)
            requests = method.expansion.first(state.expansion, requests, at)
            plans.append(Plan(step, tuple(requests), now.version, now.digest, tuple(ready)))
            if lag:
                self._send_ahead(plans[-1], now)
        return selection, plans, drawn

    def _send_ahead(self, plan: Plan, sampler: Version) -> None:
        """Has the first round of a step sampled, once an attempt."""
        if plan.requests and plan.step not in self._sent:
            self._sent.add(plan.step)
            self._stage.engine.bind(plan.step, sampler.digest, "first")
            self._stage.engine.ahead(plan.requests, sampler.params)
