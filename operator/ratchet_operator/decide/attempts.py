"""The life of an attempt: authorized, created, adopted, running, ended, settled.

An attempt is (number, uid of its JobSet). Status is written before each act that it authorizes, and every function
here looks at what is there before it asks for something, so a pass may stop anywhere. Why an attempt ended is
`verdict`'s, what that costs `budget`'s, how the gang is ended `gang`'s, what may still write `fencing`'s.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.protocol import Exit as Code
from ratchet_api.status import AttemptRecord, AttemptStatus, Resolved
from ratchet_api.validate import processes
from ratchet_operator.build.configmap import config_map
from ratchet_operator.build.jobset import jobset as build_jobset
from ratchet_operator.build.names import config_map_name, jobset_name
from ratchet_operator.decide import budget, fencing, gang, placement, report, stages, stamps
from ratchet_operator.decide.draft import Draft, revised
from ratchet_operator.decide.verdict import MAY_START, OWN_GRACE_SECONDS, START_PATIENCE_SECONDS, Sign, strongest
from ratchet_operator.decide.world import World
from ratchet_operator.plan import Delete

SUSPENDED = "spec.suspend is true"


def highest(world: World, *, own: bool) -> int:
    """The highest attempt number that any live object, or a trainer that was fenced off, tells of; 0 if none does."""
    numbers = [0]
    for pod in world.pods:
        if pod.attempt is not None and pod.made_by_job and (not own or pod.job_uid == world.uid):
            numbers.append(pod.attempt)
        if pod.exit is not None and pod.exit.code == Code.FENCED and not own:
            claim = pod.exit.message.get("owner")
            if isinstance(claim, dict) and claim.get("jobUID") == world.uid and isinstance(claim.get("attempt"), int):
                numbers.append(claim["attempt"])
    for jobset in world.jobsets:
        if jobset.attempt is not None and (not own or jobset.owned_by(world.uid)):
            numbers.append(jobset.attempt)
    return max(numbers)


def remember(draft: Draft, spec: Spec) -> None:
    """Takes up the highest attempt of this job when status was lost or restored from an old copy."""
    known = draft.attempt.number if draft.attempt is not None else 0
    found = highest(draft.world, own=True)
    if found <= known:
        return
    number = found
    rung = _placement_of(draft, number, spec)
    draft.revise(
        attempt=_fresh(draft, spec, number, rung),
    )
    draft.count(attempts=max(number, draft.counters.attempts))
    _resolve_image(draft, spec)
    stages.begin(draft, spec)
    draft.status_first = True
    draft.event(
        "Warning",
        "StatusReset",
        f"status was lost or is older than attempt {number}, which is taken up; budgets and history are lost",
    )


def authorize(draft: Draft, spec: Spec) -> None:
    """Writes the next attempt into status. Its objects are created once nothing older can write."""
    number = 1 + max(highest(draft.world, own=False), draft.attempt.number if draft.attempt is not None else 0)
    rung = placement.choose(draft, spec)
    stages.begin(draft, spec)
    draft.revise(attempt=_fresh(draft, spec, number, rung.name))
    draft.count(attempts=draft.counters.attempts + 1)
    _resolve_image(draft, spec)
    draft.status_first = True
    step = draft.status.checkpoint.step if draft.status.checkpoint else 0
    draft.event("Normal", "AttemptStarts", f"attempt {number} starts on placement {rung.name} from step {step}")


def adopt(draft: Draft) -> None:
    """Takes up the JobSet of an authorized attempt if it is there; an attempt of which only pods are left has ended."""
    world, attempt = draft.world, draft.attempt
    assert attempt is not None
    found = world.own_jobset(attempt.number)
    if found is not None:
        draft.revise_attempt(job_set_uid=found.uid, created_time=world.now)
        for record in draft.status.attempts[-2:]:
            if record.number < attempt.number:  # nobody reads the file of that attempt any more
                name = config_map_name(world.name, record.number)
                draft.delete.append(Delete("v1", "ConfigMap", world.namespace, name, None))
    elif world.own_pods(attempt.number):
        end(draft, [Sign("Deleted", f"JobSet {attempt.job_set} was deleted while its pods live", None)])


def start(draft: Draft, spec: Spec) -> None:
    """Creates what was authorized, as soon as nothing older can write."""
    world, attempt = draft.world, draft.attempt
    assert attempt is not None
    waiting = fencing.blockers(world, attempt.number)
    if waiting:
        shown = ", ".join(waiting[:3]) + (f" and {len(waiting) - 3} more" if len(waiting) > 3 else "")
        draft.wait(
            "WaitingForOldPods",
            f"attempt {attempt.number} starts once nothing older can write: {shown}; if a machine is known to be off, "
            "delete its Node or taint it node.kubernetes.io/out-of-service",
        )
        return
    if world.snapshot.conflicts:
        names = ", ".join(world.snapshot.conflicts)
        draft.wait("NameConflict", f"{names} exists and does not belong to this job; delete or rename it")
    rung = next((p for p in spec.placements if p.name == attempt.placement), spec.placements[0])
    if (attempt.placement, attempt.pods_total) != (rung.name, processes(rung)):
        # The spec was changed while the attempt waited to be created: what is counted must be what is created.
        draft.revise_attempt(placement=rung.name, pods_total=processes(rung))
        draft.status_first = True
    before = draft.status.resolved
    _resolve_image(draft, spec)
    draft.status_first = draft.status_first or draft.status.resolved != before
    resolved = draft.status.resolved
    image = resolved.image if resolved is not None and resolved.image else spec.image or world.snapshot.values.image
    stage = draft.status.stage
    step = draft.status.checkpoint.step if draft.status.checkpoint else 0
    job = world.snapshot.job
    draft.create.append(config_map(job, spec, attempt.number, stage.index if stage else 0))
    draft.create.append(
        build_jobset(job, spec, attempt.number, rung, image, step, world.snapshot.values.local_directory)
    )


def watch(draft: Draft) -> None:
    """Counts the pods of the present attempt, and notes when all of them run."""
    attempt = draft.attempt
    assert attempt is not None
    pods = draft.world.own_pods(attempt.number)
    draft.revise_attempt(pods_ready=sum(pod.ready for pod in pods))
    if attempt.running_time is None and sum(pod.running for pod in pods) >= attempt.pods_total:
        draft.revise_attempt(running_time=draft.world.now)
        _pin_image(draft, pods[0].image_id)
    report.milestones(draft)
    if attempt.created_time is not None and any(pod.waiting.get("reason") in MAY_START for pod in pods):
        draft.wake_at(stamps.after(attempt.created_time, START_PATIENCE_SECONDS))


def end(draft: Draft, found: list[Sign]) -> None:
    """Writes down that the present attempt is ending: evidence first, the acts follow."""
    world, attempt = draft.world, draft.attempt
    assert attempt is not None
    sign = placement.without_room(draft, strongest(found))
    deadline = stamps.after(world.now, gang.window(found))
    draft.revise_attempt(ended_time=world.now, drain_deadline=deadline, pods_ready=0)
    record = revised(
        AttemptRecord(number=attempt.number, verdict=sign.verdict),
        placement=attempt.placement,
        start_step=attempt.start_step,
        end_step=report.end_step(draft),
        start_time=attempt.start_time,
        end_time=world.now,
        recovery=None if _undisturbed(sign) else report.detected(sign.stamp, world.now),
    )
    budget.judge(draft, record, sign)
    draft.status_first = True


def follow_end(draft: Draft, found: list[Sign]) -> None:
    """Ends the rest of the gang of an attempt that is ending, and settles it when all members have ended."""
    world, attempt = draft.world, draft.attempt
    assert attempt is not None
    record = draft.record(attempt.number)
    assert record is not None
    if record.final_time is None and gang.lost(found):
        sooner = stamps.after(world.now, gang.window(found))
        if attempt.drain_deadline is None or stamps.seconds(sooner) < stamps.seconds(attempt.drain_deadline):
            draft.revise_attempt(drain_deadline=sooner)
    _learn(draft, record)
    gang.end(draft)
    record = draft.record(attempt.number)
    assert record is not None
    if record.final_time is None and gang.drained(draft):
        _settle(draft, record)


def _settle(draft: Draft, record: AttemptRecord) -> None:
    world = draft.world
    assert record.end_time is not None
    recovery = record.recovery
    if recovery is not None:
        recovery = revised(recovery, drain=f"{stamps.between(record.end_time, world.now):g}")
    draft.put_record(revised(record, final_time=world.now, recovery=recovery))
    if recovery is not None:
        made_step = draft.status.checkpoint is not None and draft.status.checkpoint.step > (record.start_step or 0)
        count = 0 if made_step else draft.counters.disturbances_without_progress + 1
        draft.count(disturbances_without_progress=count)


def _learn(draft: Draft, record: AttemptRecord) -> None:
    """What the members said when they left: the last step, and that it is safe."""
    words = report.last_words(draft.world.own_pods(record.number))
    if words is not None:
        report.committed(draft, words)
        if words > (record.end_step or 0):
            draft.put_record(revised(record, end_step=words))


def suspension() -> Sign:
    """The sign by which the user's own wish ends an attempt."""
    return Sign("Drained", SUSPENDED, OWN_GRACE_SECONDS)


