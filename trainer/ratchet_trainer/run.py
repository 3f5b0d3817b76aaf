"""The training loop: select prompts, generate, verify, expand, reward, advantage, update, observe, record, advance.

Reads as the algorithm does. It decides the order of things and nothing else: which prompts, what they are worth and how
the policy moves is said by the six slots of a method (`slots`, `methods`); what survives a preemption, by `state` and
`commits`; how processes agree, by the runtime.

A step makes a complete state from a complete state. Leaving is possible at safe points: before the first update of a
step the state before it stands, after that the step is finished if there is time, else left in its middle (`pending`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet_trainer.algorithm.slots import Context
from ratchet_trainer.algorithm.types import Draw, Group, Request, Rollout
from ratchet_trainer.errors import ConfigurationInvalid, Drain
from ratchet_trainer.learning import host_memory, optimizer
from ratchet_trainer.model.lora import trained
from ratchet_trainer.model.sharding import of_parameter
from ratchet_trainer.rollout.rollout_journal import context_of
from ratchet_trainer.step import advance, nonfinite, sft
from ratchet_trainer.step.commits import Commits
from ratchet_trainer.step.dtype_probe import faster
from ratchet_trainer.step.old_logprobs import judge
from ratchet_trainer.step.pending import Pending, taken_up, written
from ratchet_trainer.step.stage import Programs, Stage, architecture_of, open_stage, programs_of
from ratchet_trainer.step.state import StageState, State, chain, metric_line
from ratchet_trainer.step.step_metrics import rl_metrics, update_timing
from ratchet_trainer.step.updates import Pace, learn

if TYPE_CHECKING:
    from ratchet_trainer.process.runtime import Runtime

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Timing = dict[str, Any]


def run(runtime: Runtime) -> None:
    """Trains the job from its newest checkpoint until the word says that it is finished.

    Raises Drain once what stands is committed, and the errors of `errors`.
    """
    Run(runtime).to_the_end()


class Run:
    """One attempt's work on a job: the latest complete state and what is needed to make the next."""

    def __init__(self, runtime: Runtime):
        self.runtime = runtime
        self.programs: Programs
        self.leaving: Drain | None = None  # told to go after the first update of a step: finish it, then leave
        self.pace = Pace()
        self.stage: Stage
        self.state: State

    def to_the_end(self) -> None:
        self.state = self.begin()
        host_memory.trim()
        self.commits = Commits(self.runtime, self.state.position)
        try:
            while True:
                self.train_stage()
                stage = self.state.stage
                word = self.runtime.boundary(stage.index, self.state.step, stage.done or "")
                if word.ends(stage.index):
                    return
                self.state = self.enter_stage(stage.index + 1)
        except Drain:
            self.commits.last(self.state)
            raise

    def train_stage(self) -> None:
        """Steps until the stage is over; its boundary is committed on return."""
        while self.state.stage.done is None:
            began = time.monotonic()
            self.runtime.spend("other")
            step = self.rl_step if self.stage.spec.rl is not None else self.sft_step
            state, metrics, timing = step(self.state)
            self.runtime.spend("other")
            self.state = self.advance(self.record(state, metrics), metrics)
            timing |= {"seconds": (took := time.monotonic() - began)}
            timing["tokensPerSecond"] = timing.get("generatedTokens", timing["trainedTokens"]) / took
            target = self.state.stage.start_step + self.stage.spec.advance.steps
            self.state = self.commits.step_made(self.state, target, metrics, timing)
            if self.leaving is not None:
                raise self.leaving

    # A step

    def rl_step(self, state: State) -> tuple[State, Metrics, Timing]:
        """One step of reinforcement learning by the stage's method, or what is left of one that was begun."""
        method = self.stage.method
        ctx = Context(self.stage.seed, state.step + 1, state.next_ordinal, self.stage.rl, state.stage.start_step)
        begun = state.pending
        pending = self.batch(state, ctx) if begun is None else taken_up(begun, self.stage)

        # Update.
        self.runtime.enter("update")
        state, pending = self.update(replace(state, pending=None), pending)
        groups, updates = pending.groups, pending.updates

        # Observe.
        selection = method.selection.observe(pending.selection, groups, ctx)
        metrics = rl_metrics(groups, updates, pending.values, state.reference is not None)
        judgement = method.reference.after(metrics, ctx)
        if judgement != "keep":
            reference = self.programs.learner.copied(trained(state.params))
            state = replace(state, reference=reference, reference_version=ctx.step)
        if judgement == "reset+optimizer":
            state = replace(state, optimizer=self.programs.learner.fresh_optimizer(state.params))
        state = replace(
            state,
            step=ctx.step,
            next_ordinal=state.next_ordinal + pending.drawn,
            selection=selection,
            expansion=pending.expansion,
        )
        timing: Timing = {"skippedUpdates": len(pending.parts) - len(updates)} | update_timing(updates)
        # What an earlier attempt has sampled is no work of this one.
        timing["generatedTokens"] = sum(len(r.response) for g in groups for r in g.rollouts) if begun is None else 0
        return state, metrics, timing

    def batch(self, state: State, ctx: Context) -> Pending:
        """What the step is to learn from: rollouts that are judged, and what each of their tokens earns."""
        method, engine, facts = self.stage.method, self.stage.engine, self.stage.facts
        ask = lambda rounds: engine.answer(rounds, state.params, state.step)  # noqa: E731

        self.runtime.rollouts.bind(self.here(state))

        # Select prompts.
        need = self.stage.rl.prompts_per_step
        selection, requests = ask(method.selection.plan(state.selection, facts, need, ctx))
        requests = method.expansion.first(state.expansion, requests, ctx)
        drawn = [r.draw for r in requests]

        # Generate and verify.
        rollouts = engine.sample(requests, state.params, state.step)

        # Expand: what else is sampled, further prompts included.
        def more(n: int) -> list[Draw]:
            nonlocal selection
            later = replace(ctx, next_ordinal=state.next_ordinal + len(drawn))
            selection, further = ask(method.selection.plan(selection, facts, n, later))
            drawn.extend(r.draw for r in further)
            return [r.draw for r in further]

        expansion, groups = ask(method.expansion.run(state.expansion, grouped(requests, rollouts), more, ctx))

        # Reward, then advantage: on the rewards, and on what the models say of the rollouts.
        groups = [method.rewards.score(group, ctx) for group in groups]
        self.runtime.enter("update")
        parts, judged = judge(self.stage, state, [r for g in groups for r in g.rollouts])
        batch = ask(method.advantage.assign(groups, judged, ctx))
        groups = [method.advantage.fate(group) for group in groups]
        values = None if state.critic is None else ()
        return Pending(groups, selection, expansion, len(drawn), batch, parts, values=values)

    def update(self, state: State, pending: Pending) -> tuple[State, Pending]:
        """The step's mini-batches, one after the other, each used up by the update that it is for."""
        for part in pending.left:
            self.before_update(state, pending)
            calls, began = pending.calls, time.monotonic()
            state, pending = learn(self, state, pending, part)
            if pending.calls > calls:
                self.pace.took(time.monotonic() - began)
        return state, pending

    def before_update(self, state: State, pending: Pending) -> None:
        """A safe point. Before the first update of a step the state before it stands. After that, who is told to go
        finishes the step if there is time for it, else leaves with the step as it is."""
        if self.leaving is not None:
            return
        try:
            self.runtime.safe_point()
        except Drain as drain:
            if pending.done == 0:
                raise
            fits = self.pace.of(pending.left) <= self.runtime.seconds_to_finish()
            if self.runtime.broadcast(fits):
                self.leaving = drain
            else:
                self.state = replace(state, pending=written(pending, self.stage))
                raise

    def sft_step(self, state: State) -> tuple[State, Metrics, Timing]:
        """One step of supervised fine-tuning: a batch in epoch order, cross-entropy, one update."""
        stage, settings = self.stage, self.stage.settings
        self.runtime.safe_point()
        position, rows = sft.batch(
            self.runtime,
            stage.source,
            self.programs.tokenizer,
            stage.facts,
            stage.seed,
            state.selection,
            stage.spec.sft,
        )
        self.runtime.enter("update")
        tokens = sum(len(row.response) for row in rows)
        params, moments, found = self.programs.learner.update(
            state.params,
            state.optimizer,
            stage.layout,
            rows,
            np.zeros((len(rows), settings.max_response_tokens)),
            None,
            1.0,
            sft.CrossEntropy(),
            optimizer.numbers(settings.optimizer, state.updates - state.stage.updates_at_start),
        )
        timing = {"gradientNorm": found["gradient_norm"], "trainedTokens": tokens, "skippedUpdates": 0}
        if nonfinite.problem(found):
            nonfinite.skip_or_fail(self, "policy", found, rows, {})
            timing["skippedUpdates"] = 1
        state = replace(
            state,
            step=state.step + 1,
            updates=state.updates + 1 - timing["skippedUpdates"],
            params=params,
            optimizer=moments,
            selection=position,
        )
        return state, {"train/loss": found["loss"], "train/tokens": float(tokens)}, timing

    def here(self, state: State) -> str:
        """What decides all that is sampled in the step after `state`."""
        return context_of([self.runtime.name_of_run, self.stage.hash, state.step, state.metrics_digest])

    # After a step

    def record(self, state: State, metrics: Metrics) -> State:
        """The state with the step's line in the metric stream."""
        line = metric_line(state.step, state.stage.name, metrics)
        return replace(state, lines=(*state.lines, line), metrics_digest=chain(state.metrics_digest, line))

    def advance(self, state: State, metrics: Metrics) -> State:
        """The state with the advance rule applied: process 0 judges, all follow."""
        rules = self.stage.spec.advance
        stage = advance.observed(state.stage, rules, metrics)
        rule = advance.ended_by(stage, rules, state.step)
        return replace(state, stage=replace(stage, done=self.runtime.broadcast(rule)))

    # Beginning and going on

    def begin(self) -> State:
        """The newest committed state, or the one that follows from the seed alone."""
        runtime = self.runtime
        saved = runtime.restore(partial(of_parameter, runtime.mesh))
        self.programs = self.built()
        if saved is None:
            self.open(0)
            runtime.enter("compile")
            params, moments = self.programs.start(runtime.job.spec.seed)
            return self.at_start_of(self.stage, State(0, 0, 0, _NOWHERE, params, moments, {}))
        stage = runtime.job.spec.stages[saved.control["stage"]["index"]]
        state = State.restored(saved.arrays, saved.control, self.programs.arrays_of(stage))
        state = replace(state, params=self.programs.whole(state.params, runtime.job.spec.seed))
        if state.stage.done is None:
            self.open(state.stage.index)
            if self.stage.hash != state.stage.spec_hash:
                raise ConfigurationInvalid(
                    f"stage {state.stage.name} is not the one that the checkpoint of step {state.step} is in the "
                    f"middle of; a stage that has begun cannot change. Restore it, or create another job"
                )
        now = self.stage.inputs if state.stage.done is None else self.programs.inputs  # data may change between stages
        changed = sorted(k for k, v in state.stage.inputs.items() if k in now and now[k] != v)
        if changed:
            raise ConfigurationInvalid(
                f"{' and '.join(changed)} of stage {state.stage.name} changed since step {state.stage.start_step}, "
                f"where the stage began; restore what it was, or give a later stage new data under a new name"
            )
        return state

    def built(self) -> Programs:
        """The programs, in the number format that the checkpoint, the manifest or a measurement says."""
        runtime, spec = self.runtime, self.runtime.job.spec
        if runtime.dtype is None:
            runtime.enter("compile")
            dtype = faster(architecture_of(spec.model)[0], spec.stages[0]) if runtime.process == 0 else None
            runtime.compute_in(runtime.broadcast(dtype))
        return programs_of(spec.model, runtime.mesh, spec.reproducibility, runtime.dtype)

    def enter_stage(self, index: int) -> State:
        """The state at the start of stage `index`: the weights as they are, the optimizer as the stage says."""
        self.open(index)
        state = self.state
        if self.stage.spec.start.optimizer == "reset":
            state = replace(state, optimizer=self.programs.learner.fresh_optimizer(state.params))
        return self.at_start_of(self.stage, state)

    def at_start_of(self, stage: Stage, state: State) -> State:
        where = StageState(stage.index, stage.spec.name, stage.hash, state.step, state.updates, inputs=stage.inputs)
        selection, expansion = {"epoch": 0, "position": 0}, {}
        if stage.spec.rl is not None:
            ctx = Context(stage.seed, state.step, state.next_ordinal, stage.rl)
            selection = stage.method.selection.init(stage.facts, ctx)
            expansion = stage.method.expansion.init(ctx)
        state = replace(state, stage=where, selection=selection, expansion=expansion)
        return self.with_companions(stage, state)

    def with_companions(self, stage: Stage, state: State) -> State:
        """The state with the models beside the policy that the stage's method has: a reference, a critic."""
        critic = reference = None
        if stage.spec.rl is not None:
            if stage.method.advantage.critic is not None:
                keep = state.critic is not None and stage.spec.start.critic == "keep"
                critic = state.critic if keep else self.programs.critic.init(state.params)
            if (kept := stage.method.reference.init(trained(state.params))) is not None:
                reference = self.programs.learner.copied(kept)
        version = None if reference is None else state.step
        return replace(state, critic=critic, reference=reference, reference_version=version)

    def open(self, index: int) -> None:
        """Makes stage `index` ready: reads its data, compiles its programs."""
        self.runtime.enter("compile")
        self.stage = open_stage(self.runtime, self.programs, self.runtime.job.spec, index)
        self.pace = Pace()
        self.stage.prepare()
        host_memory.trim()


_NOWHERE = StageState(-1, "", "", 0, 0)


def grouped(requests: Sequence[Request], rollouts: Sequence[Rollout]) -> list[Group]:
    """Rollouts, which come in request order, as one group a request."""
    groups, at = [], 0
    for request in requests:
        groups.append(Group(request.draw, tuple(rollouts[at : at + request.n])))
        at += request.n
    return groups
