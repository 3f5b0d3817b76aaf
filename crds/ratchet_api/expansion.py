"""What a manifest may say of what else is sampled, once the drawn prompts are answered: `rl.expansion`.

Decides kinds, the knobs of each and their bounds, and what an absent knob means. How it is sampled is the trainer's
matter (`ratchet_trainer/algorithm/expansion`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import ApiModel, Rule, as_whole
from ratchet_api.method import preset_cel
from ratchet_api.presets import PRESETS

if TYPE_CHECKING:
    from ratchet_api.stages import Rl

Kind = Literal["none", "dynamicSampling"]
GenerationRounds = Annotated[int, Field(ge=1, le=1000), BeforeValidator(as_whole)]
Prompts = Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)]

MAX_ROUNDS = 10
"""verl's `max_num_gen_batches`."""


class Expansion(ApiModel):
    """What else is sampled once the drawn prompts are answered."""

    kind: Kind | None = Field(
        default=None,
        description="none: what was drawn is what is trained on. dynamicSampling: prompts whose responses are all "
        "right or all wrong are dropped, and others are drawn until the step has promptsPerStep of them (DAPO, arXiv "
        "2503.14476). Absent: the method's.",
    )
    max_rounds: GenerationRounds | None = Field(
        default=None,
        description="Rounds of generation that a step makes at most, the first one included, kind dynamicSampling; "
        "then it trains on what there is. Absent: 10.",
    )
    prompts_per_round: Prompts | None = Field(
        default=None,
        description="Prompts that are drawn in a round, kind dynamicSampling; absent: promptsPerStep, which a sampling "
        "call has room for anyway.",
    )
    surplus: Literal["drop", "carry"] | None = Field(
        default=None,
        description="What becomes of prompts beyond promptsPerStep that would teach something, kind dynamicSampling. "
        "drop: nothing. carry: the next step trains on them first, with the probabilities that they were sampled "
        "with; at most one step old. Absent: drop.",
    )


KNOBS = (
    # knob here and in the manifest, and the kind that it belongs to
    ("max_rounds", "maxRounds", "dynamicSampling"),
    ("prompts_per_round", "promptsPerRound", "dynamicSampling"),
    ("surplus", "surplus", "dynamicSampling"),
)


def knob(rl: Rl, name: str) -> Any:
    """What the manifest says of a knob; None: nothing."""
    return getattr(rl.expansion, name, None)


def kind(rl: Rl) -> str:
    """The kind of expansion that a stage has, its method's or its own."""
    return knob(rl, "kind") or PRESETS[rl.method].expansion


def max_rounds(rl: Rl) -> int:
    """Rounds of generation that a step makes at most."""
    return knob(rl, "max_rounds") or MAX_ROUNDS


def prompts_per_round(rl: Rl) -> int:
    """Prompts that are drawn in a round of generation."""
    return knob(rl, "prompts_per_round") or rl.prompts_per_step


def carries(rl: Rl) -> bool:
    """Whether a step may train on what the one before it sampled."""
    return kind(rl) == "dynamicSampling" and knob(rl, "surplus") == "carry"


# The first in CEL, given where the Rl is.
KIND_CEL = (
    "(has({0}.expansion) && has({0}.expansion.kind) ? {0}.expansion.kind : "
    + preset_cel("expansion", usual="none")
    + ")"
)
_KIND = KIND_CEL.format("self")

RULES = (
    *(
        Rule(
            f"!has(self.expansion) || !has(self.expansion.{name}) || {_KIND} == '{owner}'",
            f"expansion.{name} belongs to expansion.kind {owner}; take that kind, or leave it out",
            lambda rl, field=field, owner=owner: knob(rl, field) is None or kind(rl) == owner,  # type: ignore[misc]
            ".expansion",
        )
        for field, name, owner in KNOBS
    ),
    Rule(
        f"{_KIND} != 'dynamicSampling' || self.groupSize >= 2",
        "expansion.kind dynamicSampling drops prompts whose responses are all right or all wrong, and one response "
        "always is; use groupSize 2 or more, or expansion {kind: none}",
        lambda rl: kind(rl) != "dynamicSampling" or rl.group_size >= 2,
        ".groupSize",
    ),
)
