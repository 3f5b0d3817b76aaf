"""Expansion `hints` (Scaf-GRPO, arXiv 2510.19807, algorithm 1): a prompt that fails whole is asked again with hints,
from the least to the most, and the first right answer takes the place of one wrong one.

Decides when hints are given: after the exemption, to groups without a right response, by accuracy alone. The hinted
prompt is what its response is sampled from and trained on, so it stands above and below in the ratio. A group that no
hint helps stays as it is; while no group fails whole this is no expansion at all, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from ratchet_api import expansion as api
from ratchet_api.stages import Rl
from ratchet_trainer.algorithm.expansion.none import NoExpansion
from ratchet_trainer.algorithm.group_outcomes import constant
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.slots import Context, More, Reward, SlotState
from ratchet_trainer.algorithm.types import Group, Request, Rollout, Rounds, StepSamples
from ratchet_trainer.data import hints


class Hints(NoExpansion):
    """State: `exempt` = the last step of the stage without hints; with `trueHard`, `lowest` = the lowest share of
    prompts that failed whole (float.hex) and `since` = steps after it. Of the last step: `groups` that it had, `failed`
    = those that were asked again, `sampled` responses with hints, and `hinted` = groups that each level helped."""

    def samples(self, rl: Rl) -> tuple[int, ...]:
        return (1,)

    def init(self, ctx: Context) -> SlotState:
        own = {"exempt": api.exempt_steps(ctx.rl, ctx.steps), "lowest": None, "since": 0}
        return SlotState({**own, "groups": 0, "failed": 0, "sampled": 0, "hinted": [0] * api.levels(ctx.rl)})

    def run(
        self, e: SlotState, groups: list[Group], more: More, reward: Reward, ctx: Context
    ) -> Rounds[tuple[SlotState, StepSamples]]:
        step = ctx.step - ctx.start_step
        wrong = [group for group in groups if constant(group) == "all_wrong"]
        helped: dict[int, Rollout] = {}  # ordinal of a draw -> its first right response with a hint
        sampled, waiting = 0, wrong if step > e.plain["exempt"] else []
        failed = len(waiting)
        for levels in rounds_of(waiting, ctx.rl):
            asked = [
                hinted(group, level, ctx.rl) for group in waiting for level in levels if level <= most(group, ctx.rl)
            ]
            if not asked:
                break
            for rollout in (yield asked):
                if rollout.outcome.accuracy == 1.0:
                    helped.setdefault(rollout.request.draw.ordinal, rollout)
            sampled += len(asked)
            waiting = [group for group in waiting if group.draw.ordinal not in helped]
        trained = tuple(
            reward(with_hinted(group, helped[group.draw.ordinal], ctx.seed)) if group.draw.ordinal in helped else group
            for group in groups
        )
        by_level = [0] * api.levels(ctx.rl)
        for rollout in helped.values():
            by_level[rollout.request.tag - 1] += 1
        e = stalled(e, len(wrong) / len(groups), step, ctx.rl) if groups else e
        e = e.with_plain(groups=len(groups), failed=failed, sampled=sampled, hinted=by_level)
        return e, StepSamples(trained)

    def metrics(self, e: SlotState, ctx: Context) -> dict[str, float]:
        of = max(1, e.plain["groups"])
        found = {
            "train/hinted": sum(e.plain["hinted"]) / of,
            "train/unhelped": (e.plain["failed"] - sum(e.plain["hinted"])) / of,
            "train/hint_rollouts": float(e.plain["sampled"]),
        }
        return found | {f"train/hinted_at/{i + 1}": n / of for i, n in enumerate(e.plain["hinted"])}


def most(group: Group, rl: Rl) -> int:
    """The highest level that is tried for a group."""
    return min(api.levels(rl), hints.count(group.rollouts[0].prompt.fields))


def rounds_of(groups: Sequence[Group], rl: Rl) -> list[list[int]]:
    """The levels of each round of sampling, which all groups share: one by one, or all at once."""
    levels = list(range(1, max((most(group, rl) for group in groups), default=0) + 1))
    return [[level] for level in levels] if api.one_by_one(rl) else [levels] if levels else []


def hinted(group: Group, level: int, rl: Rl) -> Request:
    """One response to a group's prompt with the hint of a level."""
    return Request(group.draw, Purpose.HINT, 1, tag=level, edit=f"hint:{level}:{api.text(rl)}")


def with_hinted(group: Group, right: Rollout, seed: int) -> Group:
    """The group in which a right response with a hint stands for one wrong one, drawn by a hash of seed and draw."""
    drawn = hashlib.blake2b(f"{seed}/{group.draw.ordinal}".encode(), digest_size=8).digest()
    at = int.from_bytes(drawn) % len(group.rollouts)
    rollouts = (*group.rollouts[:at], right, *group.rollouts[at + 1 :])
    return replace(
        group,
        rollouts=rollouts,
        replaced=(group.rollouts[at],),
        first_rewards=group.rewards,
        first_parts=group.parts,
    )


def stalled(e: SlotState, share: float, step: int, rl: Rl) -> SlotState:
    """The state in which the exemption is over if the share of prompts that fail whole has had no new low for
    `trueHard.patience` steps: what fails then is hard in earnest, and not for want of practice."""
    patience = api.patience(rl)
    if patience is None or step > e.plain["exempt"]:
        return e
    if e.plain["lowest"] is None or share < float.fromhex(e.plain["lowest"]):
        return e.with_plain(lowest=share.hex(), since=0)
    since = e.plain["since"] + 1
    return e.with_plain(since=since, exempt=step if since >= patience else e.plain["exempt"])
