"""What a manifest may say of which prompts are drawn: `rl.selection`.

Decides kinds, the knobs of each and their bounds, and what an absent knob means. How prompts are chosen is the
trainer's matter (`ratchet_trainer/algorithm/selection`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import ApiModel, Rule, as_whole
from ratchet_api.method import Share, kind_cel, rules_of_kinds
from ratchet_api.presets import PRESETS

if TYPE_CHECKING:
    from ratchet_api.stages import Rl

Kind = Literal["uniform", "learnability", "historyResampling", "difficultyBand"]
Candidates = Annotated[int, Field(ge=1, le=65_536), BeforeValidator(as_whole)]
Attempts = Annotated[int, Field(ge=2, le=1024), BeforeValidator(as_whole)]
Steps = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(as_whole)]
Epochs = Annotated[int, Field(ge=1, le=10_000), BeforeValidator(as_whole)]

CANDIDATES = {True: 20, False: 4}
"""Candidates a prompt of the step, with a buffer and without: 1280 of 64 and 4 x 64 in arXiv 2502.12272."""
KEPT = 4
"""Items of a buffer a prompt of the step: 256 of 64, there."""
EVERY, SHARE = 50, "0.5"
BAND = "0.2", "0.8"
EXPLORE = "0.25"


class Buffer(ApiModel):
    """The items that were found most learnable, kept for some steps (SFL, arXiv 2502.12272v1)."""

    rules: ClassVar = (
        Rule(
            "!has(self.share) || double(self.share) > 0.0",
            "with share 0 no prompt would come from the buffer; leave selection out or take kind uniform",
            lambda b: b.share is None or float(b.share) > 0,
            ".share",
        ),
    )
    every_steps: Steps | None = Field(
        default=None, description="Steps after which it is filled anew, from the stage's first step on; absent: 50."
    )
    size: Candidates | None = Field(
        default=None, description="Items that it holds, the best of the candidates; absent: 4 x promptsPerStep."
    )
    share: Share | None = Field(
        default=None,
        description="Share of a step's prompts that come from it, rounded down; the others are drawn as in kind "
        "uniform. Absent: 0.5.",
    )


class Selection(ApiModel):
    """Which prompts are drawn."""

    kind: Kind | None = Field(
        default=None,
        description="uniform: every item once an epoch. learnability: candidates are answered first, those with the "
        "highest p (1 - p) are trained on, p the share of right answers (arXiv 2502.12272). historyResampling: an item "
        "that was answered right every time is left out from the next epoch on (SRPO, arXiv 2504.14286). "
        "difficultyBand: items whose running share of right answers is between low and high, and some others to find "
        "more of them. Absent: the method's.",
    )
    candidates: Candidates | None = Field(
        default=None,
        description="Prompts that are scored, kind learnability; absent: 4 x promptsPerStep, with a buffer 20 x.",
    )
    rollouts: Attempts | None = Field(
        default=None, description="Responses by which a candidate is scored, kind learnability; absent: groupSize."
    )
    buffer: Buffer | None = Field(
        default=None,
        description="Keeps the best candidates for some steps, kind learnability (method sfl has one). Absent without "
        "method sfl: candidates are scored in every step and the best are its prompts.",
    )
    reuse: bool | None = Field(
        default=None,
        description="Kind learnability without a buffer. true: the responses that a candidate was scored by are "
        "trained on, nothing is sampled again; they look nearer to half right than they are. Absent: false.",
    )
    drop_unsolved_after: Epochs | None = Field(
        default=None,
        description="Kind historyResampling: an item is left out, too, after so many epochs in a row without a right "
        "answer; absent: never.",
    )
    low: Share | None = Field(
        default=None, description="Lowest share of right answers inside the band, kind difficultyBand; absent: 0.2."
    )
    high: Share | None = Field(
        default=None, description="Highest share of right answers inside the band, kind difficultyBand; absent: 0.8."
    )
    explore: Share | None = Field(
        default=None,
        description="Share of a step's prompts that are not in the band, those never seen first, kind difficultyBand; "
        "absent: 0.25.",
    )


KNOBS = (
    # knob here and in the manifest, and the kind that it belongs to
    ("candidates", "candidates", "learnability"),
    ("rollouts", "rollouts", "learnability"),
    ("buffer", "buffer", "learnability"),
    ("reuse", "reuse", "learnability"),
    ("drop_unsolved_after", "dropUnsolvedAfter", "historyResampling"),
    ("low", "low", "difficultyBand"),
    ("high", "high", "difficultyBand"),
    ("explore", "explore", "difficultyBand"),
)


def knob(rl: Rl, name: str) -> Any:
    """What the manifest says of a knob; None: nothing."""
    return getattr(rl.selection, name, None)


def kind(rl: Rl) -> str:
    """The kind of selection that a stage has, its method's or its own."""
    return knob(rl, "kind") or PRESETS[rl.method].selection


def buffered(rl: Rl) -> bool:
    """Whether the most learnable items are kept in a buffer."""
    return kind(rl) == "learnability" and (knob(rl, "buffer") is not None or rl.method == "sfl")


