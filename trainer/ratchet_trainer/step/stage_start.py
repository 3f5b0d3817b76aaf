"""What a stage begins with: data and programs, weights, what slots and companions keep, the first evaluation.

Decides everything that is settled once a stage, before its first step. Where a restart goes on, and when a stage is
entered, is `run`'s matter; which weights are the best, `best_weights`'s; how the manifest becomes data, shapes and
programs, `stage`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ratchet_trainer.algorithm.slots import Context, SlotState
from ratchet_trainer.errors import ConfigurationInvalid
from ratchet_trainer.learning import host_memory
from ratchet_trainer.model.lora import trained
from ratchet_trainer.model.sharding import of_parameter
from ratchet_trainer.process.accelerator import peak_flops
from ratchet_trainer.step import best_weights, curate, preflight, sampling_context, stage_over
from ratchet_trainer.step.dtype_probe import faster
from ratchet_trainer.step.evaluations import Evaluations, due
from ratchet_trainer.step.learning_signs import learning
from ratchet_trainer.step.stage import Programs, Stage, architecture_of, open_stage, programs_of
from ratchet_trainer.step.state import StageState, State, params_of

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime

log = logging.getLogger(__name__)

NOWHERE = StageState(-1, "", "", 0, 0)
"""Before the first stage; also where weights come from that the stage before did not end with."""


def programs_of_job(runtime: Runtime) -> Programs:
    """The programs, in the number format that the checkpoint, the manifest or a measurement says."""
    spec = runtime.job.spec
    if runtime.dtype is None:
        runtime.enter("compile")
        trains_first, dtype = next((stage for stage in spec.stages if stage.curate is None), None), None
        if runtime.process == 0:
            dtype = "float32" if trains_first is None else faster(architecture_of(spec.model)[0], trains_first)
        runtime.compute_in(runtime.broadcast(dtype))
    assert runtime.dtype is not None, "it is known now"
    programs = programs_of(spec.model, runtime.mesh, spec.reproducibility, runtime.dtype)
    runtime.tell_work(programs.parameters, peak_flops(runtime.mesh.devices.flat))
    return programs


def opened(
    runtime: Runtime, programs: Programs, index: int, curated: Mapping[str, str], *, begins: bool
) -> tuple[Stage, str]:
    """Stage `index`, its data read and its programs compiled, and what is to be doubted of its expected answers: they
    are tried where it `begins`, before its first step, when it can still be mended. `curated`: digests of the data sets
    that stages before it have made. Raises ConfigurationInvalid."""
    stage = open_stage(runtime, programs, runtime.job.spec, index, curated)
    trying = begins and stage.spec.rl is not None and runtime.process == 0
    doubts = preflight.of_stage(stage) if trying else ""
    if doubts:
        runtime.tell(learning=learning({}, None, str, doubts).plain())
    stage.prepare()
    host_memory.trim()
    return stage, doubts


def check_inputs(stage: StageState, now: Mapping[str, str]) -> None:
    """Raises ConfigurationInvalid where what a stage that has begun reads is not what it read at its start. `now`: the
    digests that are known now."""
    changed = sorted(k for k, v in stage.inputs.items() if k in now and now[k] != v)
    if changed:
        raise ConfigurationInvalid(
            f"{' and '.join(changed)} of stage {stage.name} changed since step {stage.start_step}, where the stage "
            f"began; restore what it was, or give a later stage new data under a new name"
        )


def with_weights(runtime: Runtime, stage: Stage, state: State) -> tuple[State, bool]:
    """The state with the weights and the optimizer that a stage starts from, and whether these weights are others than
    those that the stage before ended with. Raises ConfigurationInvalid, CheckpointUnreadable."""
    programs, spec, moved = stage.programs, runtime.job.spec, False
    if stage.spec.start.weights != best_weights.PREVIOUS:
        step = best_weights.start_step(spec, stage.index, state.stage, runtime.ended_stages())
        if step is not None and step != state.step:
            arrays = runtime.weights(step, partial(of_parameter, runtime.mesh))
            params = params_of(arrays, trained(programs.template[0]))
            state, moved = replace(state, params=programs.whole(params, spec.seed)), True
            log.info("stage %s starts from the weights of step %d", stage.spec.name, step)
    if stage.spec.start.optimizer == "reset" and stage.spec.curate is None:  # the moments wait for who uses them
        state = replace(state, optimizer=programs.learner.fresh_optimizer(state.params))
    return state, moved


def begun(runtime: Runtime, evaluations: Evaluations, stage: Stage, state: State, *, moved: bool = False) -> State:
    """The state before a stage's first step. `state`: at the end of the stage before, with the weights that this one
    starts from; `moved` as of `with_weights`. Raises Drain in its evaluations."""
    before = NOWHERE if moved else state.stage
    where = StageState(stage.index, stage.spec.name, stage.hash, state.step, state.updates, inputs=stage.inputs)
    state = _with_companions(stage, _with_slots(stage, replace(state, stage=where)))
    return _evaluated(runtime, evaluations, stage, before, state)


def _with_slots(stage: Stage, state: State) -> State:
    """The state with what the slots of the stage's method keep, before they have seen anything."""
    selection, expansion = SlotState({"epoch": 0, "position": 0}), SlotState()
    if stage.spec.rl is not None:
        ctx = Context(stage.seed, state.step, state.next_ordinal, stage.rl, state.step, stage.spec.advance.steps)
        selection = stage.method.selection.init(stage.facts, ctx)
        expansion = stage.method.expansion.init(ctx)
    elif stage.spec.curate is not None:
        selection = curate.beginning(stage.facts.size)
    return replace(state, selection=selection, expansion=expansion)


def _with_companions(stage: Stage, state: State) -> State:
    """The state with the models beside the policy that the stage's method has: a reference, a critic."""
    critic = state.critic if stage.spec.curate is not None else None  # it waits for who uses it, as the moments do
    reference = None
    if stage.spec.rl is not None:
        if stage.method.advantage.critic is not None:
            keep = state.critic is not None and stage.spec.start.critic == "keep"
            critic = state.critic if keep else stage.programs.critic.init(state.params)
        if (kept := stage.method.reference.init(trained(state.params))) is not None:
            reference = stage.programs.learner.copied(kept)
    version = None if reference is None else state.step
    return replace(state, critic=critic, reference=reference, reference_version=version, reference_window={})


def _evaluated(runtime: Runtime, of_job: Evaluations, stage: Stage, before: StageState, state: State) -> State:
    """The state with what the evaluations say of the weights that a stage starts from, unless the stage `before` has
    just evaluated them. A line of the metric stream of its own, at the step that the stage starts from."""
    evaluations = runtime.job.spec.evaluations
    if before.index >= 0:
        steps = runtime.job.spec.stages[before.index].advance.steps
        known = {e.name for e in due(evaluations, state.step, before, steps)}
        evaluations = [e for e in evaluations if e.name not in known]
    if not evaluations:
        return state
    sampling_context.bind(runtime, stage, state)
    metrics = of_job.metrics(evaluations, stage, state, state.step)
    return replace(state, stage=stage_over.observed(state.stage, stage.spec, metrics)).recorded(metrics)
