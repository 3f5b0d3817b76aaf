"""What `ratchet explain` says of sampling: how far ahead, in which calls, by whom, and how many workers would pay.

Decides the sentences, and the sizing: with a lag a step takes as long as the longer of its updates and its sampling, so
workers pay until together they sample a step as fast as it is learned from. The seconds are those of a run's ledger.
"""

from __future__ import annotations

import math
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.stages import Stage
from ratchet_api.validate import chips
from ratchet_cli.explain_words import counted

LEARNING = ("verify", "update", "evaluate", "save", "other")
"""Seconds of the ledger that a fleet does not take over."""


def sampling(said: Stage) -> list[str]:
    """How a stage's rollouts are sampled, where the manifest says so."""
    if said.rl is None or said.rl.rollouts is None:
        return []
    lag, calls = said.rl.lag, calls_of(said)
    behind = "by the newest weights" if lag == 0 else (
        f"{counted(lag, 'step')} ahead, by weights that are {counted(lag, 'step')} old by then, which every token's "
        "weight in the loss makes good for"
    )  # fmt: skip
    many = calls * max(1, lag)
    return [f"Sampled {behind}; in {counted(calls, 'call')} a step: more than {many} workers have nothing to do."]


def calls_of(said: Stage) -> int:
    """Calls of a step's first round."""
    assert said.rl is not None, "asked of stages that sample"
    each = said.rl.rollouts.prompts_per_call if said.rl.rollouts is not None else None
    return -(-said.rl.prompts_per_step // (each or said.rl.prompts_per_step))


def fleet(spec: Spec, measured: dict[str, Any] | None) -> list[str]:
    """Who samples; `measured`: seconds by category of a run's ledger, and its steps. Nothing for a job without a
    fleet that nothing was measured of."""
    lines = []
    if (wanted := spec.rollouts) is not None:
        count = wanted.workers
        many = f"{count.min} to {count.max} workers" if count.min != count.max else counted(count.min, "worker")
        where = ", ".join(_where(p) for p in wanted.placements)
        lines.append(f"A fleet of {many} samples for the trainer, each on {where}. Losing one costs its call at most.")
        lines.append(
            f"Without {counted(count.min, 'worker')} for {wanted.wait_seconds} s the trainer gives its machines back "
            "until they run."
        )
    return lines + ([] if measured is None else _sizing(spec, measured))


def _where(said: Placement) -> str:
    return said.name if said.cpu is not None else f"{said.name} ({counted(chips(said), 'chip')})"


def _sizing(spec: Spec, measured: dict[str, Any]) -> list[str]:
    """How many workers pay, from the seconds of a run whose trainer sampled itself."""
    steps, seconds = measured["steps"], measured["seconds"]
    sampled, learned = seconds.get("generate", 0.0), sum(seconds.get(k, 0.0) for k in LEARNING)
    if not steps or not sampled or not learned:
        return ["No sizing: the run that was measured has not sampled a step itself yet."]
    each, update = sampled / steps, learned / steps
    stages = [stage for stage in spec.stages if stage.rl is not None]
    most = max((calls_of(stage) for stage in stages), default=1)
    pays = max(1, math.ceil(each / update - 0.05))
    lines = [f"Measured over {counted(steps, 'step')}: {each:.2f} s of sampling and {update:.2f} s of all else a step."]
    if most < pays:
        lines.append(
            f"{counted(pays, 'worker')} like the trainer would keep up with it, but a step has "
            f"{counted(most, 'call')}: lower rl.rollouts.promptsPerCall first."
        )
    lines.append(
        f"With rl.rollouts.lag 1 and {counted(min(pays, most), 'worker')} like the trainer a step takes about "
        f"{max(update, each / min(pays, most)):.2f} s instead of {each + update:.2f} s; with lag 0, "
        f"{update + each / min(pays, most):.2f} s. More workers change nothing."
    )
    return lines
