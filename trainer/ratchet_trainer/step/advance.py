"""The advance rule: when a stage is over, decided from training state alone.

Decides whether the step just made ends its stage, and by which rule. Whether the next stage may begin is the operator's
word. A rule looks at the latest `window` values of a metric in this stage, is false until there are that many and while
one of them is NaN; means are float64, left to right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from ratchet_api.stages import Advance, When, full_metric
from ratchet_trainer.errors import StageFailed
from ratchet_trainer.step.state import StageState


def observed(stage: StageState, advance: Advance, metrics: Mapping[str, float]) -> StageState:
    """The stage with a step's metrics in the windows of those that rules watch."""
    windows = {}
    for name in sorted({full_metric(w.metric) for w in advance.when}):
        longest = max(w.window for w in advance.when if full_metric(w.metric) == name)
        values = (*stage.windows.get(name, ()), float(metrics[name]).hex())
        windows[name] = values[-longest:]
    return replace(stage, windows=windows)


def ended_by(stage: StageState, advance: Advance, step: int) -> str | None:
    """The rule that ends the stage at `step`, in words, or None. The first in order wins.

    Raises StageFailed at a limit with `atLimit: Fail`.
    """
    made = step - stage.start_step
    if made >= advance.min_steps:
        for rule in advance.when:
            if _holds(rule, stage.windows.get(full_metric(rule.metric), ())):
                return in_words(rule)
    if made < advance.steps:
        return None
    if advance.when and advance.at_limit == "Fail":
        raise StageFailed(
            f"stage {stage.name} made its {advance.steps} steps and none of its rules held: "
            + "; ".join(in_words(rule) for rule in advance.when)
        )
    return f"steps {advance.steps}"


def in_words(rule: When) -> str:
    """A rule as it is recorded, for example `train/accuracy >= 0.9 over 10`."""
    bound = f">= {rule.at_least}" if rule.at_least is not None else f"<= {rule.at_most}"
    return f"{full_metric(rule.metric)} {bound} over {rule.window}"


def _holds(rule: When, window: tuple[str, ...]) -> bool:
    if len(window) < rule.window:
        return False
    total = 0.0
    for value in window[-rule.window :]:
        total += float.fromhex(value)
    mean = total / rule.window
    if math.isnan(mean):
        return False
    return mean >= float(rule.at_least) if rule.at_least is not None else mean <= float(rule.at_most or "0")
