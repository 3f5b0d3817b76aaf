"""Expansion `templates` (TemplateRL, arXiv 2505.15692): the responses to a prompt are shared out among templates, each
of which puts the question in its own way.

Decides who answers what: with k templates, each gets groupSize / k responses of every draw, in the order of the
manifest. Prompts are trained on as they were shown; the reward stays the verifier's. Whether a response is compared
with all of its draw or with those of its template is the advantage's matter (`advantage.group`).
"""

from __future__ import annotations

from dataclasses import replace

from ratchet_api import expansion as api
from ratchet_trainer.algorithm.expansion.none import NoExpansion
from ratchet_trainer.algorithm.slots import Context, More, Reward, SlotState
from ratchet_trainer.algorithm.types import Group, Request, Rounds, StepSamples


class Templates(NoExpansion):
    """State: of the last step, `right` and `answered` responses of each template."""

    def init(self, ctx: Context) -> SlotState:
        return SlotState({"right": [0] * len(api.templates(ctx.rl)), "answered": [0] * len(api.templates(ctx.rl))})

    def first(self, e: SlotState, requests: list[Request], ctx: Context) -> list[Request]:
        n = api.responses_of_a_prompt(ctx.rl)
        return [
            replace(request, n=n, first=i * n, tag=i + 1, edit=f"template:{template.text}")
            for request in requests
            for i, template in enumerate(api.templates(ctx.rl))
        ]

    def run(
        self, e: SlotState, groups: list[Group], more: More, reward: Reward, ctx: Context
    ) -> Rounds[tuple[SlotState, StepSamples]]:
        right, answered = [0] * len(api.templates(ctx.rl)), [0] * len(api.templates(ctx.rl))
        for rollout in (r for group in groups for r in group.rollouts):
            right[rollout.request.tag - 1] += rollout.outcome.accuracy == 1.0
            answered[rollout.request.tag - 1] += 1
        return e.with_plain(right=right, answered=answered), StepSamples(tuple(groups))
        yield  # a generator that needs no round

    def metrics(self, e: SlotState, ctx: Context) -> dict[str, float]:
        counts = zip(api.templates(ctx.rl), e.plain["right"], e.plain["answered"], strict=True)
        return {f"template/{template.name}/accuracy": right / max(1, of) for template, right, of in counts}
