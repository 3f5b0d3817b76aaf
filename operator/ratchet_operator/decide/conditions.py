"""What users and programs read: the conditions with their reasons, and the phase derived from them.

Every condition is present from the first reconcile, every reason is in the table, every message of a condition that
something waits for says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from ratchet_api.protocol.documents import LEARNING_REASONS
from ratchet_api.status import CONDITIONS, Condition, Status
from ratchet_api.validate import Problem
from ratchet_operator.decide import (
    approval,
    condition_events,
    hang,
    preflight,
    queue_wait,
    refusals,
    stage_progress,
    stamps,
    workers_available,
)
from ratchet_operator.decide.plan_builder import PlanBuilder, revised
from ratchet_operator.decide.verdict import Verdict

REASONS: dict[str, dict[str, str]] = {
    "Accepted": {
        "Accepted": "the job can be run as it stands",
        "Invalid": "the spec has problems that the message names; nothing new is created until they are solved",
        "DirectoryInUse": "another job works in the checkpoint directory; this one's turn comes when that is over",
        "InternalError": "the operator cannot work with this spec, which is a bug; the job goes on as admitted before",
    },
    "Placed": {
        "AllPodsScheduled": "every pod of the attempt has a node",
        "NotStarted": "no attempt has been authorized yet",
        "Creating": "the attempt's objects are being created",
        "CreateRefused": "the API server, or a webhook, refuses an object of the attempt; it is tried again",
        "PodsRefused": "the attempt's pods are not made; the message says who refuses them",
        "WaitingForQuota": "a queue holds the attempt back until its quota is there; the message names the queue",
        "WaitingForCapacity": "some pods have no node yet",
        "WaitingForOldPods": "pods of an earlier attempt may still write",
        "MissingObjects": "claims or ConfigMaps that the pods need are not there; the message names them",
        "ResourceQuotaFull": "a ResourceQuota of the namespace leaves no room for the attempt's pods",
        "NameConflict": "an object of another owner has a name that the attempt needs",
        "BackingOff": "the next attempt waits, because the ones before it made no step",
        "AwaitingEvidence": "the failure budget is spent; late evidence may still change the last verdict",
        "Ending": "the attempt is ending",
        "NotAccepted": "no attempt is started while Accepted is False",
        "AwaitingApproval": "no attempt is started before the end of a stage is approved; see AwaitingApproval",
        "WaitingForWorkers": "the last attempt left for want of workers; the next one starts once workers.min run",
        "Suspended": "the job is suspended",
        "BudgetSpent": "no attempt is started before the budget of the stage is raised; see Suspended",
        "Finished": "the job is over",
    },
    "Running": {
        "AllPodsRunning": "every pod of the attempt runs",
        "Starting": "the attempt's pods are being started",
        "Finishing": "the training is done, the last pods are leaving",
        "Ending": "the attempt is ending",
        "NotPlaced": "see the condition Placed",
    },
    "Progressing": {
        "Training": "nothing is in the way of the next step",
        "Recovering": "an attempt was disturbed; the next one is on its way",
        "Stalled": "several attempts in a row ended without a new step",
        "NoAnswer": "the trainer has not answered for a minute or more; it is ended as hung if that lasts",
        "NotRunning": "the job has no attempt, waits in a queue, for an approval or for what Placed names, or is over",
    },
    "Learning": {reason: meaning for reason, (_, meaning) in LEARNING_REASONS.items()},
    "RolloutsAvailable": workers_available.REASONS,
    "Suspended": {
        "NotSuspended": "spec.suspend is false",
        "Suspending": "the attempt is given time to commit its last step",
        "Suspended": "all pods have ended; set spec.suspend to false to go on",
        "BudgetSpent": "the stage has cost what spec.budgets allows; raise that to go on, see the message",
    },
    "AwaitingApproval": {
        "NotRequired": "nothing waits for an approval",
        "ApprovalNeeded": "a stage has ended; what comes next waits for an entry in spec.approvals, see the message",
    },
    "Completed": {"NotCompleted": "there are steps to be made", "AllStagesDone": "every stage has ended"},
    "Failed": {
        "NotFailed": "the job goes on",
        "FailureLimitExceeded": "restart.failureLimit is spent",
        "PreemptionLimitExceeded": "restart.preemptionLimit is spent",
        "BudgetExceeded": "a stage has cost what spec.budgets allows, and onExceeded is Fail",
        "ConfigurationInvalid": "the trainer refused the configuration (exit code 64)",
        "DeterministicFailure": "the trainer fails again in the same way (exit code 65)",
        "CheckpointUnreadable": "no checkpoint can be read (exit code 77)",
        "WorkersFailed": "every worker of the fleet failed three times running with exit code 64, 65 or 77",
        "TakenOver": "another job has taken the checkpoint directory over (exit code 73)",
    },
}
"""Type -> reason -> meaning. Finite; docs/conditions.md is made from it."""

Said = tuple[str, str, str]  # status, reason, message

RESTS = "Suspended", "BudgetSpent", "AwaitingApproval", "WaitingForWorkers", *preflight.REASONS
"""Reasons of Placed with which a job rests: nothing is being recovered."""
STALLED_AFTER = 3
"""Disturbances in a row without a new step, after which attempts wait longer and longer."""


def finished(status: Status) -> bool:
    """Whether the job is Completed or Failed, for good."""
    return status.finished_time is not None


def evaluate(builder: PlanBuilder, problems: Sequence[Problem], *, suspend: bool) -> None:
    """Writes all conditions and the phase."""
    said: dict[str, Said] = {
        "Accepted": _accepted(builder, problems),
        "Placed": _placed(builder),
        "Running": _running(builder),
        "Progressing": _progressing(builder),
        "Learning": _learning(builder),
        "RolloutsAvailable": workers_available.evaluate(builder),
        "Suspended": _suspended(builder, suspend),
        "AwaitingApproval": _awaiting_approval(builder),
    }
    for kind in ("Completed", "Failed"):
        there = next((c for c in builder.status.conditions if c.type == kind), None)
        over = there is not None and there.status == "True"
        said[kind] = ("True", there.reason, there.message) if over and there else ("False", f"Not{kind}", "")
    write(builder, said)


def refuse(builder: PlanBuilder, problems: Sequence[Problem]) -> None:
    """Says that the spec cannot be read; what else is known of the job stays as it is."""
    if not builder.status.conditions:
        evaluate(builder, problems, suspend=False)
    write(builder, {"Accepted": _accepted(builder, problems)})


def note_late_edit(builder: PlanBuilder) -> None:
    """Says of an edit of a finished job that it changes nothing, once."""
    seen = builder.status.observed_generation
    if seen is None or seen >= builder.observed.generation:
        return
    builder.revise(observed_generation=builder.observed.generation)
    owner, problems = builder.observed.snapshot.directory_owner, builder.observed.problems
    if problems:
        message = f"the job is {builder.status.phase}, and the edit cannot be read: {problems[0]}"
    elif builder.status.phase == "Completed":
        message = (
            "the job is Completed: an edit changes nothing any more; to go on from its checkpoints create another job "
            "with their directory and checkpoint.existing: Resume"
        )
    elif owner is not None:
        message = f"the job has Failed, and job {owner} works in its directory; let that end, or delete it, first"
    else:
        message = "the job has Failed, and the edit does not take away why; the condition Failed says what would"
    builder.event("Warning", "EditIgnored", message)


def finish(builder: PlanBuilder, kind: str, reason: str, message: str) -> None:
    """Ends the job: Completed or Failed."""
    builder.revise(finished_time=stamps.whole(builder.observed.now))
    write(builder, {kind: ("True", reason, message)})
    builder.event("Normal" if kind == "Completed" else "Warning", kind, message)


def write(builder: PlanBuilder, said: dict[str, Said]) -> None:
    """Puts conditions into the builder; lastTransitionTime moves only with the status."""
    assert all(reason in REASONS[kind] for kind, (_, reason, _) in said.items())
    before = {c.type: c for c in builder.status.conditions}
    now, generation = stamps.whole(builder.observed.now), builder.observed.generation
    for kind, (value, reason, message) in said.items():
        old = before.get(kind)
        if old is not None and (old.status, old.reason, old.message) == (value, reason, message):
            if old.observed_generation != generation:
                before[kind] = revised(old, observed_generation=generation)
            continue
        since = old.last_transition_time if old is not None and old.status == value else now
        fresh = Condition.model_validate(
            {"type": kind, "status": value, "reason": reason, "message": message[:4096], "lastTransitionTime": since}
        )
        before[kind] = revised(fresh, observed_generation=generation)
        if (event := condition_events.event(old, fresh)) is not None:
            builder.events.append(event)
    builder.revise(conditions=[before[kind] for kind in CONDITIONS if kind in before], observed_generation=generation)
    builder.revise(phase=phase(builder))


def phase(builder: PlanBuilder) -> str:
    """One word for the column."""
    true = {c.type for c in builder.status.conditions if c.status == "True"}
    for kind in ("Completed", "Failed", "Suspended", "AwaitingApproval", "Running"):
        if kind in true:
            return kind
    if builder.attempt is None:
        return "Pending"
    before = builder.status.attempts[-1:]
    return "Recovering" if before and before[0].recovery is not None else "Placing"


def _accepted(builder: PlanBuilder, problems: Sequence[Problem]) -> Said:
    if (instead := builder.observed.snapshot.instead) is not None:
        return "False", *instead
    if len(problems) == 1 and builder.observed.snapshot.directory_owner is not None:
        return "False", "DirectoryInUse", str(problems[0])
    if problems:
        return "False", "Invalid", "; ".join(str(problem) for problem in problems)
    stage, spec = builder.status.stage, builder.observed.spec
    if stage is None or spec is None or not stage_progress.last_stage_over(builder.status):
        return "True", "Accepted", ""
    if stage.index + 1 < len(spec.stages):
        late = spec.stages[stage.index + 1].name
        return "True", "Accepted", f"stage {late} came after the last stage had ended and is left out"
    return "True", "Accepted", ""


def _placed(builder: PlanBuilder) -> Said:
    attempt = builder.attempt
    if finished(builder.status):
        return "False", "Finished", ""
    if builder.waiting is not None:
        return "False", *builder.waiting
    if attempt is None:
        return "False", "NotStarted", ""
    if attempt.ended_time is not None:
        return "False", "Ending", f"attempt {attempt.number} is ending"
    if (jobset := queue_wait.held(builder.observed, attempt)) is not None:
        return "False", "WaitingForQuota", queue_wait.in_words(builder.observed, jobset)
    pods = builder.observed.own_pods(attempt.number)
    if (refusal := refusals.of_pods(builder.observed, attempt)) is not None:
        return "False", *refusal
    if not pods:
        return "False", "Creating", f"attempt {attempt.number} is being created"
    bound = sum(pod.node is not None for pod in pods)
    if bound >= attempt.pods_total:
        return "True", "AllPodsScheduled", f"attempt {attempt.number} on placement {attempt.placement}"
    return (
        "False",
        "WaitingForCapacity",
        (
            f"{bound} of {attempt.pods_total} pods of attempt {attempt.number} have a node of {attempt.placement}; "
            f"add nodes, or add a placement, if it stays so{refusals.of_scheduling(pods)}"
        ),
    )


def _running(builder: PlanBuilder) -> Said:
    attempt = builder.attempt
    if attempt is None or finished(builder.status) or _waits_for(builder, *RESTS):
        return "False", "NotPlaced", ""
    record = builder.record(attempt.number)
    if record is not None and record.verdict == Verdict.COMPLETED:
        return "True", "Finishing", ""
    if attempt.ended_time is not None:
        return "False", "Ending", f"attempt {attempt.number} is ending"
    if attempt.running_time is not None:
        return "True", "AllPodsRunning", f"attempt {attempt.number}, {attempt.pods_total} pods"
    pods = builder.observed.own_pods(attempt.number)
    if any(pod.node is not None for pod in pods):
        return "False", "Starting", refusals.of_start(builder.observed, pods)
    return "False", "NotPlaced", ""


def _progressing(builder: PlanBuilder) -> Said:
    attempt, count = builder.attempt, builder.counters.disturbances_without_progress
    if attempt is None or finished(builder.status) or _waits_for(builder, *RESTS):
        return "False", "NotRunning", ""
    if count >= STALLED_AFTER:
        last = builder.status.attempts[-1] if builder.status.attempts else None
        why = f"; the last one: {last.verdict}, {last.evidence}" if last else ""
        return (
            "False",
            "Stalled",
            (
                f"{count} attempts in a row ended without a new step{why}; the next ones wait longer and longer. What "
                "ended each one is in status.attempts"
            ),
        )
    if queue_wait.held(builder.observed, attempt) is not None:
        return "False", "NotRunning", ""
    if (since := hang.silent_since(builder.observed, attempt)) is not None:
        return "Unknown", "NoAnswer", hang.in_words(builder.observed, attempt, since)
    if attempt.running_time is not None and attempt.ended_time is None:
        return "True", "Training", ""
    return "True", "Recovering" if builder.status.attempts else "Training", ""


def _learning(builder: PlanBuilder) -> Said:
    """What the trainer says of it. Without news the last word stands, over restarts and after the end."""
    report = builder.observed.report_of(builder.attempt) if builder.attempt is not None else None
    told = report.said.learning if report is not None else None
    if told is not None and told.reason in LEARNING_REASONS:
        return LEARNING_REASONS[told.reason][0], told.reason, told.message
    before = next((c for c in builder.status.conditions if c.type == "Learning"), None)
    return (before.status, before.reason, before.message) if before is not None else ("Unknown", "NotYetKnown", "")


def _awaiting_approval(builder: PlanBuilder) -> Said:
    waits = approval.missing(builder.status)
    if waits is None or finished(builder.status):
        return "False", "NotRequired", ""
    return "True", "ApprovalNeeded", approval.in_words(builder.observed, waits)


def _waits_for(builder: PlanBuilder, *reasons: str) -> bool:
    """Whether this is why no attempt starts."""
    return builder.waiting is not None and builder.waiting[0] in reasons


def _suspended(builder: PlanBuilder, suspend: bool) -> Said:
    if builder.waiting is not None and builder.waiting[0] == "BudgetSpent":
        return "True", *builder.waiting
    if not suspend:
        return "False", "NotSuspended", ""
    if _waits_for(builder, "Suspended"):
        return "True", "Suspended", "set spec.suspend to false to go on"
    return "False", "Suspending", "the attempt is given time to commit its last step"
