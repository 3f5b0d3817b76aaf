"""What users and programs read: the conditions with their reasons, and the phase derived from them.

Every condition is present from the first reconcile, every reason is in the table, every message of a condition that
something waits for says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ratchet_api.status import CONDITIONS, Condition, Status
from ratchet_api.validate import Problem
from ratchet_operator.decide import stamps
from ratchet_operator.decide.budget import STALLED_AFTER
from ratchet_operator.decide.draft import Draft, revised
from ratchet_operator.plan import Event

REASONS: dict[str, dict[str, str]] = {
    "Accepted": {
        "Accepted": "the job can be run as it stands",
        "Invalid": "the spec has problems that the message names; nothing new is created until they are solved",
    },
    "Placed": {
        "AllPodsScheduled": "every pod of the attempt has a node",
        "NotStarted": "no attempt has been authorized yet",
        "Creating": "the attempt's objects are being created",
        "WaitingForCapacity": "some pods have no node yet",
        "WaitingForOldPods": "pods of an earlier attempt may still write",
        "NameConflict": "an object of another owner has a name that the attempt needs",
        "BackingOff": "the next attempt waits, because the ones before it made no step",
        "JudgingFailure": "the failure budget is spent; late evidence may still change the last verdict",
        "Ending": "the attempt is ending",
        "NotAccepted": "no attempt is started while Accepted is False",
        "Suspended": "the job is suspended",
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
        "NotRunning": "the job has no attempt, or is over",
    },
    "Suspended": {
        "NotSuspended": "spec.suspend is false",
        "Suspending": "the attempt is given time to commit its last step",
        "Suspended": "all pods have ended; set spec.suspend to false to go on",
    },
    "AwaitingApproval": {"NotRequired": "no stage asks for an approval"},
    "Completed": {"NotCompleted": "there are steps to be made", "AllStagesDone": "every stage has ended"},
    "Failed": {
        "NotFailed": "the job goes on",
        "FailureLimitExceeded": "restart.failureLimit is spent",
        "PreemptionLimitExceeded": "restart.preemptionLimit is spent",
        "ConfigurationInvalid": "the trainer refused the configuration (exit code 64)",
        "DeterministicFailure": "the trainer fails again in the same way (exit code 65)",
        "CheckpointUnreadable": "no checkpoint can be read (exit code 77)",
    },
}
"""Type -> reason -> meaning. Finite; the documentation is made from it."""

Said = tuple[str, str, str]  # status, reason, message


def finished(status: Status) -> bool:
    """Whether the job is Completed or Failed, for good."""
    return status.finished_time is not None


TOLD: dict[tuple[str, str], tuple[Literal["Normal", "Warning"], str]] = {
    ("Accepted", "False"): ("Warning", "NotAccepted"),
    ("Suspended", "True"): ("Normal", "Suspended"),
    ("Progressing", "False"): ("Warning", "Stalled"),
}
"""Changes of conditions that are worth an event: (type, new status) -> (type of event, reason)."""


def judge(draft: Draft, problems: Sequence[Problem], *, suspend: bool) -> None:
    """Writes all conditions and the phase."""
    said: dict[str, Said] = {
        "Accepted": _accepted(draft, problems),
        "Placed": _placed(draft),
        "Running": _running(draft),
        "Progressing": _progressing(draft),
        "Suspended": _suspended(draft, suspend),
        "AwaitingApproval": ("False", "NotRequired", ""),
    }
    for kind in ("Completed", "Failed"):
        there = next((c for c in draft.status.conditions if c.type == kind), None)
        over = there is not None and there.status == "True"
        said[kind] = ("True", there.reason, there.message) if over and there else ("False", f"Not{kind}", "")
    write(draft, said)


def refuse(draft: Draft, problems: Sequence[Problem]) -> None:
    """Says that the spec cannot be read; what else is known of the job stays as it is."""
    if not draft.status.conditions:
        judge(draft, problems, suspend=False)
    write(draft, {"Accepted": _accepted(draft, problems)})


def finish(draft: Draft, kind: str, reason: str, message: str) -> None:
    """Ends the job: Completed or Failed."""
    draft.revise(finished_time=stamps.whole(draft.world.now))
    write(draft, {kind: ("True", reason, message)})
    draft.event("Normal" if kind == "Completed" else "Warning", kind, message)


def write(draft: Draft, said: dict[str, Said]) -> None:
    """Puts conditions into the draft; lastTransitionTime moves only with the status."""
    assert all(reason in REASONS[kind] for kind, (_, reason, _) in said.items())
    before = {c.type: c for c in draft.status.conditions}
    now, generation = stamps.whole(draft.world.now), draft.world.generation
    for kind, (value, reason, message) in said.items():
        old = before.get(kind)
        since = old.last_transition_time if old is not None and old.status == value else now
        fresh = Condition.model_validate(
            {"type": kind, "status": value, "reason": reason, "message": message[:4096], "lastTransitionTime": since}
        )
        before[kind] = revised(fresh, observed_generation=generation)
        told = TOLD.get((kind, value))
        if told is not None and told[1] in (reason, f"Not{kind}") and (old is None or old.status != value):
            draft.events.append(Event(told[0], told[1], message[:1000]))
    draft.revise(conditions=[before[kind] for kind in CONDITIONS if kind in before], observed_generation=generation)
    draft.revise(phase=phase(draft))


def phase(draft: Draft) -> str:
    """One word for the column."""
    true = {c.type for c in draft.status.conditions if c.status == "True"}
    for kind in ("Completed", "Failed", "Suspended", "AwaitingApproval", "Running"):
        if kind in true:
            return kind
    if draft.attempt is None:
        return "Pending"
    before = draft.status.attempts[-1:]
    return "Recovering" if before and before[0].recovery is not None else "Placing"


def _accepted(draft: Draft, problems: Sequence[Problem]) -> Said:
    if problems:
        return "False", "Invalid", "; ".join(str(problem) for problem in problems)
    stage, spec = draft.status.stage, draft.world.spec
    if stage is not None and spec is not None and stage.index + 1 < len(spec.stages):
        from_here = draft.status.stages[-1]
        if from_here.end_step is not None:
            late = spec.stages[stage.index + 1].name
            return "True", "Accepted", f"stage {late} came after the last stage had ended and is left out"
    return "True", "Accepted", ""


def _placed(draft: Draft) -> Said:
    attempt = draft.attempt
    if finished(draft.status):
        return "False", "Finished", ""
    if draft.waiting is not None:
        return "False", *draft.waiting
    if attempt is None:
        return "False", "NotStarted", ""
    if attempt.ended_time is not None:
        return "False", "Ending", f"attempt {attempt.number} is ending"
    pods = draft.world.own_pods(attempt.number)
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
            "if it stays so, look at the pods' events, add nodes, or add a placement"
        ),
    )


def _running(draft: Draft) -> Said:
    attempt = draft.attempt
    if attempt is None or finished(draft.status):
        return "False", "NotPlaced", ""
    record = draft.record(attempt.number)
    if record is not None and record.verdict == "Completed":
        return "True", "Finishing", ""
    if attempt.ended_time is not None:
        return "False", "Ending", f"attempt {attempt.number} is ending"
    if attempt.running_time is not None:
        return "True", "AllPodsRunning", f"attempt {attempt.number}, {attempt.pods_total} pods"
    started = any(pod.node is not None for pod in draft.world.own_pods(attempt.number))
    return "False", "Starting" if started else "NotPlaced", ""


def _progressing(draft: Draft) -> Said:
    attempt, count = draft.attempt, draft.counters.disturbances_without_progress
    if attempt is None or finished(draft.status) or (draft.waiting or ("",))[0] == "Suspended":
        return "False", "NotRunning", ""
    if count >= STALLED_AFTER:
        last = draft.status.attempts[-1] if draft.status.attempts else None
        why = f"; the last one: {last.verdict}, {last.evidence}" if last else ""
        return (
            "False",
            "Stalled",
            (
                f"{count} attempts in a row ended without a new step{why}; the next ones wait longer and longer. Check "
                "capacity and the log of the last attempt's pods"
            ),
        )
    if attempt.running_time is not None and attempt.ended_time is None:
        return "True", "Training", ""
    return "True", "Recovering" if draft.status.attempts else "Training", ""


def _suspended(draft: Draft, suspend: bool) -> Said:
    if not suspend:
        return "False", "NotSuspended", ""
    if (draft.waiting or ("",))[0] == "Suspended":
        return "True", "Suspended", "set spec.suspend to false to go on"
    return "False", "Suspending", "the attempt is given time to commit its last step"
