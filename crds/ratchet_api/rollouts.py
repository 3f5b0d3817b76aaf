"""Sampling by a fleet: `spec.rollouts`, which machines sample, and `rl.rollouts`, what a step may be sampled with.

Decides names, bounds, and which methods can be sampled ahead. `rl.rollouts` belongs to the stage and to its hash: it
decides bits. `spec.rollouts` decides none: workers come and go, and what is trained on is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field

from ratchet_api import expansion as expansions
from ratchet_api import method as methods
from ratchet_api import selection as selections
from ratchet_api.base import ApiModel, Rule, Whole, as_whole, whole
from ratchet_api.placements import PLACEMENTS, Placement
from ratchet_api.pod_template import PodTemplate

if TYPE_CHECKING:
    from ratchet_api.stages import Rl


class Workers(ApiModel):
    """How many workers there are, each a slice of its own."""

    rules: ClassVar = (
        Rule(
            "!has(self.min) || !has(self.max) || self.max == 0 || self.min <= self.max",
            "workers.min is more than workers.max, so the trainer could never go on; lower min, or raise max (max 0 "
            "lets the fleet rest, whatever min is)",
            lambda w: w.max == 0 or w.min <= w.max,
            ".min",
        ),
    )
    min: Whole = whole("Fewest that are worth waiting with.", ge=1, le=256, default=1)
    max: Whole = whole(
        "Most that are kept; it may change at any time. 0: none, the fleet rests and the trainer waits.",
        ge=0,
        le=256,
        default=1,
    )


class Rollouts(ApiModel):
    """A fleet of workers that sample for the trainer. Each comes, goes and is replaced alone."""

    rules: ClassVar = (
        Rule(
            "self.placements.all(p, p.slices == 1)",
            "a worker is one slice, so that it comes and goes alone; leave slices out of rollouts.placements, and "
            "raise rollouts.workers.max",
            lambda r: all(p.slices == 1 for p in r.placements),
            ".placements",
        ),
    )
    workers: Workers = Field(default=Workers(), description="How many workers there are.")
    placements: list[Placement] = PLACEMENTS
    wait_seconds: Whole = whole(
        "Seconds without workers.min workers after which the trainer gives its machines back; it begins again once "
        "they run.",
        ge=1,
        le=86_400,
        default=1800,
    )
    pod_template: PodTemplate = Field(default=PodTemplate(), description="What is added to the workers' pods.")


class StageRollouts(ApiModel):
    """What a stage's steps are sampled with, and in which calls. The bits follow from it, so it is the same with a
    fleet and without."""

    lag: Whole = whole(
        "How many steps ahead prompts are sampled: a step's rollouts come from the weights of so many steps before the "
        "newest. 0: from the newest.",
        ge=0,
        le=2,
        default=0,
    )
    prompts_per_call: Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="Prompts that one call samples, each with its whole group: what one worker does at a time. Absent: "
        "all of a step.",
    )


def lag(rl: Rl) -> int:
    """How many steps ahead a stage samples."""
    return 0 if rl.rollouts is None else rl.rollouts.lag


def prompts_per_call(rl: Rl) -> int:
    """Prompts that one call of the sampler answers at most."""
    given = None if rl.rollouts is None else rl.rollouts.prompts_per_call
    return rl.prompts_per_step if given is None else given


_NO_LAG = "!has(self.rollouts) || !has(self.rollouts.lag) || self.rollouts.lag == 0"
_NO_CALLS = "!has(self.rollouts) || !has(self.rollouts.promptsPerCall)"

RULES = (
    Rule(
        f"{_NO_LAG} || !has(self.expansion) || !has(self.expansion.surplus) || self.expansion.surplus != 'carry'",
        "expansion.surplus carry trains the next step on what this one has over, but with rollouts.lag that step's "
        "prompts are drawn before this one is sampled; take surplus drop, or lag 0",
        lambda rl: lag(rl) == 0 or not expansions.carries(rl),
        ".rollouts",
    ),
    Rule(
        f"{_NO_LAG} || {selections.KIND_CEL.format('self')} != 'learnability'",
        "selection.kind learnability scores prompts by the weights that train on them (methods sfl and lilo, with a "
        "buffer, too), and with rollouts.lag these are not there yet; take lag 0, or another selection.kind, such as "
        "difficultyBand, which goes by what is known",
        lambda rl: lag(rl) == 0 or selections.kind(rl) != "learnability",
        ".rollouts",
    ),
    Rule(
        f"{_NO_LAG} || !{methods.estimator_cel('vine').format('self')}",
        "advantage.estimator vine (method vineppo) samples values of the weights that are trained, and with "
        "rollouts.lag responses are older than these; take lag 0, or another estimator",
        lambda rl: lag(rl) == 0 or not methods.samples_values(rl),
        ".rollouts",
    ),
    Rule(
        f"{_NO_CALLS} || !has(self.promptsInFlight)",
        "rollouts.promptsPerCall cuts a step into calls, and promptsInFlight refills the places of a single one; "
        "choose one of them: promptsPerCall for a fleet, promptsInFlight for less memory without one",
        lambda rl: rl.rollouts is None or rl.rollouts.prompts_per_call is None or rl.prompts_in_flight is None,
        ".rollouts",
    ),
    Rule(
        f"{_NO_CALLS} || self.rollouts.promptsPerCall <= self.promptsPerStep",
        "rollouts.promptsPerCall is more than promptsPerStep; set it to less, or leave it out: all prompts of a step "
        "are one call then",
        lambda rl: prompts_per_call(rl) <= rl.prompts_per_step,
        ".rollouts",
    ),
)
