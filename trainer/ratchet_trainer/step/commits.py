"""When a state is committed, and what may be reported before it is.

Decides the rhythm: every `everySteps` steps, at each boundary, and what stands when the process is told to go. Where an
update takes so long that a process which is told to go in the middle of it has to leave without it, every step is
committed: nothing that is complete is lost then. A save runs beside the next steps, but at most `everySteps` steps are
reported above the last one that is durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ratchet_trainer.step.state import State

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime


class Commits:
    def __init__(self, runtime: Runtime, committed: tuple[int, int]):
        """`committed`: the position that was restored, (0, 0) if none (a run's beginning follows from its seed)."""
        self.runtime = runtime
        self.submitted = committed  # a State.position
        self.durable = committed[0]  # a step

    @property
    def every(self) -> int:
        return self.runtime.job.spec.checkpoint.every_steps

    def step_made(
        self, state: State, target: int, metrics: Mapping[str, float], timing: dict[str, Any], *, slow: bool
    ) -> State:
        """Reports a complete step and commits it if it is due. `slow`: an update may outlast the notice. Returns the
        state without the lines that are on their way."""
        if state.step - self.durable > self.every:
            self._settle()
        self.runtime.step_done(state.step, target, state.stage_shown, dict(metrics), timing)
        due = state.step - self.submitted[0] >= self.every or self.runtime.commit_requested or slow
        return self.commit(state) if due or state.stage.done is not None else state

    def commit(self, state: State) -> State:
        """Hands a state over to be saved; at a boundary it is durable on return."""
        if state.position == self.submitted:
            return state
        from ratchet_trainer.process.runtime import Saved

        self.runtime.enter("save")
        boundary = state.boundary
        saved = Saved(state.step, state.arrays(), state.control(), list(state.lines))
        self.runtime.commit(saved, boundary, wait=boundary is not None)
        self.durable, self.submitted = self.submitted[0], state.position  # the one before had to be joined
        if boundary is not None:
            self.durable = state.step
        return replace(state, lines=())

    def last(self, state: State) -> None:
        """Makes the state durable before the process leaves, then what is sampled of the step after it."""
        self.commit(state)
        self._settle()
        self.runtime.rollouts.write()

    def _settle(self) -> None:
        self.runtime.spend("save")
        self.runtime.wait_for_commits()
        self.durable = self.submitted[0]
