"""What a stage may cost: `spec.budgets[]`.

Decides what a manifest may say. The trainer counts tokens (`ratchet_trainer/step/stage_budget.py`), the operator chip
time (`ratchet_operator/decide/stage_budget.py`). A spent budget suspends or fails a job; it never ends a stage.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import STEP_MAX, ApiModel, Name, PositiveDecimal, Rule, as_whole

Tokens = Annotated[int, Field(ge=1, le=STEP_MAX), BeforeValidator(as_whole)]


class Budget(ApiModel):
    """What one stage may cost."""

    rules: ClassVar = (
        Rule(
            "has(self.generatedTokens) || has(self.chipHours)",
            "a budget limits something: give generatedTokens, chipHours or both",
            lambda b: b.generated_tokens is not None or b.chip_hours is not None,
        ),
    )
    stage: Name = Field(description="The stage that it is for.")
    generated_tokens: Tokens | None = Field(
        default=None,
        description="Tokens that the stage may sample for its steps. The step that reaches it is finished. What is "
        "done again after a preemption is not counted again; evaluations are not counted. Absent: no limit.",
    )
    chip_hours: PositiveDecimal | None = Field(
        default=None,
        description="Hours of chips that the stage may take, a decimal string: of each attempt from when all its pods "
        "ran to when the last one had ended, times its chips (its hosts, where they have none). Absent: no limit.",
    )
    on_exceeded: Literal["Suspend", "Fail"] = Field(
        default="Suspend",
        description="Suspend: the last step is committed, and no attempt starts before the budget is raised or "
        "removed. Fail: the job ends as failed.",
    )

    @property
    def chip_seconds(self) -> float | None:
        return None if self.chip_hours is None else 3600.0 * float(self.chip_hours)


BUDGETS: Any = Field(
    default=[],
    max_length=64,
    json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["stage"]},
    description="What stages may cost. Can change at any time: generatedTokens holds from the next attempt on.",
)
