"""A stage's budget of generated tokens: when it is spent.

Decides from training state and manifest alone, so that every process, and every attempt from the same state, says the
same. What is counted is in `state.StageState.generated_tokens`. Chip time is the operator's matter.
"""

from __future__ import annotations

from dataclasses import replace

from ratchet_api.job import Spec
from ratchet_trainer.errors import BudgetExceeded, BudgetSpent
from ratchet_trainer.step.state import StageState


def counted(stage: StageState, tokens: int) -> StageState:
    """The stage after a step for which so many tokens were sampled, by whichever attempts."""
    return replace(stage, generated_tokens=stage.generated_tokens + tokens)


def check(stage: StageState, spec: Spec) -> None:
    """Raises BudgetSpent, or BudgetExceeded with `onExceeded: Fail`, where a stage that is not over may sample no more.
    To be asked between steps."""
    budget = spec.budget(stage.name)
    if budget is None or budget.generated_tokens is None or stage.generated_tokens < budget.generated_tokens:
        return
    words = (
        f"stage {stage.name} is not over and has generated {stage.generated_tokens} tokens; its budget in spec.budgets "
        f"is {budget.generated_tokens}"
    )
    if budget.on_exceeded == "Fail":
        raise BudgetExceeded(f"{words}, with onExceeded: Fail")
    raise BudgetSpent(f"{words}: raise it or remove it")
