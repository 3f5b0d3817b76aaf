"""What a manifest may say of sampling: `rl.sampling`.

Decides names, bounds, and that drawing from fewer tokens than all needs a stated correction. Temperature is not here:
it is the policy's own, in training as in sampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BeforeValidator, Field

from ratchet_api.base import ApiModel, Rule, as_whole
from ratchet_api.method import Share

if TYPE_CHECKING:
    from ratchet_api.stages import Rl


class Sampling(ApiModel):
    """From which tokens the next one is drawn, and what ends a response besides the model's end tokens."""

    rules: ClassVar = (
        Rule(
            "!has(self.topP) || double(self.topP) > 0.0",
            "topP must be greater than 0; topK: 1 takes the likeliest token alone",
            lambda s: s.top_p is None or float(s.top_p) > 0,
            ".topP",
        ),
    )
    top_k: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(as_whole)] | None = Field(
        default=None, description="Draws from so many of the likeliest tokens, ties included; absent: from all."
    )
    top_p: Share | None = Field(
        default=None,
        description="Draws from the fewest likeliest tokens whose probability, among those of topK, reaches this, ties "
        "included; absent: from all.",
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] = Field(
        default=[],
        max_length=16,
        description="Strings that end a response with the token that completes one; it stays part of the response.",
    )


def truncates(rl: Rl) -> bool:
    """Whether some tokens are never drawn."""
    return rl.sampling.top_k is not None or float(rl.sampling.top_p or "1") < 1


CORRECTION = Rule(
    "has(self.objective.importanceCap) || !(has(self.sampling.topK) || "
    "(has(self.sampling.topP) && double(self.sampling.topP) < 1.0))",
    "with topK, or topP below 1, responses come from other probabilities than those that are trained; set objective."
    'importanceCap, for example to "1", which weighs tokens by the one over the other, or leave topK and topP out',
    lambda rl: rl.objective.importance_cap is not None or not truncates(rl),
    ".sampling",
)
