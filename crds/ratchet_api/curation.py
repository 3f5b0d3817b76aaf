"""What a manifest may say of a stage that makes a data set: `stages[].curate`.

Decides names and bounds. How items are answered, counted and kept is the trainer's matter
(`ratchet_trainer/step/curate.py`).
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor
from typing import ClassVar, Literal

from pydantic import Field

from ratchet_api.base import ApiModel, Name, PositiveDecimal, Rule, Whole, whole
from ratchet_api.method import Share
from ratchet_api.sampling import Sampling

CURATE_METRICS = ("curate/accuracy", "curate/truncated", "curate/verifier_failures", "curate/response_tokens")
"""What a curate stage reports in every step, over the responses of the step."""
STEPS_UNKNOWN = 100_000_000
"""Steps of a curate stage, as far as a manifest says: how many items there are is not in it."""


class Keep(ApiModel):
    """Which items are kept: those whose share of right responses lies between two bounds, both included."""

    rules: ClassVar = (
        Rule(
            "!has(self.low) || !has(self.high) || double(self.low) <= double(self.high)",
            "low is above high, so nothing could be kept; swap them",
            lambda k: k.low is None or k.high is None or float(k.low) <= float(k.high),
            ".low",
        ),
    )
    low: Share | None = Field(
        default=None, description="Least share of right responses. Absent: more than none of them."
    )
    high: Share | None = Field(
        default=None, description="Largest share of right responses. Absent: fewer than all of them."
    )


class MakeHints(ApiModel):
    """Hints made of a text that an item has, for example a solution: its beginning, in more and more steps."""

    from_: str = Field(
        alias="from", min_length=1, max_length=64, description="Key of the item that holds the text, such as solution."
    )
    steps: Literal["lines", "sentences", "paragraphs", "words"] = Field(
        default="lines", description="How the text is split, as for rewards[].correctPrefix."
    )
    levels: Whole = whole(
        "Hints of an item, least help first. The text is cut into one part more than that, each of about as many "
        "steps, and the last part is never shown: it says the answer.",
        ge=1,
        le=32,
        default=3,
    )


def can_keep(samples: int, keep: Keep) -> bool:
    """Whether some number of right ones of so many responses would have an item kept."""
    low = Fraction(1, samples) if keep.low is None else Fraction(keep.low)
    high = Fraction(samples - 1, samples) if keep.high is None else Fraction(keep.high)
    return ceil(low * samples) <= floor(high * samples)


class Curate(ApiModel):
    """Makes a data set of another one: answers each item several times and keeps what is worth training on. A data set
    with `fromStage` uses it; the stage moves no weight."""

    rules: ClassVar = (
        Rule(
            "!has(self.samples) || self.samples >= 2 || "
            "(has(self.keep) && (has(self.keep.low) || has(self.keep.high)))",
            "of one response either none or all is right, so nothing could be kept; set samples to 2 or more, or "
            'keep: {high: "1"} for what is answered right',
            lambda c: c.samples >= 2 or c.keep.low is not None or c.keep.high is not None,
            ".samples",
        ),
    )
    dataset: Name = Field(description="Name of the data set that is looked through.")
    samples: Whole = whole("Responses to each item.", ge=1, le=1024, default=8)
    prompts_per_step: Whole = whole("Items a step; divisible by the number of processes.", ge=1, le=65_536, default=16)
    keep: Keep = Field(default=Keep(), description="Which items are kept.")
    deduplicate: Literal["byQuestion", "none"] = Field(
        default="byQuestion",
        description="byQuestion: of items that ask the same, the first one stays. none: all of them.",
    )
    contradictions: Literal["LeaveOut", "Keep"] = Field(
        default="LeaveOut",
        description="What becomes of items that ask the same and expect different answers. LeaveOut: none of them is "
        "kept, as nobody knows which is right. Keep: they are as any other.",
    )
    refused: Literal["LeaveOut", "Keep"] = Field(
        default="LeaveOut",
        description="What becomes of items whose expected answer their own verifier does not take for right. Verifiers "
        "python, http and code are not asked.",
    )
    hints: MakeHints | None = Field(
        default=None, description="Makes hints for the kept items, under the key hints. Absent: items keep their own."
    )
    approval: Literal["None", "Manual"] = Field(
        default="None",
        description="Manual: the next stage waits for an entry in spec.approvals, for example until somebody has "
        "looked at the report.",
    )
    max_prompt_tokens: Whole = whole(
        "Longest prompt in tokens; items with a longer one are left out and counted.", ge=1, le=131_072, default=128
    )
    max_response_tokens: Whole = whole("Longest response in tokens; it is cut there.", ge=1, le=131_072, default=32)
    temperature: PositiveDecimal = Field(default="1.0", description="Sampling temperature, a decimal string.")
    sampling: Sampling = Field(
        default=Sampling(), description="From which tokens responses are drawn, and what else ends them."
    )
