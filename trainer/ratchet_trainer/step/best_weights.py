"""Which weights of a stage are the best, and which ones a stage starts from: `start.weights`.

Decides by what weights are compared: the accuracy of the job's first evaluation, where there is none that of the step's
own rollouts. Of equals the earlier ones count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ratchet_api.job import Spec
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.step.state import StageState

BEST, PREVIOUS, OF_STAGE = "best", "previous", "stage/"


def metric(spec: Spec) -> str:
    """What weights are compared by."""
    return f"evaluation/{spec.evaluations[0].name}/accuracy" if spec.evaluations else "train/accuracy"


def compared(stage: StageState, spec: Spec, metrics: Mapping[str, float], step: int) -> StageState:
    """The stage with the weights after `step` as its best, if they are."""
    value = metrics.get(metric(spec), math.nan)
    if math.isnan(value) or (stage.best is not None and value <= float.fromhex(stage.best[1])):
        return stage
    return replace(stage, best=(step, float(value).hex()))


def kept(spec: Spec, stage: StageState) -> bool:
    """Whether the best weights of a stage may be needed later: the next stage starts from them, or one that does may
    still be appended to a job whose evaluations say which they are."""
    following = spec.stages[stage.index + 1 : stage.index + 2]
    return any(s.start.weights == BEST for s in following) or (bool(spec.evaluations) and not following)


def start_step(spec: Spec, index: int, before: StageState, boundaries: Sequence[Mapping[str, int]]) -> int | None:
    """The step whose weights stage `index` starts from; None: those that stand. `boundaries` {stage, step} of the
    journal. Raises ConfigurationInvalid."""
    wanted = spec.stages[index].start.weights
    if wanted == PREVIOUS:
        return None
    if wanted == BEST:
        if before.best is None:
            raise ConfigurationInvalid(
                f"stage {spec.stages[index].name}: start.weights is best, but stage {before.name} never reported "
                f"{metric(spec)}; give the job an evaluation, or start from previous"
            )
        return before.best[0]
    name = wanted.removeprefix(OF_STAGE)
    numbers = {s.name: i for i, s in enumerate(spec.stages[:index])}
    found = [b["step"] for b in boundaries if b["stage"] == numbers.get(name, -1)]
    if not found:
        raise ConfigurationInvalid(
            f"stage {spec.stages[index].name}: start.weights names stage {name}, which is none of the stages before "
            f"it ({', '.join(numbers) or 'there are none'})"
        )
    return max(found)
