"""What the trainer reports over `/progress`, and what of it is remembered: progress, checkpoint, artifacts, steps lost.

Status never goes below what it recorded: after a loss without notice the trainer repeats a few steps, and the column
keeps showing the highest one. The repeated steps are counted where they belong, on the attempt that lost them.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.protocol.documents import ARTIFACTS_MAX, ProgressDocument
from ratchet_api.status import ArtifactStatus, AttemptStatus, CheckpointStatus, ExactSince, Progress, TrackerStatus
from ratchet_operator.decide import recovery_parts, stamps
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.plan_builder import PlanBuilder, revised


def take(builder: PlanBuilder, attempt: AttemptStatus, spec: Spec) -> AttemptStatus:
    """Takes the present attempt's last report into the status, and returns the attempt as it then is."""
    report = builder.observed.report_of(attempt)
    if report is None:
        return attempt
    said = report.said
    if said.checkpoint is not None:
        note_committed(builder, attempt, said.checkpoint.step, said.checkpoint.path)
    if said.exact_since is not None:
        since = revised(ExactSince(step=said.exact_since.step), reason=said.exact_since.reason[:1024])
        builder.revise(exact_since=since)
    _note_progress(builder, attempt, said, spec)
    _note_artifacts(builder, said, spec)
    _note_trackers(builder, said, spec)
    attempt = _note_restored_step(builder, attempt, said, spec)
    recovery_parts.close(builder, attempt, report)
    return attempt


def note_committed(builder: PlanBuilder, attempt: AttemptStatus, step: int, path: str | None = None) -> None:
    """Remembers that a step is safe. Steps only count upwards."""
    known = builder.status.checkpoint
    if known is not None and step <= known.step:
        return
    made = revised(CheckpointStatus(step=step), time=builder.observed.now, path=path[:1024] if path else None)
    builder.revise(checkpoint=made)
    if step > (attempt.start_step or 0) and builder.counters.disturbances_without_progress:
        builder.count(disturbances_without_progress=0)


def last_words(pods: tuple[Pod, ...]) -> int | None:
    """The highest step that a member says was committed when it left, whatever it left with."""
    steps = [pod.exit.message.step for pod in pods if pod.exit is not None and pod.exit.message.step is not None]
    return max(steps, default=None)


def last_step(builder: PlanBuilder, attempt: AttemptStatus) -> int | None:
    """The last step that the attempt reported, or said that it had committed when it left."""
    report = builder.observed.report_of(attempt)
    reported = report.said.step if report is not None else _shown_by(builder, attempt)
    words = last_words(builder.observed.own_pods(attempt.number))
    return max((step for step in (reported, words) if step is not None), default=None)


def _shown_by(builder: PlanBuilder, attempt: AttemptStatus) -> int | None:
    """What status still knows of the attempt's reports, when a restarted operator has heard none itself."""
    shown = builder.status.progress
    if shown is None or attempt.running_time is None or shown.updated_at is None:
        return None
    return shown.step if stamps.seconds(shown.updated_at) > stamps.seconds(attempt.running_time) else None


def _note_progress(builder: PlanBuilder, attempt: AttemptStatus, said: ProgressDocument, spec: Spec) -> None:
    if said.step is None:
        return
    before = builder.status.progress or Progress()
    step = max(said.step, _known(builder))
    target = said.target_step or before.target_step
    after = revised(
        before,
        step=step,
        target_step=target,
        text=f"{step}/{target}" if target is not None else str(step),
        phase=said.phase,
        reward=_decimal(said.reward) or before.reward,
        accuracy=_decimal(said.accuracy) or before.accuracy,
        tokens_per_second=_decimal(said.tokens_per_second) or before.tokens_per_second,
    )
    if after != builder.status.progress:
        completion = _completion(builder, attempt, step, target, spec)
        updated = revised(after, estimated_completion_time=completion, updated_at=builder.observed.now)
        builder.revise(progress=updated)


def _known(builder: PlanBuilder) -> int:
    """The highest step that is recorded anywhere but in `status.progress` itself, which somebody may have edited."""
    rewound = builder.status.rewind.attempt if builder.status.rewind is not None else 0
    ended = [record.end_step or 0 for record in builder.status.attempts if record.number > rewound]
    last = builder.status.stages[-1] if builder.status.stages else None
    begun = 0 if last is None else last.end_step or last.start_step
    committed = builder.status.checkpoint.step if builder.status.checkpoint is not None else 0
    return max([begun, committed, *ended])


