"""The training loop: select, generate, verify, reward, expand, advantage, update, observe, evaluate, record, advance.

Reads as the algorithm does. It decides the order of things and nothing else: which prompts, what they are worth and how
the policy moves is said by the six slots of a method (`algorithm.slots`, `algorithm.methods`); what survives a
preemption, by `step.state` and `step.commits`; how processes agree, by the runtime.

A step makes a complete state from a complete state. Leaving is possible at safe points: before the first update of a
step the state before it stands, after that the step is finished if there is time, else left in its middle (`pending`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ratchet_api.method import has_critic, samples_values
from ratchet_trainer.algorithm.group_outcomes import verified
from ratchet_trainer.algorithm.slots import Context, SlotState
from ratchet_trainer.algorithm.types import Batch, Group, Request, Rounds, StepSamples, grouped
from ratchet_trainer.errors import BudgetExceeded, BudgetSpent, ConfigurationInvalid, Drain, GuardTripped, StageFailed
from ratchet_trainer.learning import host_memory, optimizer
from ratchet_trainer.model.lora import trained
from ratchet_trainer.model.sharding import of_parameter
from ratchet_trainer.step import (
    artifacts,
    best_weights,
    curate,
    nonfinite,
    plans,
    sampling_context,
    sft,
    stage_budget,
    stage_over,
    stage_start,
)
from ratchet_trainer.step.commits import Commits
from ratchet_trainer.step.evaluations import Evaluations
from ratchet_trainer.step.learning_signs import NOT_APPLICABLE, NOTHING_MOVES, learning
from ratchet_trainer.step.old_logprobs import MiniBatch, model_outputs, with_old_logprobs
from ratchet_trainer.step.pending import Pending, taken_up, written
from ratchet_trainer.step.planner import Planner
from ratchet_trainer.step.samples import SampleBook
from ratchet_trainer.step.sampling_weights import SamplingWeights, lacks
from ratchet_trainer.step.stage import Programs, Stage
from ratchet_trainer.step.stage_data import check_later_stages
from ratchet_trainer.step.state import StageState, State
from ratchet_trainer.step.step_metrics import rl_metrics, update_timing
from ratchet_trainer.step.updates import Pace, learn

if TYPE_CHECKING:
    from ratchet_trainer.process.durable_state import Saved
    from ratchet_trainer.process.runtime import Runtime

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Timing = dict[str, Any]
R = TypeVar("R")


def run(runtime: Runtime) -> None:
    """Trains the job from its newest checkpoint until the gate says that it is finished.

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
        self.evaluations = Evaluations(runtime)
        self.samples = SampleBook(runtime)
        self.exported: dict[int, dict[str, Any]] = {}  # by stage
        self.latest: StepSamples | None = None  # what the step just made sampled
        self.said = ""  # the last reason of the condition Learning
        self.doubts = ""  # what the preflight said of the stage's expected answers
        self.stage: Stage
        self.weights: SamplingWeights
        self.planner: Planner
        self.state: State

    def to_the_end(self) -> None:
        self.state = self.begin()
        host_memory.trim()
        self.commits = Commits(self.runtime, self.state.position)
        try:
            while True:
                self.train_stage()
                self.weights.withdraw()
                self.export()
                stage = self.state.stage
                self.runtime.last_words(self.state.stage_shown)
                gate = self.runtime.boundary(stage.index, self.state.step, stage.done or "", stage.needs_approval)
                if gate.ends(stage.index):
                    return
                self.state = self.enter_stage(stage.index + 1)
        except Drain:
            self.commits.last(self.state)
            raise

    def train_stage(self) -> None:
        """Steps until the stage is over; its boundary is committed on return."""
        while self.state.stage.done is None:
            self.keep_to_budget()
            began = time.monotonic()
            self.runtime.spend("other")
            step = self.step_of_kind
            try:
                state, metrics, timing = step(self.state)
                self.runtime.spend("other")
                self.state = self.advance(state.recorded(metrics), metrics)
            except (GuardTripped, StageFailed):  # the message sends people to the samples
                if self.stage.spec.rl is not None and self.latest is not None:
                    last = self.state
                    self.samples.keep(self.stage, last.stage.start_step, last.step + 1, self.latest, anyway=True)
                raise
            self.tell_of_learning()
            timing |= {"seconds": (took := time.monotonic() - began)}
            trained_tokens: int = timing["trainedTokens"]
            timing["tokensPerSecond"] = timing.get("generatedTokens", trained_tokens) / took
            target = self.state.stage.start_step + self.stage.steps
            slow = self.runtime.broadcast(self.pace.outlasts(self.runtime.grace / 2))
            self.state = self.commits.step_made(self.state, target, metrics, timing, slow=slow)
            if self.leaving is not None:
                raise self.leaving

    def keep_to_budget(self) -> None:
        """Leaves where the stage may sample no more, with the steps that it has made."""
        try:
            stage_budget.check(self.state.stage, self.runtime.job.spec)
        except (BudgetSpent, BudgetExceeded) as end:
            self.runtime.last_words(self.state.stage_shown, end.reason, str(end))
            self.commits.last(self.state)
            self.runtime.broadcast(True)  # whoever leaves first has the others leave: process 0 has said why by now
            raise

    def export(self) -> None:
        """Writes the weights of the stage that is over, where the job wants them."""
        if self.runtime.job.spec.export is None or self.state.stage.index in self.exported:
            return
        self.runtime.enter("save")
        if (artifact := artifacts.export(self.runtime, self.programs, self.state)) is not None:
            self.exported[self.state.stage.index] = artifact
            self.runtime.tell(artifacts=list(self.exported.values()))

    # A step

    @property
    def step_of_kind(self) -> Callable[[State], tuple[State, Metrics, Timing]]:
        """What makes a step of the stage."""
        if self.stage.spec.curate is not None:
            return self.curate_step
        return self.rl_step if self.stage.spec.rl is not None else self.sft_step

    def curate_step(self, state: State) -> tuple[State, Metrics, Timing]:
        """One step of making a data set: further items are answered, no weight moves. The last step leaves the file. A
        process that is told to go meanwhile leaves the state before; what was sampled is kept."""
        self.about_to_sample(state)
        state, metrics, timing = curate.step(self.stage, state)
        state = replace(state, stage=stage_budget.counted(state.stage, timing["generatedTokens"]))
        if due := self.evaluations.due(state.step, state.stage, self.stage, metrics):
            metrics |= self.evaluations.metrics(due, self.stage, state, state.step)
        return (curate.finished(self.stage, self.runtime, state) if curate.over(state) else state), metrics, timing

    def rl_step(self, state: State) -> tuple[State, Metrics, Timing]:
        """One step of reinforcement learning by the stage's method, or what is left of one that was begun."""
        method = self.stage.method
        steps, decode = self.stage.spec.advance.steps, self.programs.tokenizer.decode
        first = state.stage.start_step
        ctx = Context(self.stage.seed, state.step + 1, state.next_ordinal, self.stage.rl, first, steps, decode)
        begun = state.pending
        self.about_to_sample(state)
        made = self.stage.engine.tokens
        pending = self.batch(state, ctx) if begun is None else taken_up(begun, self.stage)

        # Update.
        self.runtime.enter("update")
        state, pending = self.update(replace(state, pending=None), pending)
        samples, updates = pending.samples, pending.updates
        self.runtime.spend("other")  # what slots compute on the host is no part of an update

        # Observe.
        selection = method.selection.observe(pending.selection, samples, ctx)
        behind = plans.staleness(ctx) * self.stage.rl.updates_per_step if self.stage.rl.lag else None
        metrics = rl_metrics(samples, updates, pending.values, state.reference is not None, behind)
        metrics |= method.selection.metrics(selection, ctx) | method.expansion.metrics(pending.expansion, ctx)
        state = replace(
            state,
            next_ordinal=state.next_ordinal + pending.drawn,
            selection=selection,
            expansion=pending.expansion,
            planned=pending.planned,
        )

        self.samples.keep(self.stage, state.stage.start_step, ctx.step, samples)
        self.latest = samples
        self.weights.now(replace(state, step=ctx.step))  # workers may fetch them while others evaluate

        # Evaluate, and move the reference.
        metrics |= self.evaluated(state, pending, ctx.step, metrics)
        window, judgement = method.reference.after(state.reference_window, metrics, ctx)
        state = replace(state, reference_window=window)
        if judgement != "keep":
            log.info("step %d: its weights are the reference from now on (%s)", ctx.step, judgement)
            reference = self.programs.learner.copied(trained(state.params))
            state = replace(state, reference=reference, reference_version=ctx.step)
        if judgement == "reset+optimizer":
            state = replace(state, optimizer=self.programs.learner.fresh_optimizer(state.params))
        state = replace(state, step=ctx.step, stage=stage_budget.counted(state.stage, pending.generated))
        timing: Timing = {"skippedUpdates": len(pending.parts) - len(updates)} | update_timing(updates)
        # What an earlier attempt has sampled is no work of this one.
        timing["generatedTokens"] = self.stage.engine.tokens - made
        timing["draws"] = dict(Counter(str(group.disposition) for group in samples.groups))
        return state, metrics, timing

    def about_to_sample(self, state: State) -> None:
        """Before a step that samples: names what it will sample, evaluations of a step that was begun included. Who was
        told to go since the step before need not wait for the first chunk."""
        sampling_context.bind(self.runtime, self.stage, state)
        if state.pending is None:
            self.runtime.enter("generate")
            self.runtime.safe_point()

    def batch(self, state: State, ctx: Context) -> Pending:
        """What the step is to learn from: verified and rewarded rollouts, and what each of their tokens earns."""
        method, engine, facts = self.stage.method, self.stage.engine, self.stage.facts
        before = engine.tokens

        # Select prompts, of later steps too.
        self.runtime.spend("other")
        selection, (plan, *planned), drawn = self.planner.plan(state, ctx)
        sampler = self.weights.of(plan, state)

        def ask(rounds: Rounds[R]) -> R:
            return engine.answer(rounds, sampler.params, sampler.version)

        def reward(group: Group) -> Group:
            return method.rewards.score(group, ctx)

        # Generate and verify.
        engine.bind(ctx.step, sampler.digest, "first")
        rollouts = engine.sample(plan.requests, sampler.params, sampler.version) if plan.requests else []
        engine.bind(ctx.step, sampler.digest, "later")

        # Reward. What was scored and not chosen is only counted from here on.
        groups = [reward(group) for group in (*plan.ready, *grouped(plan.requests, rollouts))]
        groups.sort(key=lambda group: group.draw.ordinal)
        unchosen = [group for group in groups if group.disposition is not None]

        # Expand: what else is sampled, verified and rewarded, further prompts included.
        def more(n: int) -> list[Request]:
            nonlocal selection, drawn
            later = replace(ctx, next_ordinal=state.next_ordinal + drawn)
            selection, further, ready = ask(method.selection.plan(selection, facts, n, later))
            unchosen.extend(reward(group) for group in ready)
            drawn += len(further) + len(ready)
            return method.expansion.first(state.expansion, further, later)

        groups, failed = verified([group for group in groups if group.disposition is None])
        expansion, samples = ask(method.expansion.run(state.expansion, groups, more, reward, ctx))
        if carried := [group for group in samples.dropped if group.disposition == "carried"]:
            self.runtime.spend("update")
            expansion = method.expansion.keep(expansion, with_old_logprobs(self.stage, state, carried))
        samples = replace(samples, dropped=(*samples.dropped, *failed, *unchosen))

        # Advantage: on the rewards, and on what the models say of the rollouts.
        self.runtime.enter("update")
        parts: Sequence[MiniBatch] = []
        batch = Batch((), np.zeros((0, self.stage.rl.max_response_tokens)))
        if samples.trained:
            parts, outputs = model_outputs(self.stage, state, samples.rollouts)
            self.runtime.spend("other")
            batch = ask(method.advantage.assign(samples.trained, outputs, ctx))
        samples = StepSamples(tuple(map(method.advantage.disposition, samples.trained)), samples.dropped)
        values = None if state.critic is None else ()
        generated = engine.tokens - before
        return Pending(
            samples, selection, expansion, drawn, batch, parts, generated, values=values, planned=tuple(planned)
        )

    def evaluated(self, state: State, pending: Pending, step: int, metrics: Metrics) -> Metrics:
        """What the evaluations that are due after `step` say of the state's weights; none are due in most steps. Who is
        told to go leaves with the step's updates made, and evaluates again. `metrics`: the step's."""
        due = self.evaluations.due(step, state.stage, self.stage, metrics)
        if not due:
            return {}
        if self.leaving is not None:  # the step was finished because there was time for its updates alone
            self.state = self.state_of(state, pending)
            raise self.leaving
        try:
            return self.evaluations.metrics(due, self.stage, state, step)
        except Drain:
            self.state = self.state_of(state, pending)
            raise

    def state_of(self, state: State, pending: Pending) -> State:
        """The state in the middle of a step, whose updates stand as far as they are made."""
        before = self.state
        return replace(
            state,
            next_ordinal=before.next_ordinal,
            selection=before.selection,
            expansion=before.expansion,
            planned=before.planned,
            pending=written(pending, self.stage),
        )

    def update(self, state: State, pending: Pending) -> tuple[State, Pending]:
        """The step's mini-batches, one after the other, each used up by the update that it is for."""
        for part in pending.left:
            self.before_update(state, pending)
            calls, began = pending.calls, time.monotonic()
            state, pending = learn(self.stage, self.runtime, state, pending, part)
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
        """One step of supervised fine-tuning: a batch in epoch order, cross-entropy, one update. Of one that was left
        in its evaluations, these."""
        before, stage = state, self.stage
        if state.pending is None:
            state, metrics, timing = self.sft_update(state)
        else:
            state, metrics = sft.taken_up(state)
            timing = {"trainedTokens": 0, "skippedUpdates": 0}
        if due := self.evaluations.due(state.step, state.stage, stage, metrics):
            sampling_context.bind(self.runtime, self.stage, state)
            try:
                metrics |= self.evaluations.metrics(due, stage, state, state.step)
            except Drain:  # the update used up the weights before it
                self.state = sft.left(before, state, metrics)
                raise
        return state, metrics, timing

    def sft_update(self, state: State) -> tuple[State, Metrics, Timing]:
        stage, settings = self.stage, self.stage.spec.sft
        assert settings is not None, "the step of a supervised stage"
        self.runtime.safe_point()
        position, rows = sft.batch(
            self.runtime,
            stage.source,
            self.programs.tokenizer,
            stage.facts,
            stage.seed,
            state.selection.plain,
            settings,
        )
        self.runtime.enter("update")
        began = time.monotonic()
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
            optimizer.numbers(stage.optimizer, state.updates - state.stage.updates_at_start),
        )
        self.pace.took(time.monotonic() - began)
        timing: Timing = {"gradientNorm": found["gradient_norm"], "trainedTokens": tokens, "skippedUpdates": 0}
        if nonfinite.problem(found):
            nonfinite.skip_or_fail(self.stage, self.runtime, state.step + 1, "policy", found, rows, {})
            timing["skippedUpdates"] = 1
        state = replace(
            state,
            step=state.step + 1,
            updates=state.updates + 1 - timing["skippedUpdates"],
            params=params,
            optimizer=moments,
            selection=SlotState(position),
        )
        return state, {"train/loss": found["loss"], "train/tokens": float(tokens)}, timing

    # After a step

    def tell_of_learning(self) -> None:
        """Says whether the stage learns; where it no longer does, what was sampled is kept to be looked at."""
        if self.stage.spec.rl is None:
            none = NOT_APPLICABLE if self.stage.spec.sft is not None else NOTHING_MOVES
            self.runtime.tell(learning=none.plain())
            return
        decode = self.stage.programs.tokenizer.decode
        has_values = has_critic(self.stage.rl) or samples_values(self.stage.rl)
        found = learning(self.state.stage.windows, self.latest, decode, self.doubts, has_values=has_values)
        if found.status == "False" and found.reason != self.said and self.latest is not None:
            self.samples.keep(self.stage, self.state.stage.start_step, self.state.step, self.latest, anyway=True)
        self.said = found.reason
        self.runtime.tell(learning=found.plain())  # once the samples are there

    def advance(self, state: State, metrics: Metrics) -> State:
        """The state with the advance rule applied: process 0 judges, all follow."""
        spec = self.stage.spec
        stage = stage_over.observed(state.stage, spec, metrics)
        stage = best_weights.compared(stage, self.runtime.job.spec, metrics, state.step)
        self.runtime.commit_requested |= state.step in self.pin_best(stage)
        ended = stage_over.ended_by(stage, spec, state.step)
        if ended is None and spec.curate is not None and curate.over(state):
            ended = stage_over.Ended(curate.DONE, spec.advance.approval == "Manual")
        told = self.runtime.broadcast([ended.rule, ended.needs_approval] if ended is not None else None)
        done, needs_approval = told or (None, False)
        planned = state.planned if done is None else ()  # ordinals of what is never sampled stay spent
        return replace(state, stage=replace(stage, done=done, needs_approval=needs_approval), planned=planned)

    def pin_best(self, stage: StageState) -> set[int]:
        """Has the checkpoint of the stage's best weights kept, if they are needed later; its step."""
        wanted = stage.best is not None and best_weights.kept(self.runtime.job.spec, stage)
        steps = {stage.best[0]} if wanted and stage.best is not None else set()
        self.runtime.pin(steps)
        return steps

    # Beginning and going on

    def begin(self) -> State:
        """The newest committed state, or the one that follows from the seed alone."""
        runtime = self.runtime
        saved = runtime.restore(partial(of_parameter, runtime.mesh), partial(lacks, runtime))
        self.programs = stage_start.programs_of_job(runtime)
        self.weights = SamplingWeights(runtime, self.programs)
        if saved is not None:
            return self.restored(saved)
        artifacts.check(runtime)
        check_later_stages(runtime, self.programs, runtime.job.spec)
        self.open(0)
        runtime.enter("compile")
        params, moments = self.programs.start(runtime.job.spec.seed)
        state = State(0, 0, 0, stage_start.NOWHERE, params, moments)
        try:
            return stage_start.begun(runtime, self.evaluations, self.stage, state)
        except Drain:  # in the first evaluations: nothing is to be committed, what they sampled is kept
            runtime.rollouts.write()
            raise

    def restored(self, saved: Saved) -> State:
        """The state of a checkpoint, its stage ready to go on. Raises ConfigurationInvalid where the stage or what it
        reads is not what it was."""
        spec = self.runtime.job.spec
        arrays = self.programs.arrays_of(spec.stages, saved.control["stage"]["index"])
        state = State.restored(saved.arrays, saved.control, arrays)
        self.pin_best(state.stage)  # the next commit may come before the next step is over
        state = replace(state, params=self.programs.whole(state.params, spec.seed))
        if state.stage.done is None:
            self.open(state.stage.index, begins=False, curated=state.curated)
            if self.stage.hash != state.stage.spec_hash:
                raise ConfigurationInvalid(
                    f"stage {state.stage.name} is not the one that the checkpoint of step {state.step} is in the "
                    f"middle of; a stage that has begun cannot change. Restore it, or create another job"
                )
        now = self.stage.inputs if state.stage.done is None else self.programs.inputs  # data may change between stages
        stage_start.check_inputs(state.stage, now)
        return state

    def enter_stage(self, index: int) -> State:
        """The state at the start of stage `index`, made of the one at the end of the stage before."""
        self.open(index, curated=self.state.curated)
        state, moved = stage_start.with_weights(self.runtime, self.stage, self.state)
        return stage_start.begun(self.runtime, self.evaluations, self.stage, state, moved=moved)

    def open(self, index: int, *, begins: bool = True, curated: Mapping[str, str] | None = None) -> None:
        """Makes stage `index` ready, in place of the one before. `begins`: before its first step. `curated`: digests of
        the data sets that stages before it have made."""
        self.runtime.enter("compile")
        if hasattr(self, "stage"):
            self.stage.close()
        self.stage, self.doubts = stage_start.opened(self.runtime, self.programs, index, curated or {}, begins=begins)
        self.weights.serve(self.stage)
        self.planner = Planner(self.stage, self.weights)
        self.pace = Pace()
