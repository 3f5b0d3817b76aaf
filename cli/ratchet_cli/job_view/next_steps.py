"""The next sensible commands for a job, most sensible first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ratchet_cli.job_view.document import NextCommand, StageView, Wait
from ratchet_cli.job_view.read_job import NEW

MOST = 3


def next_steps(
    program: str, scope: str, name: str, phase: str, stages: Sequence[StageView], waits: Sequence[Wait], attempts: int
) -> tuple[NextCommand, ...]:
    """`scope` are the options that find the job again, with a blank before them."""
    steps = _steps(f"{name}{scope}", phase, stages, waits)
    found = [NextCommand(f"{program} {command}", why) for command, why in steps]
    if attempts and phase != "Completed":
        found.append(NextCommand(f"{program} logs {name}{scope}", "what the trainer says"))
    unique = {step.command: step for step in reversed(found)}
    return tuple(step for step in found if unique.get(step.command) is step)[:MOST]


def _steps(job: str, phase: str, stages: Sequence[StageView], waits: Sequence[Wait]) -> Iterator[tuple[str, str]]:
    reasons = {wait.reason for wait in waits}
    asked = next((s for s in stages if s.state == "done" and s.needs_approval and not s.approved), None)
    if asked is not None and phase != "Failed":
        name, *options = job.split(" ")
        yield " ".join(["approve", name, asked.name, *options]), "let what comes after the stage begin"
    if phase == "Suspended" and "Suspended" in reasons:
        yield f"resume {job}", "go on from the last checkpoint"
    if phase == "Failed":
        yield f"logs {job}", "what the last attempt said"
        yield f"report {job}", "all of it in one file, for a bug report"
    if phase in (NEW, "Placing", "Pending") or "WaitingForCapacity" in reasons:
        yield "doctor", "what in the cluster keeps jobs from running"
    if any(wait.condition == "Learning" for wait in waits):
        yield f"samples {job} --wrong", "answers that were called wrong"
    if phase == "Completed":
        yield f"samples {job}", "what it answers now"
        yield f"curve {job}", "how it got there"
    if phase in ("Running", "Recovering", "Placing"):
        yield f"watch {job}", "the same, live and with curves"
