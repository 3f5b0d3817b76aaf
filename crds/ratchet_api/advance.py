"""What a manifest may say of when a stage is over: `advance`, its rules, and guards.

Decides names and bounds. When a rule holds is decided by the trainer at step boundaries
(`ratchet_trainer/step/stage_over.py`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import METRIC_PATTERN, ApiModel, Decimal, Rule, Whole, as_whole, whole

METRIC_TEXT = (
    "Metric to watch; short names mean train/..., so accuracy is train/accuracy. evaluation/NAME/accuracy is what the "
    "evaluation of that name says, reward/NAME the mean of a reward's part."
)
Patience = Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(as_whole)]


class Plateau(ApiModel):
    """A metric that no longer rises."""

    patience: Patience = Field(description="Latest values of which none is better than the one before them.")
    min_delta: Decimal = Field(default="0", description="A value is better if it is above by more than this.")


class Stall(ApiModel):
    """A metric that no longer changes: its largest and smallest value are equal but for minDelta."""

    patience: Patience = Field(description="Values of the metric that are looked at.")
    min_delta: Decimal = Field(default="0", description="Largest difference that counts as none.")


class When(ApiModel):
    """One way for a stage to be over: a metric's mean over a window reaches a bound, or it no longer moves."""

    rules: ClassVar = (
        Rule(
            "(has(self.atLeast) ? 1 : 0) + (has(self.atMost) ? 1 : 0) + (has(self.plateau) ? 1 : 0) + "
            "(has(self.stall) ? 1 : 0) == 1",
            "give exactly one of atLeast, atMost, plateau and stall",
            lambda w: sum(x is not None for x in (w.at_least, w.at_most, w.plateau, w.stall)) == 1,
        ),
    )
    metric: str = Field(max_length=128, pattern=METRIC_PATTERN, description=METRIC_TEXT)
    at_least: Decimal | None = Field(default=None, description="The rule holds when the mean is at least this.")
    at_most: Decimal | None = Field(default=None, description="The rule holds when the mean is at most this.")
    window: Whole = whole(
        "Number of latest steps in this stage that the mean is over; false until there are that many.",
        ge=1,
        le=10_000,
        default=1,
    )
    plateau: Plateau | None = Field(default=None, description="The rule holds when the metric no longer rises.")
    stall: Stall | None = Field(default=None, description="The rule holds when the metric no longer changes.")


class Guard(ApiModel):
    """A bound that a metric's mean must keep to while a stage trains."""

    rules: ClassVar = (
        Rule(
            "has(self.atLeast) != has(self.atMost)",
            "give exactly one bound: atLeast or atMost",
            lambda g: (g.at_least is None) != (g.at_most is None),
        ),
    )
    metric: str = Field(max_length=128, pattern=METRIC_PATTERN, description=METRIC_TEXT)
    at_least: Decimal | None = Field(default=None, description="The guard trips when the mean is at least this.")
    at_most: Decimal | None = Field(default=None, description="The guard trips when the mean is at most this.")
    window: Whole = whole("Latest values of the metric that the mean is over.", ge=1, le=10_000, default=1)
    action: Literal["Fail", "Approval", "Advance"] = Field(
        default="Fail",
        description="Fail: the job ends as failed. Approval: the stage is over and the next one waits for an entry in "
        "spec.approvals. Advance: the stage is over.",
    )


class Advance(ApiModel):
    """When a stage is over."""

    rules: ClassVar = (
        Rule(
            "self.minSteps <= self.steps",
            "minSteps is larger than steps, so no rule could ever hold",
            lambda a: a.min_steps <= a.steps,
        ),
    )
    steps: Whole = whole("Hard limit: the stage is over after this many steps.", ge=1, le=100_000_000)
    min_steps: Whole = whole("No rule is looked at before this many steps.", ge=0, le=100_000_000, default=0)
    when: list[When] = Field(
        default=[], max_length=16, description="Any of these suffices; the first in order wins and is recorded."
    )
    at_limit: Literal["Advance", "Fail", "Approval"] = Field(
        default="Advance",
        description="What to do when `steps` is reached though rules were given and none held. Approval: the next "
        "stage waits for an entry in spec.approvals.",
    )
    approval: Literal["None", "Manual"] = Field(
        default="None",
        description="Manual: whatever ended this stage, the next one waits for an entry in spec.approvals.",
    )