def _undisturbed(sign: Sign) -> bool:
    """Whether nothing has to be recovered from."""
    return sign.verdict in budget.NO_DISTURBANCE or sign.evidence == SUSPENDED


def _fresh(draft: Draft, spec: Spec, number: int, rung: str) -> AttemptStatus:
    world = draft.world
    chosen = next((p for p in spec.placements if p.name == rung), spec.placements[0])
    checkpoint = draft.status.checkpoint
    return revised(
        AttemptStatus(number=number),
        job_set=jobset_name(world.name, number),
        fence=world.snapshot.fence,
        placement=rung,
        start_step=checkpoint.step if checkpoint else 0,
        start_time=world.now,
        pods_total=processes(chosen),
    )


def _placement_of(draft: Draft, number: int, spec: Spec) -> str:
    """The rung whose shape a live JobSet has: status, which knew its name, is lost."""
    found = draft.world.own_jobset(number)
    if found is not None:
        for job in found.raw.get("spec", {}).get("replicatedJobs", ()):
            pods = job.get("replicas", 1) * job["template"]["spec"].get("completions", 1)
            selector = job["template"]["spec"]["template"]["spec"].get("nodeSelector", {})
            for rung in spec.placements:
                if pods == processes(rung) and selector.get("cloud.google.com/gke-tpu-topology") == rung.topology:
                    return rung.name
    return spec.placements[0].name


def _resolve_image(draft: Draft, spec: Spec) -> None:
    """Decides the image once for the job's life; `spec.image` can change it only while the job is suspended."""
    before = draft.status.resolved.image if draft.status.resolved else None
    if before is None:
        draft.revise(resolved=Resolved(image=spec.image or draft.world.snapshot.values.image))
    elif spec.image is not None and before != spec.image and not before.startswith(spec.image + "@"):
        draft.revise(resolved=Resolved(image=spec.image))
        draft.event("Normal", "ImageChanged", f"the trainer's image is {spec.image} from now on; it was {before}")


def _pin_image(draft: Draft, image_id: str) -> None:
    """Replaces a tag by tag@digest once a pod has shown which image the tag meant."""
    image = draft.status.resolved.image if draft.status.resolved else None
    digest = image_id.rpartition("@")[2]
    if image is not None and "@" not in image and "@" in image_id and digest.startswith("sha256:"):
        draft.revise(resolved=Resolved(image=f"{image}@{digest}"))
