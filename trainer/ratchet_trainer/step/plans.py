"""Plans: what later steps are to be sampled, and with which weights.

Decides what a plan is in a checkpoint, and how far behind it is sampled. With lag L the turn of step s plans every step
up to s + L that has no plan yet, each to its end before the next, and has it sampled with the weights that there are
then: so step t is sampled with those of step t - 1 - L (of the stage's start, where that is later), and its plan has
seen what was observed up to there. When samples arrive moves nothing. Without lag a step is planned in its own turn and
no state holds a plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ratchet_trainer.algorithm.group_form import request_of
from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Group, Request

Plain = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """The first round of a step. `version`: the step whose weights sample it; `digest` names these weights ("": they
    are not published). `ready`: groups that were sampled and verified while it was planned, which only a step's own
    turn has."""

    step: int
    requests: tuple[Request, ...]
    version: int
    digest: str = ""
    ready: tuple[Group, ...] = ()


def staleness(ctx: Context) -> int:
    """How many steps lie between the weights that sample step ctx.step and those that it begins with."""
    return ctx.step - 1 - max(ctx.start_step, ctx.step - 1 - ctx.rl.lag)


def written(plans: Sequence[Plan]) -> list[Plain]:
    """Plans as plain JSON."""
    assert not any(plan.ready for plan in plans), "what is scored while a step is planned is of its own turn"
    return [
        {
            "step": plan.step,
            "version": plan.version,
            "digest": plan.digest,
            "requests": [asdict(request) for request in plan.requests],
        }
        for plan in plans
    ]


def read(plain: Sequence[Plain]) -> tuple[Plan, ...]:
    """The plans that `written` wrote down."""
    return tuple(
        Plan(one["step"], tuple(map(request_of, one["requests"])), one["version"], one["digest"]) for one in plain
    )
