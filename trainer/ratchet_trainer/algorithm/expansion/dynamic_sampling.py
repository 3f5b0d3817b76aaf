"""Expansion `dynamicSampling` (DAPO, arXiv 2503.14476, section 3.2): a step goes on drawing prompts until it has as
many as it needs of which some responses are right and some are wrong.

Decides which groups a step trains on: those that an earlier step has carried over, then informative ones in the order
of their draws. Groups that are all right or all wrong, by accuracy alone, are dropped. After `maxRounds` rounds of
generation the step trains on what there is, be it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ratchet_api import expansion as api
from ratchet_trainer.algorithm import group_form
from ratchet_trainer.algorithm.expansion.none import NoExpansion
from ratchet_trainer.algorithm.group_outcomes import constant, verified
from ratchet_trainer.algorithm.slots import Context, More, Reward, SlotState
from ratchet_trainer.algorithm.types import Group, Rounds, StepSamples, grouped

COUNTS = {
    "rounds": "train/rounds",
    "right": "train/dropped_right",
    "wrong": "train/dropped_wrong",
    "surplus": "train/surplus",
}
"""Counts of the state, of the last step, and their names in the metric stream."""


class DynamicSampling(NoExpansion):
    """State: of the last step `rounds` of generation, groups dropped for being all `right` or all `wrong`, `surplus` =
    informative groups that were too many; of those that are carried over, `carried` and the arrays of `group_form`."""

    def init(self, ctx: Context) -> SlotState:
        return SlotState(dict.fromkeys(COUNTS, 0))

    def run(
        self, e: SlotState, groups: list[Group], more: More, reward: Reward, ctx: Context
    ) -> Rounds[tuple[SlotState, StepSamples]]:
        need, rounds, dropped = ctx.rl.prompts_per_step, 1, []
        kept = [replace(group, disposition=None) for group in carried(e)]
        while True:
            for group in groups:
                if (why := constant(group)) is None:
                    kept.append(group)
                else:
                    dropped.append(replace(group, disposition=why))
            if len(kept) >= need or rounds == api.max_rounds(ctx.rl):
                break
            if not (requests := more(api.prompts_per_round(ctx.rl))):
                break
            sampled = yield requests
            groups, failed = verified([reward(group) for group in grouped(requests, sampled)])
            dropped += failed
            rounds += 1
        surplus = kept[need:]
        last = ctx.step - ctx.start_step == ctx.steps  # as far as is known before: a rule may end the stage earlier
        taken = need if api.carries(ctx.rl) and not last else 0
        dropped += [replace(g, disposition="carried") for g in surplus[:taken]]
        dropped += [replace(g, disposition="dropped") for g in surplus[taken:]]
        fates = [g.disposition for g in dropped]
        counts = {"rounds": rounds, "right": fates.count("all_right"), "wrong": fates.count("all_wrong")}
        return SlotState({**counts, "surplus": len(surplus)}), StepSamples(tuple(kept[:need]), tuple(dropped))

    def keep(self, e: SlotState, carried: Sequence[Group]) -> SlotState:
        longest = max(len(r.response) for g in carried for r in g.rollouts)
        plain, arrays = group_form.written(carried, longest)
        return SlotState({**e.plain, "carried": plain}, arrays)

    def metrics(self, e: SlotState, ctx: Context) -> dict[str, float]:
        return {name: float(e.plain[count]) for count, name in COUNTS.items()}


def carried(e: SlotState) -> list[Group]:
    """The groups that the step before carried over, in the order of their draws."""
    return group_form.read(e.plain["carried"], e.arrays) if "carried" in e.plain else []
