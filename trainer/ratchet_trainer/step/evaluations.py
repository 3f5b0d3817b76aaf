"""Evaluations while a stage trains: held-out data sets that are answered every so many steps.

Decides when one is due, how its answers are sampled and what it reports. An evaluation is a function of the weights and
the step alone: its draws are numbered by the items, its keys by the step, so one that was cut short is made again with
the same answers. What it says is committed with the step's metrics, and rules and guards may watch it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import comb
from typing import TYPE_CHECKING

from ratchet_api.evaluations import Evaluation
from ratchet_trainer.algorithm.keys import Purpose
from ratchet_trainer.algorithm.types import Draw, Request, Rollout
from ratchet_trainer.step import stage_over
from ratchet_trainer.step.state import StageState, State

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Stage

log = logging.getLogger(__name__)

Metrics = dict[str, float]
PREFIX = "evaluation/"


def due(evaluations: Sequence[Evaluation], step: int, stage: StageState, steps: int) -> list[Evaluation]:
    """Those that are due after `step` of a stage of at most `steps` steps: every so many steps, and at its limit."""
    made = step - stage.start_step
    return [e for e in evaluations if made % e.every_steps == 0 or made >= steps]


def pass_at(k: int, samples: int, right: int) -> float:
    """The chance that one of k answers, drawn from `samples` of which `right` are right, is right: unbiased, 1 -
    C(samples - right, k) / C(samples, k) (arXiv 2107.03374, equation 1)."""
    return 1.0 - comb(samples - right, k) / comb(samples, k)


def metrics_of(evaluation: Evaluation, rollouts: Sequence[Rollout]) -> Metrics:
    """What an evaluation reports; `rollouts` come item by item. Float64, left to right."""
    n = evaluation.samples
    right = [sum(r.outcome.accuracy == 1.0 for r in rollouts[i : i + n]) for i in range(0, len(rollouts), n)]

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(rollouts)

    found = {
        "accuracy": mean([r.outcome.accuracy for r in rollouts]),
        "score": mean([r.outcome.score for r in rollouts]),
        "truncated": mean([float(r.finish == "length") for r in rollouts]),
        "response_tokens": mean([float(len(r.response)) for r in rollouts]),
    }
    found |= {f"pass_at_{k}": sum(pass_at(k, n, c) for c in right) / len(right) for k in evaluation.pass_at}
    return {f"{PREFIX}{evaluation.name}/{name}": value for name, value in found.items()}


class Evaluations:
    """The evaluations of a job, with what they have read and compiled for the stage under way."""

    def __init__(self, runtime: Runtime):
        self.runtime = runtime

    def due(self, step: int, stage: StageState, open_stage: Stage, metrics: Metrics) -> list[Evaluation]:
        """Those that are due after a step with these metrics. Where they end the job's last stage before its limit, all
        are: what a run ends with is evaluated. Raises as `stage_over.ended_by`."""
        spec, opened = self.runtime.job.spec, open_stage.spec
        found = due(spec.evaluations, step, stage, opened.advance.steps)
        if len(found) == len(spec.evaluations) or open_stage.index < len(spec.stages) - 1:
            return found
        ended = stage_over.ended_by(stage_over.observed(stage, opened, metrics), opened, step)
        return found if ended is None else list(spec.evaluations)

    def metrics(self, evaluations: Sequence[Evaluation], stage: Stage, state: State, step: int) -> Metrics:
        """What the evaluations say of the state's weights after `step`. *Collective.* Raises Drain."""
        found: Metrics = {}
        for evaluation in evaluations:
            engine, items = stage.evaluation(evaluation)
            self.runtime.enter("evaluate")
            requests = [Request(Draw(item, item), Purpose.EVAL, evaluation.samples, tag=step) for item in items]
            rollouts = engine.sample(requests, state.params, step, phase="evaluate")
            found |= metrics_of(evaluation, rollouts)
            log.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in found.items()))
        return found
