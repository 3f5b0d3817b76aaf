"""What decides all that is sampled after a state: the name under which the rollout journal keeps it.

Whatever a rollout may follow from is in it, so an attempt takes up only what it would sample itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ratchet_trainer.rollout.rollout_journal import context_of

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime
    from ratchet_trainer.step.stage import Stage
    from ratchet_trainer.step.state import State


def bind(runtime: Runtime, stage: Stage, state: State) -> None:
    """What is sampled from here on is sampled in the step of `stage` after `state`."""
    runtime.rollouts.bind(context_of([runtime.name_of_run, stage.hash, state.step, state.metrics_digest]))
