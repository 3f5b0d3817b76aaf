"""The plan of a manifest in plain English: stages, placements, and what a restart costs.

Decides the sentences only; every figure is the manifest's, or follows from it by the API's own functions.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_api import expansion
from ratchet_api.advance import Guard, When
from ratchet_api.datasets import Dataset
from ratchet_api.job import Model, Spec
from ratchet_api.method import samples_values
from ratchet_api.placements import Placement
from ratchet_api.sampled_values import states, vine
from ratchet_api.stage_metrics import full_metric
from ratchet_api.stages import Stage
from ratchet_api.validate import chips, devices, placement_shape, processes
from ratchet_cli.explain_knobs import Knob

ONCE_OVER = {"Fail": "the job fails", "Approval": "what comes next needs an approval", "Advance": "it is over"}


def counted(number: int, thing: str) -> str:
    """`1 step`, `2 steps`."""
    plural = thing if number == 1 else f"{thing}es" if thing.endswith(("ss", "ch")) else f"{thing}s"
    return f"{number} {plural}"


def _be(number: int) -> str:
    return "is" if number == 1 else "are"


def model(said: Model) -> str:
    what = f"the built-in preset {said.preset}" if said.preset else f"the folder {said.path}"
    trained = f"adapters of rank {said.lora.rank} are trained" if said.lora else "all weights are trained"
    return f"{what}; {trained}, computed in {said.dtype or 'float32'}"


def dataset(said: Dataset) -> str:
    gym, file = said.reasoning_gym, said.file
    if said.from_stage is not None:
        return f"what stage {said.from_stage} keeps, verified as where it comes from"
    source = (
        f"{gym.size} items of reasoning-gym {gym.task}" if gym else f"the file or folder {file.path if file else ''}"
    )
    return f"{source}, verified by {said.verifier or ('reasoningGym' if gym else 'exact')}"


def stage(said: Stage, index: int, spec: Spec, knobs: Sequence[Knob]) -> list[str]:
    """What a stage does, what it begins with, when it is over, and what watches it."""
    return [
        _work(said, knobs),
        *_values(said),
        _start(said, index),
        *_end(said, index, spec),
        *map(_guard, said.guards),
        *_budget(said, spec),
    ]


def _work(said: Stage, knobs: Sequence[Knob]) -> str:
    if said.sft is not None:
        size = counted(said.sft.batch_size, "answer")
        return f"Supervised fine-tuning on data set {said.sft.dataset}: {size} of it a step, one update each."
    if said.curate is not None:
        each = (
            f"{counted(said.curate.prompts_per_step, 'item')} a step, {counted(said.curate.samples, 'response')} each"
        )
        return (
            f"Looks through data set {said.curate.dataset}: {each}; keeps what is worth training on. No weight moves."
        )
    assert said.rl is not None, "the type's rules"
    rl, value = said.rl, {k.name.removeprefix("rl."): k.value for k in knobs}
    total = sum(float(d.weight) for d in rl.mixture)
    names = [d.name + (f" ({float(d.weight) / total:.0%})" if len(rl.mixture) > 1 else "") for d in rl.mixture]
    slots = [f"selection {value.get('selection.kind')}", f"expansion {value.get('expansion.kind')}"]
    slots += [f"advantage {value.get('advantage.estimator')}"]
    drift = value.get("kl.estimator")
    slots += [f"drift {drift} in the {value.get('kl.in')}" if drift else "no drift term"]
    return (
        f"Reinforcement learning by method {rl.method} on data set{'s' if len(names) > 1 else ''} {', '.join(names)}: "
        f"{counted(rl.prompts_per_step, 'prompt')} x {counted(rl.group_size, 'response')} of at most "
        f"{counted(rl.max_response_tokens, 'token')} a step, {counted(rl.updates_per_step, 'update')} a step "
        f"({', '.join(slots)})."
    )


def _values(said: Stage) -> list[str]:
    if said.rl is None or not samples_values(said.rl):
        return []
    values, trained = vine(said.rl), said.rl.prompts_per_step * said.rl.group_size
    asked = states(said.rl, expansion.puts(said.rl))
    size = f"steps of {counted(values.step_tokens, 'token')}" if values.steps == "tokens" else values.steps
    return [
        f"Values are sampled: a response is split into {size}, {values.most_steps} at most; of more, neighbours are "
        f"merged. From the beginning of each, of which a step has at most {asked}, "
        f"{counted(values.continuations, 'continuation')} are sampled and verified: at most "
        f"{counted(asked * values.continuations, 'response')} that are not trained on, beside {trained} "
        "that are."
    ]


def _start(said: Stage, index: int) -> str:
    weights = {"previous": "those that the stage before ended with", "best": "the best ones of the stage before"}
    found = weights.get(said.start.weights, f"those that {said.start.weights.replace('/', ' ')} ended with")
    if index == 0:
        found = "the model's own"
    moments = "go on" if said.start.optimizer == "keep" and index else "start afresh"
    return f"Begins with weights: {found}; the optimizer's moments {moments}."


def _end(said: Stage, index: int, spec: Spec) -> list[str]:
    advance, steps = said.advance, counted(said.advance.steps, "step")
    if said.curate is not None:
        lines = ["Over when every item is answered."]
    elif not advance.when:
        lines = [f"Over after {steps}."]
    else:
        rules = " or ".join(map(_when, advance.when))
        early = f", not before {counted(advance.min_steps, 'step')}" if advance.min_steps else ""
        lines = [f"Over when {rules}{early}; after {steps} at the latest, and then {ONCE_OVER[advance.at_limit]}."]
    if advance.approval == "Manual":
        lines.append("Whatever ended it, what comes next waits for an entry in spec.approvals.")
    if any(a.stage == said.name for a in spec.approvals):
        lines.append("Its end is approved.")
    watched = [f"{e.name} ({counted(e.items, 'item')} of {e.dataset}, every {counted(e.every_steps, 'step')})"
               for e in spec.evaluations]  # fmt: skip
    return lines + ([f"Evaluated by {', '.join(watched)}."] if watched else [])


def _when(rule: When) -> str:
    name = full_metric(rule.metric)
    if rule.plateau is not None:
        return f"{name} has not risen by more than {rule.plateau.min_delta} in {rule.plateau.patience} values"
    if rule.stall is not None:
        return f"{name} has not changed by more than {rule.stall.min_delta} in {rule.stall.patience} values"
    return _bound(name, rule)


def _bound(name: str, rule: When | Guard) -> str:
    mean = f" (mean of {rule.window})" if rule.window > 1 else ""
    bound = f"at least {rule.at_least}" if rule.at_least is not None else f"at most {rule.at_most}"
    return f"{name}{mean} is {bound}"


def _budget(said: Stage, spec: Spec) -> list[str]:
    """What a stage may cost, and how long that is on each placement."""
    budget = spec.budget(said.name)
    if budget is None:
        return []
    limits = []
    if budget.generated_tokens is not None:
        limits.append(f"{counted(budget.generated_tokens, 'generated token')} (without evaluations)")
    if budget.chip_seconds is not None:
        hours = [f"{budget.chip_seconds / 3600 / chips(p):.3g} h on {p.name}" for p in spec.placements]
        limits.append(f"{budget.chip_hours} chip hours ({', '.join(hours)})")
    then = {
        "Suspend": "the job rests, with its last step committed, until the budget is raised",
        "Fail": "the job fails",
    }
    return [f"Budget: {' and '.join(limits)}; once that is spent, {then[budget.on_exceeded]}."]


def _guard(guard: Guard) -> str:
    """A guard says what must hold, so it trips when it does."""
    return f"Guard: once {_bound(full_metric(guard.metric), guard)}, {ONCE_OVER[guard.action]}."


def placement(said: Placement, spec: Spec) -> str:
    """One placement with its hosts and chips. Raises ImpossibleShape."""
    hosts, there, shape = processes(said), devices(said), placement_shape(said)
    if said.cpu is not None:
        where = f"{counted(hosts, 'CPU host')}, no chips"
    else:
        kind = " ".join(filter(None, (said.accelerator, said.topology)))
        each = f"{counted(hosts, 'host')} of {counted(shape.chips_per_node, 'chip')}"
        where = f"{counted(said.slices, 'slice')} of {kind}: {each}, {chips(said)} chips in all"
        if shape.devices_per_chip > 1:
            where += f", {there} devices"
    data = spec.parallelism.data_on(there, said.slices)
    mesh = f"mesh data {data} x fsdp {spec.parallelism.fsdp} x tensor {spec.parallelism.tensor}"
    return f"{where}, {_capacity(said)}; {mesh}. Tried for {said.wait_seconds} s."


def _capacity(said: Placement) -> str:
    queued = " with queued provisioning" if said.queued_provisioning else ""
    words = {
        "Spot": "spot capacity",
        "OnDemand": "on demand",
        "FlexStart": f"flex-start capacity{queued}",
        "Reserved": f"reservation {said.reservation}",
        None: f"what ComputeClass {said.compute_class} provides",
    }
    return words[said.capacity_type]


def restart(spec: Spec) -> list[str]:
    """What an interruption costs, in steps, and what it may cost before the job is given up."""
    every, deepest = spec.checkpoint.every_steps, max(s.advance.steps for s in spec.stages)
    lost = lost_at_most(spec)
    lines = [
        f"A checkpoint after every {'step' if every == 1 else f'{every} steps'} (checkpoint.everySteps) and at the end "
        "of each stage.",
        "With notice (SIGTERM), no step is lost: the pods finish what fits into the notice, commit and leave.",
        f"Without notice (SIGKILL, a dead node), at most {counted(lost, 'step')} "
        f"{_be(lost)} made again, besides the step under way"
        + (f": no stage is longer than {deepest}." if lost < every else "."),
    ]
    if spec.checkpoint.local_directory is not None:
        lines.append(
            f"Of the step under way, at most {spec.checkpoint.journal_seconds} s of sampling are done again on a node "
            "that lives (checkpoint.localDirectory)."
        )
    lines += {
        "PerTopology": ["On the same number of devices the bits are those of an undisturbed run."],
        "Exact": ["The bits are those of an undisturbed run, on any number of devices that the placements have."],
        "Off": ["Nothing is promised of the bits (reproducibility.mode Off)."],
    }[spec.reproducibility.mode]
    limit = spec.restart.preemption_limit
    many = "never" if limit is None else f"after {limit} of them"
    lines.append(
        f"For preemptions the job is given up {many}, for failures of its own after {spec.restart.failure_limit}. "
        f"These are forgiven once an attempt has made {counted(spec.restart.healthy_steps, 'step')}."
    )
    return lines


def lost_at_most(spec: Spec) -> int:
    """Steps that are reported and made again, at most, after an end without notice."""
    return min(spec.checkpoint.every_steps, max(s.advance.steps for s in spec.stages))