def _note_artifacts(builder: PlanBuilder, said: ProgressDocument, spec: Spec) -> None:
    """Remembers what was written for other tools, one entry a stage."""
    known = {artifact.stage: artifact for artifact in builder.status.artifacts}
    stages = {stage.name for stage in spec.stages}
    for told in said.artifacts or ():
        written = ArtifactStatus(stage=told.stage, step=told.step, path=told.path) if told.stage in stages else None
        if written is None or known.get(told.stage) == written:
            continue
        known[told.stage] = written
        message = f"the weights of stage {written.stage} at step {written.step} are in {written.path}"
        builder.event("Normal", "ArtifactWritten", message)
    builder.revise(artifacts=list(known.values())[-ARTIFACTS_MAX:])


def _note_trackers(builder: PlanBuilder, said: ProgressDocument, spec: Spec) -> None:
    """Shows how far each tracker is; one that is no longer told of the run is an event, too."""
    if said.trackers is None:
        return
    wanted = spec.trackers.wanted if spec.trackers is not None else {}
    before = {tracker.name: tracker for tracker in builder.status.trackers}
    now = []
    for told in said.trackers:
        if told.name not in wanted:
            continue
        shown = revised(TrackerStatus(name=told.name, state=told.state), step=told.step, message=told.message or None)
        now.append(shown)
        known = before.get(told.name)
        if told.state != "Following" and (known is None or (known.state, known.message) != (told.state, shown.message)):
            builder.event("Warning", f"Tracker{told.state}", f"{told.name}: {told.message}")
    builder.revise(trackers=now)


def _completion(builder: PlanBuilder, attempt: AttemptStatus, step: int, target: int | None, spec: Spec) -> str | None:
    """When the last declared stage would reach its limit at this attempt's average speed."""
    stage = builder.status.stage
    if stage is None or attempt.running_time is None or target is None:
        return None
    made = step - (attempt.start_step or 0)
    took = stamps.between(attempt.running_time, builder.observed.now)
    if made <= 0 or took <= 0:
        return None
    left = max(0, target - step) + sum(s.advance.steps for s in spec.stages[stage.index + 1 :] if s.curate is None)
    at = stamps.seconds(builder.observed.now) + left * took / made
    return stamps.whole(stamps.stamp(at)) if left * took / made < 10 * 365 * 86_400 else None


def _note_restored_step(
    builder: PlanBuilder, attempt: AttemptStatus, said: ProgressDocument, spec: Spec
) -> AttemptStatus:
    """Learns which step the attempt went on from, and so what the ones before it lost."""
    origin = said.start_step
    if origin is None:
        return attempt  # it has not restored yet
    open_records = [r for r in builder.status.attempts if r.steps_lost is None and r.number < attempt.number]
    known = attempt.start_step or 0  # what was committed when it was authorized; since then it commits itself
    if open_records and origin < known:
        attempt = builder.revise_attempt(attempt, start_step=origin)
        words = f"attempt {attempt.number} goes on from step {origin}, though step {known} had been committed"
        why = "the steps between are made again; the trainer's log says why the newer checkpoints are not used"
        builder.event("Warning", "OlderCheckpoint", f"{words}; {why}")
    if origin > (attempt.start_step or 0):
        attempt = builder.revise_attempt(attempt, start_step=origin)
        builder.count(disturbances_without_progress=0)  # the one before had committed more than it could tell
    if origin:
        if builder.status.checkpoint is None:
            _tell_of_inheritance(builder, attempt, said, origin, spec)
        note_committed(builder, attempt, origin)
    for record in open_records:
        lost = max(0, (record.end_step or 0) - origin)
        builder.put_record(revised(record, steps_lost=lost))
        if lost:
            builder.count(steps_lost=builder.counters.steps_lost + lost)
    return attempt


def _tell_of_inheritance(
    builder: PlanBuilder, attempt: AttemptStatus, said: ProgressDocument, origin: int, spec: Spec
) -> None:
    """A job that knew of no step goes on at one: its directory was not empty, which somebody may not have meant."""
    left = said.inherited
    whose = f"job {left.namespace}/{left.name} with uid {left.job_uid}" if left is not None else "an earlier run"
    message = (
        f"attempt {attempt.number} goes on at step {origin}, which {whose} left in {spec.checkpoint.directory}; "
        "to start over, give the job a directory of its own"
    )
    builder.event("Normal", "GoesOn", message[:1000])


def _decimal(value: float | None) -> str | None:
    return None if value is None else f"{value:.6g}"