def rollouts(rl: Rl) -> int:
    """Responses by which a candidate is scored."""
    return knob(rl, "rollouts") or rl.group_size


def candidates(rl: Rl) -> int:
    """Prompts that are scored at a time."""
    return knob(rl, "candidates") or CANDIDATES[buffered(rl)] * rl.prompts_per_step


def reuse(rl: Rl) -> bool:
    """Whether the responses that a candidate was scored by are trained on."""
    return bool(knob(rl, "reuse"))


def buffer(rl: Rl) -> tuple[int, int, Fraction]:
    """Of the buffer: steps between two fillings, size, share of a step's prompts."""
    own = knob(rl, "buffer") or Buffer()
    return own.every_steps or EVERY, own.size or KEPT * rl.prompts_per_step, Fraction(own.share or SHARE)


def band(rl: Rl) -> tuple[float, float, Fraction]:
    """The band's bounds, and the share of a step's prompts from outside."""
    return (
        float(knob(rl, "low") or BAND[0]),
        float(knob(rl, "high") or BAND[1]),
        Fraction(knob(rl, "explore") or EXPLORE),
    )


# The first two in CEL, given where the Rl is.
KIND_CEL = kind_cel("selection", usual="uniform")
BUFFERED_CEL = (
    f"({KIND_CEL} == 'learnability' && ({{0}}.method == 'sfl' || (has({{0}}.selection) && "
    "has({0}.selection.buffer))))"
)
_KIND, _BUFFERED = KIND_CEL.format("self"), BUFFERED_CEL.format("self")
_CANDIDATES = (
    f"(has(self.selection) && has(self.selection.candidates) ? self.selection.candidates : "
    f"({_BUFFERED} ? {CANDIDATES[True]} : {CANDIDATES[False]}) * self.promptsPerStep)"
)
_HAS_BUFFER = "has(self.selection) && has(self.selection.buffer)"
_SIZE = (
    f"({_HAS_BUFFER} && has(self.selection.buffer.size) ? self.selection.buffer.size : {KEPT} * self.promptsPerStep)"
)
_SHARE = (
    f"(double({_HAS_BUFFER} && has(self.selection.buffer.share) ? self.selection.buffer.share : '{SHARE}') * "
    "double(self.promptsPerStep))"
)

RULES = (
    *rules_of_kinds("selection", KNOBS, KIND_CEL, kind),
    Rule(
        f"{_KIND} != 'learnability' || self.groupSize >= 2 || (has(self.selection) && has(self.selection.rollouts))",
        "one response of a candidate is always all right or all wrong, so every score would be 0; set "
        "selection.rollouts to 2 or more, for example 8",
        lambda rl: kind(rl) != "learnability" or rollouts(rl) >= 2,
        ".selection",
    ),
    Rule(
        f"{_KIND} != 'learnability' || {_BUFFERED} || {_CANDIDATES} >= self.promptsPerStep",
        "selection.candidates is below promptsPerStep, so a step could not be filled; take more candidates (4 x "
        "promptsPerStep is usual), or give selection.buffer",
        lambda rl: kind(rl) != "learnability" or buffered(rl) or candidates(rl) >= rl.prompts_per_step,
        ".selection",
    ),
    Rule(
        f"!{_BUFFERED} || {_CANDIDATES} >= {_SIZE}",
        "selection.buffer.size is more than there are candidates, so none would ever be left out; take a smaller "
        "buffer, or more candidates",
        lambda rl: not buffered(rl) or candidates(rl) >= buffer(rl)[1],
        ".selection",
    ),
    Rule(
        f"!{_BUFFERED} || {_SHARE} >= 1.0",
        "selection.buffer.share of promptsPerStep is less than one prompt, so none would come from the buffer; raise "
        "one of them",
        lambda rl: not buffered(rl) or float(buffer(rl)[2]) * float(rl.prompts_per_step) >= 1.0,
        ".selection",
    ),
    Rule(
        f"!has(self.selection) || !has(self.selection.reuse) || !self.selection.reuse || !{_BUFFERED}",
        "selection.reuse trains on this step's scores, and a buffer's are older; leave reuse out, or the buffer "
        "(method lilo)",
        lambda rl: not reuse(rl) or not buffered(rl),
        ".selection",
    ),
    Rule(
        "!has(self.selection) || !has(self.selection.reuse) || !self.selection.reuse || "
        "!has(self.selection.rollouts) || self.selection.rollouts == self.groupSize",
        "selection.reuse trains on the responses that a candidate is scored by, so these are groupSize; leave "
        "selection.rollouts out",
        lambda rl: not reuse(rl) or rollouts(rl) == rl.group_size,
        ".selection",
    ),
    Rule(
        f"{_KIND} != 'difficultyBand' || double(has(self.selection.low) ? self.selection.low : '{BAND[0]}') < "
        f"double(has(self.selection.high) ? self.selection.high : '{BAND[1]}')",
        "selection.low is not below selection.high, so the band would be empty; the defaults are 0.2 and 0.8",
        lambda rl: kind(rl) != "difficultyBand" or band(rl)[0] < band(rl)[1],
        ".selection",
    ),
)
