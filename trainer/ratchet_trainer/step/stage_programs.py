"""Which programs a stage runs: of its updates, its samples and its evaluations.

Decides that list alone. Each entry lowers its programs when it is called, so that the stage can have them compiled side
by side (`Stage.prepare`), and `ratchet fit` one by one for devices that nobody has (`tools/fit.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from ratchet_api.evaluations import Evaluation
from ratchet_trainer.learning import optimizer
from ratchet_trainer.model.programs import Program
from ratchet_trainer.rollout.truncation import GREEDY, Truncation
from ratchet_trainer.step import sft

if TYPE_CHECKING:
    from ratchet_trainer.step.stage import Stage

Programs = Callable[[], Iterator[Program]]


def of_stage(stage: Stage, items: Callable[[Evaluation], int]) -> Iterator[Programs]:
    """Of every program of a stage. `items`: how many items an evaluation answers; asked in the order of the manifest,
    as the answer may be a collective."""
    learner, (params, state) = stage.programs.learner, stage.programs.template
    if stage.spec.sft is not None:
        numbers = optimizer.numbers(stage.optimizer, 0)
        yield partial(
            learner.programs, params, state, stage.layout, sft.CrossEntropy(), numbers,
            sampled=False, old=False, reference=False,
        )  # fmt: skip
    elif stage.spec.rl is not None:
        old, reference = stage.needs_old_logprobs, stage.method.reference.init(params) is not None
        numbers, objective = optimizer.numbers(stage.optimizer, 0), stage.method.objective
        for layout in stage.layouts:
            yield partial(
                learner.programs, params, state, layout, objective, numbers,
                sampled=True, old=old, reference=reference,
            )  # fmt: skip
        if stage.method.advantage.critic is not None:
            for layout in stage.layouts:
                yield partial(stage.programs.critic.programs, layout, stage.critic_numbers(0))
    sampler = stage.programs.sampler
    for samples in stage.sample_counts:
        yield partial(stage.shape.programs, sampler, params, samples, stage.cut)
    for evaluation in stage.job.evaluations:
        shape = stage.evaluation_shape(evaluation, items(evaluation))
        yield partial(shape.programs, sampler, params, evaluation.samples, cut_of(evaluation))


def cut_of(evaluation: Evaluation) -> Truncation | None:
    """Which tokens an evaluation's answers are drawn from: the likeliest alone, unless it says a temperature or asks
    for several."""
    return GREEDY if evaluation.temperature is None and evaluation.samples == 1 else None
