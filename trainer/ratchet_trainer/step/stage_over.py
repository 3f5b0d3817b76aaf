"""The advance rule: when a stage is over, decided from training state alone.

Decides whether the step just made ends its stage, by which rule or guard, and whether the next stage then needs an
approval. Whether the next stage may begin is said at the stage gate. A rule looks at the latest values of a metric that
were committed in this stage, is false until there are enough and while one of them is NaN; means are float64, left to
right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ratchet_api.advance import Guard, When
from ratchet_api.stage_metrics import full_metric
from ratchet_api.stages import Stage
from ratchet_trainer.errors import GuardTripped, StageFailed
from ratchet_trainer.step.learning_signs import WINDOWS
from ratchet_trainer.step.state import StageState


@dataclass(frozen=True)
class Ended:
    """What ended a stage: the rule, guard or limit in words, and whether what comes next needs an approval."""

    rule: str
    needs_approval: bool = False


def observed(stage: StageState, spec: Stage, metrics: Mapping[str, float]) -> StageState:
    """The stage with a step's metrics in the windows of those that rules, guards and the signs of learning watch."""
    longest: dict[str, int] = dict(WINDOWS) if spec.rl is not None else {}
    for name, size in _watched(spec):
        longest[name] = max(size, longest.get(name, 0))
    windows = dict(stage.windows)
    for name in sorted(longest.keys() & metrics.keys()):
        windows[name] = (*stage.windows.get(name, ()), float(metrics[name]).hex())[-longest[name] :]
    return replace(stage, windows=windows)


def _watched(spec: Stage) -> Iterator[tuple[str, int]]:
    """Every metric that is watched, with how many of its latest values."""
    for rule in spec.advance.when:
        patience = rule.plateau or rule.stall
        extra = 1 if rule.plateau is not None else 0
        yield full_metric(rule.metric), rule.window - 1 + (patience.patience + extra if patience is not None else 1)
    for guard in spec.guards:
        yield full_metric(guard.metric), guard.window


def ended_by(stage: StageState, spec: Stage, step: int) -> Ended | None:
    """What ends the stage at `step`, or None. Guards come first, then the rules in order, then the limit.

    Raises GuardTripped for a guard with `action: Fail`, StageFailed at a limit with `atLimit: Fail`.
    """
    rules, made = spec.advance, step - stage.start_step
    always = rules.approval == "Manual"
    for guard in spec.guards:
        if _bound_holds(guard, _window(stage, guard)):
            return _tripped(stage, spec, guard, step)
    if made >= rules.min_steps:
        for rule in rules.when:
            if _holds(rule, [float.fromhex(v) for v in stage.windows.get(full_metric(rule.metric), ())]):
                return Ended(in_words(rule), always)
    if made < rules.steps:
        return None
    if rules.when and rules.at_limit == "Fail":
        raise StageFailed(
            f"stage {stage.name} made its {rules.steps} steps and none of its rules held: "
            + "; ".join(in_words(rule) for rule in rules.when)
        )
    return Ended(f"steps {rules.steps}", always or (bool(rules.when) and rules.at_limit == "Approval"))


def _tripped(stage: StageState, spec: Stage, guard: Guard, step: int) -> Ended:
    words = f"guard {in_words(guard)}"
    if guard.action == "Fail":
        raise GuardTripped(
            f"stage {stage.name}, step {step}: {words} tripped; look at `ratchet samples`, then change what the stage "
            "does, or give the guard another action"
        )
    return Ended(words, guard.action == "Approval" or spec.advance.approval == "Manual")


def in_words(rule: When | Guard) -> str:
    """A rule as it is recorded, for example `train/accuracy >= 0.9 over 10`."""
    name = full_metric(rule.metric)
    if isinstance(rule, When) and rule.plateau is not None:
        return f"{name} did not rise by more than {rule.plateau.min_delta} in {rule.plateau.patience}"
    if isinstance(rule, When) and rule.stall is not None:
        return f"{name} did not change by more than {rule.stall.min_delta} in {rule.stall.patience}"
    bound = f">= {rule.at_least}" if rule.at_least is not None else f"<= {rule.at_most}"
    return f"{name} {bound} over {rule.window}"


def _window(stage: StageState, rule: Guard) -> list[float]:
    return [float.fromhex(v) for v in stage.windows.get(full_metric(rule.metric), ())]


def _holds(rule: When, values: Sequence[float]) -> bool:
    if rule.plateau is not None:
        return _plateau(_means(values, rule.window), rule.plateau.patience, float(rule.plateau.min_delta))
    if rule.stall is not None:
        return _stall(_means(values, rule.window), rule.stall.patience, float(rule.stall.min_delta))
    return _bound_holds(rule, values)


def _bound_holds(rule: When | Guard, values: Sequence[float]) -> bool:
    if len(values) < rule.window:
        return False
    mean = _mean(values[-rule.window :])
    if math.isnan(mean):
        return False
    return mean >= float(rule.at_least) if rule.at_least is not None else mean <= float(rule.at_most or "0")


def _plateau(values: Sequence[float], patience: int, delta: float) -> bool:
    """Whether none of the latest `patience` values is above the one before them by more than delta."""
    values = values[-(patience + 1) :]
    if len(values) < patience + 1 or any(map(math.isnan, values)):
        return False
    return max(values[1:]) <= values[0] + delta


def _stall(values: Sequence[float], patience: int, delta: float) -> bool:
    """Whether the latest `patience` values are within delta of one another."""
    values = values[-patience:]
    if len(values) < patience or any(map(math.isnan, values)):
        return False
    return max(values) - min(values) <= delta


def _means(values: Sequence[float], window: int) -> list[float]:
    return [_mean(values[i : i + window]) for i in range(len(values) - window + 1)]


def _mean(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total / len(values)
