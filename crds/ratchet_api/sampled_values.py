"""What a manifest may say of values that are sampled: `rl.advantage.vine`, and how many responses that takes.

Decides names, bounds and what an absent knob means. How values are sampled is the trainer's matter
(`ratchet_trainer/algorithm/advantage/vine.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import ApiModel, Rule, as_whole

if TYPE_CHECKING:
    from ratchet_api.stages import Rl

STEPS, STEP_TOKENS, CONTINUATIONS, MAX_STEPS = "lines", 32, 9, 16
"""Of estimator vine: lines and 9 are arXiv 2410.01679's, the other two ours."""


class Vine(ApiModel):
    """How values are sampled, estimator vine (VinePPO, arXiv 2410.01679)."""

    rules: ClassVar = (
        Rule(
            "!has(self.stepTokens) || (has(self.steps) && self.steps == 'tokens')",
            "stepTokens belongs to steps: tokens; take these, or leave it out",
            lambda v: v.step_tokens is None or v.steps == "tokens",
            ".stepTokens",
        ),
    )
    steps: Literal["lines", "sentences", "tokens"] | None = Field(
        default=None,
        description="What a step of a response is. lines: a line of text; sentences: a sentence, or a line that has "
        "none; tokens: so many tokens. Absent: lines.",
    )
    step_tokens: Annotated[int, Field(ge=1, le=131_072), BeforeValidator(as_whole)] | None = Field(
        default=None, description="Tokens of a step, with steps tokens; absent: 32."
    )
    continuations: Annotated[int, Field(ge=1, le=1024), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="Continuations that are sampled and verified from the beginning of each step, never trained on; "
        "absent: 9.",
    )
    max_steps: Annotated[int, Field(ge=1, le=4096), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="Steps of a response at most. Where there are more, neighbours are merged, as many into each one. "
        "Absent: 16.",
    )


@dataclass(frozen=True)
class Values:
    """How values are sampled: `Vine` with its defaults. `most_steps`: that a response can have."""

    steps: str
    step_tokens: int
    continuations: int
    most_steps: int


def vine(rl: Rl) -> Values:
    """How a stage with estimator vine samples values."""
    own = rl.advantage.vine or Vine()
    kind, size = own.steps or STEPS, own.step_tokens or STEP_TOKENS
    fit = -(-rl.max_response_tokens // size) if kind == "tokens" else rl.max_response_tokens
    most = min(own.max_steps or MAX_STEPS, fit)
    return Values(kind, size, own.continuations or CONTINUATIONS, most)


def states(rl: Rl, puts: int = 1) -> int:
    """Beginnings of steps that a step of the run asks for at most: responses to one prompt, which is put in so many
    ways, share the first."""
    return rl.prompts_per_step * (puts + rl.group_size * (vine(rl).most_steps - 1))
