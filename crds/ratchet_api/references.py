"""Whether what a spec names exists: metrics of evaluations and rewards, data sets of evaluations, stages to start from.

Decides which names a stage may watch or start from, and whether what it watches can come often enough. A rule that
waits for a metric that never comes would wait for ever, and a guard on one would never trip.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence

from ratchet_api import expansion
from ratchet_api.advance import Guard, When
from ratchet_api.curation import can_keep
from ratchet_api.datasets import Dataset
from ratchet_api.drift import plateau, reference
from ratchet_api.job import Spec
from ratchet_api.metric_ranges import metric_range
from ratchet_api.stage_metrics import CONDITIONAL, RL_METRICS, SFT_METRICS, SHORT_NAMES, full_metric
from ratchet_api.stages import Rl, Stage

EVALUATION, REWARD, OF_STAGE = "evaluation/", "reward/", "stage/"
OF_EVALUATIONS = ("accuracy", "score", "truncated", "response_tokens")
"""What every evaluation reports, beside pass_at_K for its own K."""

Found = Iterator[tuple[str, str]]
"""Path and message of each problem."""


def broken_references(spec: Spec) -> Found:
    """What a spec names that is not there, or that can be of no use."""
    yield from _evaluations(spec)
    yield from _hints(spec)
    yield from _budgets(spec)
    for i, stage in enumerate(spec.stages):
        path = f"spec.stages[{i}]"
        watched = [(f"{path}.advance.when[{j}].metric", rule.metric) for j, rule in enumerate(stage.advance.when)]
        watched += [(f"{path}.guards[{j}].metric", guard.metric) for j, guard in enumerate(stage.guards)]
        for place, metric in watched:
            if (message := _unknown_metric(spec, stage, full_metric(metric))) is not None:
                yield place, message
        for j, rule in enumerate(stage.advance.when):
            if (message := _never_holds(spec, stage, full_metric(rule.metric), _values(rule))) is not None:
                yield f"{path}.advance.when[{j}]", message
            if (found := _out_of_reach(stage, rule)) is not None:
                yield f"{path}.advance.when[{j}].{found[0]}", found[1]
        for j, guard in enumerate(stage.guards):
            if (message := _never_holds(spec, stage, full_metric(guard.metric), guard.window)) is not None:
                yield f"{path}.guards[{j}].window", message
            if (found := _out_of_reach(stage, guard)) is not None:
                yield f"{path}.guards[{j}].{found[0]}", found[1]
        if (found := _unfit_plateau(spec, stage)) is not None:
            yield f"{path}.rl.reference.{found[0]}", found[1]
        if (message := _keeps_nothing(stage)) is not None:
            yield f"{path}.curate.keep", message
        if (message := _wrong_start(spec, i)) is not None:
            yield f"{path}.start.weights", message
        for name in stage.dataset_names:
            if (message := _not_yet_made(spec, i, name)) is not None:
                yield f"{path}.{next(n for n in ('sft', 'rl', 'curate') if getattr(stage, n) is not None)}", message
    for i, dataset in enumerate(spec.datasets):
        if dataset.from_stage is not None:
            makers = [stage.name for stage in spec.stages if stage.curate is not None]
            if dataset.from_stage not in makers:
                name = dataset.from_stage
                yield f"spec.datasets[{i}].fromStage", f"{name} is no curate stage{_near(name, makers)}"


def _evaluations(spec: Spec) -> Found:
    trained_on = {name: stage.name for stage in spec.stages for name in stage.dataset_names}
    for i, evaluation in enumerate(spec.evaluations):
        dataset = next((d for d in spec.datasets if d.name == evaluation.dataset), None)
        path = f"spec.evaluations[{i}].dataset"
        if dataset is None:
            known = [d.name for d in spec.datasets]
            yield path, f"{evaluation.dataset} is not in spec.datasets{_near(evaluation.dataset, known)}"
        elif dataset.from_stage is not None:
            yield path, f"{dataset.name} is made by stage {dataset.from_stage} to be trained on; name another data set"
        elif dataset.file is not None and dataset.name in trained_on:
            yield (
                path,
                f"stage {trained_on[dataset.name]} trains on every item of {dataset.name}, so none is held out; give a "
                "file of other questions as a data set of its own",
            )


def _has_hints(spec: Spec, dataset: Dataset) -> bool:
    """Whether items have hints: those of the file, or made by a stage on the way from it."""
    for _ in range(len(spec.stages) + 1):  # a manifest may lead in a circle, which is another problem of it
        maker = next((stage for stage in spec.stages if stage.name == dataset.from_stage), None)
        if maker is None or maker.curate is None:
            break
        if maker.curate.hints is not None:
            return True
        dataset = next((d for d in spec.datasets if d.name == maker.curate.dataset), dataset)
    return dataset.file is not None and dataset.file.hints is not None


def _hints(spec: Spec) -> Found:
    for i, stage in enumerate(spec.stages):
        if stage.rl is None or expansion.kind(stage.rl) != "hints":
            continue
        if (message := _no_hint_in_time(stage.rl, stage.advance.steps)) is not None:
            yield f"spec.stages[{i}].rl.expansion.exemptSteps", message
        for dataset in (d for d in spec.datasets if d.name in stage.dataset_names):
            if not _has_hints(spec, dataset):
                way = "say in its hints which key they have" if dataset.file else "take a file that has some"
                if dataset.from_stage is not None:
                    way = f"have stage {dataset.from_stage} make some (curate.hints)"
                yield (
                    f"spec.stages[{i}].rl.expansion",
                    f"kind hints needs hints, and data set {dataset.name} has none; {way} (docs/data.md)",
                )


def _no_hint_in_time(rl: Rl, steps: int) -> str | None:
    """Why a stage of so many steps is over before its first hint; None if it is not."""
    exempt, patience = expansion.exempt_steps(rl, steps), expansion.patience(rl)
    if exempt < steps or (patience is not None and patience < steps):
        return None
    return (
        f"the first {exempt} steps are without hints, and the stage has {steps}, so none would be given; make it "
        f"smaller (15 % of the steps are usual: {steps * expansion.EXEMPT // 100}), or take expansion {{kind: none}}"
    )


def _keeps_nothing(stage: Stage) -> str | None:
    """Why a curate stage keeps no item, however they are answered; None if it may keep some."""
    if stage.curate is None or can_keep(stage.curate.samples, stage.curate.keep):
        return None
    keep = stage.curate.keep
    return (
        f"no share of {stage.curate.samples} responses lies between {keep.low or 'more than none'} and "
        f"{keep.high or 'fewer than all'}, so nothing could be kept; take wider bounds, or more samples"
    )


def _unknown_metric(spec: Spec, stage: Stage, metric: str) -> str | None:
    """Why a stage never reports a metric, which has its full name; None if it does."""
    if metric.startswith(EVALUATION):
        return _unknown_of_evaluation(spec, metric.removeprefix(EVALUATION))
    if stage.curate is not None:
        return None  # the type's rules
    if stage.rl is None:
        if metric in SFT_METRICS:
            return None
        return f"an sft stage reports no {metric}; it reports {', '.join(SFT_METRICS)} and those of evaluations"
    if metric.startswith(REWARD):
        parts = [reward.name for reward in stage.rl.rewards] or ["accuracy"]
        name = metric.removeprefix(REWARD)
        return None if name in parts else f"no reward {name} in rl.rewards of this stage{_near(name, parts)}"
    for conditional, _, emits, way_out in CONDITIONAL:
        if metric == conditional and not emits(stage.rl):
            return way_out
    if metric in RL_METRICS:
        return None
    return f"an rl stage reports no {metric}{_near(metric, [*RL_METRICS, *SHORT_NAMES])}"


def _unknown_of_evaluation(spec: Spec, rest: str) -> str | None:
    name, _, what = rest.partition("/")
    evaluation = next((e for e in spec.evaluations if e.name == name), None)
    if evaluation is None:
        return f"no evaluation {name} in spec.evaluations{_near(name, [e.name for e in spec.evaluations])}"
    known = [*OF_EVALUATIONS, *(f"pass_at_{k}" for k in evaluation.pass_at)]
    if what in known:
        return None
    hint = "; add it to passAt" if what.startswith("pass_at_") else ""
    return f"evaluation {name} reports no {what or 'such metric'}; it reports {', '.join(known)}{hint}"


def _values(rule: When) -> int:
    """How many values of its metric a rule looks at."""
    if rule.plateau is not None:
        return rule.window + rule.plateau.patience
    return rule.window + (rule.stall.patience - 1 if rule.stall is not None else 0)


def _never_holds(spec: Spec, stage: Stage, metric: str, needed: int) -> str | None:
    """Why a stage is over before there are so many values of a metric; None if there may be."""
    steps = stage.advance.steps
    if not metric.startswith(EVALUATION):
        if needed <= steps:
            return None
        return f"it looks at {needed} values of {metric}, and the stage has {steps} steps; make its window shorter"
    name = metric.removeprefix(EVALUATION).partition("/")[0]
    evaluation = next((e for e in spec.evaluations if e.name == name), None)
    most = 0 if evaluation is None else 1 + -(-steps // evaluation.every_steps)
    if evaluation is None or needed <= most:
        return None
    return (
        f"it looks at {needed} values of {metric}, and a stage of {steps} steps has at most {most}: one before its "
        f"first step, and one every {evaluation.every_steps} steps; make its window or everySteps smaller"
    )


def _out_of_reach(stage: Stage, rule: When | Guard) -> tuple[str, str] | None:
    """The field by which a rule never holds, or a guard never trips, and why; None if it may."""
    metric = full_metric(rule.metric)
    low, high = metric_range(metric, stage)
    if rule.at_least is not None and float(rule.at_least) > high:
        return (
            "atLeast",
            f"{metric} is never more than {high:g}, so not {rule.at_least}; take at most that",
        )
    if rule.at_most is not None and float(rule.at_most) < low:
        return "atMost", f"{metric} is never less than {low:g}, so not {rule.at_most}; take at least that"
    if isinstance(rule, When) and rule.stall is not None and float(rule.stall.min_delta) < 0:
        return "stall.minDelta", f"values are never less than 0 apart, {rule.stall.min_delta} is; take 0 or more"
    return None


def _budgets(spec: Spec) -> Found:
    stages = {stage.name: stage for stage in spec.stages}
    for i, budget in enumerate(spec.budgets):
        path, stage = f"spec.budgets[{i}]", stages.get(budget.stage)
        if stage is None:
            yield f"{path}.stage", f"{budget.stage} is no stage of spec.stages{_near(budget.stage, stages)}"
        elif stage.sft is not None and budget.generated_tokens is not None:
            yield (
                f"{path}.generatedTokens",
                f"stage {stage.name} is supervised and generates nothing, so it is never spent; give chipHours",
            )


def _unfit_plateau(spec: Spec, stage: Stage) -> tuple[str, str] | None:
    """Of a reference that is renewed on a plateau the field that is of no use, and why; None if there is none."""
    if stage.rl is None or reference(stage.rl).kind != "plateau":
        return None
    name, patience, _ = plateau(stage.rl)
    metric, values = full_metric(name), stage.advance.steps
    if (message := _unknown_metric(spec, stage, metric)) is not None:
        return "metric", message
    if metric.startswith(EVALUATION):
        of = metric.removeprefix(EVALUATION).partition("/")[0]
        values = -(-values // next(e.every_steps for e in spec.evaluations if e.name == of))
    if stage.rl.reference is None or stage.rl.reference.patience is None or patience < values:
        return None
    return (
        "patience",
        f"it waits for {patience} values of {metric} after a first one, and the stage's {stage.advance.steps} steps "
        f"have {values}; make it smaller, or take kind frozen",
    )


def _wrong_start(spec: Spec, index: int) -> str | None:
    """Why a stage cannot start from the weights that it names; None if it can."""
    wanted = spec.stages[index].start.weights
    if wanted == "previous":
        return None
    before = [stage.name for stage in spec.stages[:index]]
    if not before:
        return f"the first stage has no weights to choose from, {wanted} names some; leave it out"
    if wanted.startswith(OF_STAGE):
        name = wanted.removeprefix(OF_STAGE)
        return None if name in before else f"{name} is no stage before this one{_near(name, before)}"
    if spec.stages[index - 1].curate is not None:
        return (
            f"stage {before[-1]} moves no weight, so it has none to choose from; have that stage start from best, and "
            "this one from previous"
        )
    if spec.stages[index - 1].rl is None and not spec.evaluations:
        why = "an sft stage reports no accuracy"
        if spec.stages[index - 1].curate is not None:
            why = "a curate stage moves none"
        return (
            f"nothing says which weights of stage {before[-1]} are the best: {why}; give the job an evaluation, or "
            "start from previous"
        )
    return None


def _not_yet_made(spec: Spec, index: int, name: str) -> str | None:
    """Why a data set is not there yet when a stage begins; None if it is."""
    dataset = next((d for d in spec.datasets if d.name == name), None)
    if dataset is None or dataset.from_stage is None or dataset.from_stage in [s.name for s in spec.stages[:index]]:
        return None
    return f"data set {name} is made by stage {dataset.from_stage}, which is not before this one; put it there"


def _near(word: str, known: Iterable[str]) -> str:
    names: Sequence[str] = list(known)
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(names)}" if names else "; there are none"
