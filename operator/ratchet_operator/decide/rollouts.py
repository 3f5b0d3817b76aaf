"""The rollout fleet: which workers there are to be, and what becomes of each.

One JobSet a worker, NAME-wI-aN for each I below workers.max, replaced alone. Workers write nothing that a later
attempt of the trainer could mistake: their results are a cache, looked up by what was asked. So none is fenced, none
waits for an older one's pods, and a new attempt of the trainer leaves them running.

N counts all JobSets of the fleet together, so no name comes twice and a worker whose record is dropped (the fleet was
made smaller, or rests) needs no memory. The number is in status before its JobSet exists; a JobSet that no record
names is deleted, or taken up where status was lost.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.protocol import NO_WORKERS
from ratchet_api.rollouts import Rollouts
from ratchet_api.status import RolloutsStatus, WorkerStatus
from ratchet_api.validate import processes
from ratchet_operator.build.configmap import config_map
from ratchet_operator.build.jobset import jobset as build_jobset
from ratchet_operator.build.names import config_map_name, jobset_name
from ratchet_operator.build.new_attempt import NewAttempt
from ratchet_operator.decide import approval, image, stage_budget, stage_progress, stamps
from ratchet_operator.decide.fencing import delete_jobset, harmless
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.own_end import MAY_START, START_PATIENCE_SECONDS
from ratchet_operator.decide.placement import FORGET_SECONDS
from ratchet_operator.decide.plan_builder import PlanBuilder, revised
from ratchet_operator.decide.sign import Sign, strongest
from ratchet_operator.decide.verdict import Verdict
from ratchet_operator.decide.worker_end import TABLE, Answer, counted, next_start, signs_of_an_end
from ratchet_operator.plan import Delete

HOPELESS_ENDS = 3
"""Ends in a row that a repetition would repeat, of every worker, after which the job ends."""
AT_A_TIME = 16
"""Workers that one pass starts at most: a pass must not take long, the next one goes on."""
EVIDENCE = 256


def follow(builder: PlanBuilder, spec: Spec, *, accepted: bool) -> None:
    """Follows every worker, starts those that are due and removes those that are not wanted."""
    fleet = builder.status.rollouts
    if spec.rollouts is None and fleet is None:
        return
    fleet = fleet or RolloutsStatus()
    builder.revise(rollouts=_with_trainers_word(builder, fleet))
    rests = resting(builder, spec)
    wanted = spec.rollouts.workers.max if spec.rollouts is not None and rests is None else 0
    _take_up_lost(builder, spec, wanted)
    ended: dict[Verdict, list[str]] = {}
    for worker in _workers(builder):
        if worker.worker < wanted and spec.rollouts is not None:
            _put(builder, _followed(builder, spec.rollouts, worker, ended))
        else:
            _remove(builder, worker)
    _tell(builder, ended)
    if accepted and spec.rollouts is not None and wanted and begun(builder):
        _start_due(builder, spec, spec.rollouts, wanted)
    _sweep(builder)
    _count(builder, wanted)


def end(builder: PlanBuilder) -> None:
    """Removes the whole fleet of a job that is over."""
    if builder.status.rollouts is None:
        return
    for worker in _workers(builder):
        _remove(builder, worker)
    _sweep(builder)
    _count(builder, 0)


def resting(builder: PlanBuilder, spec: Spec) -> str | None:
    """Why no worker is needed now, in words; None while some are."""
    status, position = builder.status, builder.status.stage
    if spec.rollouts is None:
        return "the job has no fleet"
    if status.finished_time is not None:
        return "the job is over"
    if spec.suspend:
        return "the job is suspended"
    if position is None or position.index >= len(spec.stages) or spec.stages[position.index].rl is None:
        return "the stage samples nothing" if position is not None else "no stage has begun"
    if stage_progress.last_stage_over(status):
        return "the last stage is over"
    if approval.missing(status) is not None:
        return "the end of a stage waits for an approval"
    if stage_budget.spent(builder, spec) is not None:
        return "the budget of the stage is spent"
    record = builder.record(builder.attempt.number) if builder.attempt is not None else None
    if record is not None and record.verdict == Verdict.WORKERS_FAILED:
        return "no worker can sample"
    away = _trainer_away_since(builder)
    if away is None or (status.rollouts is not None and status.rollouts.trainer_waits):
        return None
    until = stamps.after(away, float(spec.rollouts.wait_seconds))
    if builder.observed.passed(until):
        return f"the trainer has not run for {spec.rollouts.wait_seconds} s (rollouts.waitSeconds)"
    builder.wake_at(until)
    return None


def begun(builder: PlanBuilder) -> bool:
    """Whether workers may start: the first ones wait until the trainer runs, so that nobody waits for it with a slice
    in his hands."""
    attempt, fleet = builder.attempt, builder.status.rollouts
    runs = attempt is not None and attempt.running_time is not None
    return runs or (fleet is not None and bool(fleet.workers or fleet.trainer_waits))


def missing_for_trainer(builder: PlanBuilder, spec: Spec) -> str | None:
    """What a trainer waits for that gave its machines back for want of workers; None if it may begin."""
    fleet = builder.status.rollouts
    if spec.rollouts is None or fleet is None or not fleet.trainer_waits or resting(builder, spec) is not None:
        return None
    workers = spec.rollouts.workers
    if workers.max == 0:
        return "rollouts.workers.max is 0, so nobody samples; raise it to go on"
    if fleet.running >= workers.min:
        return None
    return (
        f"{fleet.running} of {workers.min} workers that it needs (rollouts.workers.min) run; the condition "
        "RolloutsAvailable says what the others wait for"
    )


def trainer_begins(builder: PlanBuilder) -> None:
    """Notes that the trainer does not wait for workers any more, or not yet again."""
    if builder.status.rollouts is not None and builder.status.rollouts.trainer_waits:
        builder.revise(rollouts=revised(builder.status.rollouts, trainer_waits=None))


def left_for_workers(builder: PlanBuilder, attempt: int) -> bool:
    """Whether the trainer of an attempt left because too few workers sampled for it: nothing is wrong with it."""
    pods = builder.observed.own_pods(attempt)
    return any(pod.exit is not None and pod.exit.message.reason == NO_WORKERS for pod in pods)


def hopeless(builder: PlanBuilder, spec: Spec) -> str | None:
    """Why the whole fleet will never sample; None as long as one of its workers may."""
    fleet = builder.status.rollouts
    wanted = spec.rollouts.workers.max if spec.rollouts is not None else 0
    if fleet is None or not wanted or resting(builder, spec) is not None:
        return None
    lost = [w for w in fleet.workers if w.hopeless >= HOPELESS_ENDS and (w.end_time or w.running_time is None)]
    if len(lost) < wanted:
        return None
    last = max(lost, key=lambda w: w.end_time or "")
    many = "the only worker" if wanted == 1 else f"each of {wanted} workers"
    return f"{many} failed {HOPELESS_ENDS} times running; worker {last.worker} at last: {last.evidence}"


# --- one worker -----------------------------------------------------------------------------------------------------


def _followed(
    builder: PlanBuilder, fleet: Rollouts, worker: WorkerStatus, ended: dict[Verdict, list[str]]
) -> WorkerStatus:
    """The worker as it is found now."""
    if worker.end_time is not None:
        return worker
    observed, now, jobset = builder.observed, builder.observed.now, _jobset(builder, worker)
    pods = observed.worker_pods(worker.worker, worker.attempt)
    if worker.created_time is None:
        if jobset is None and not pods:
            return worker  # it is created below
        worker = revised(worker, created_time=now)
    signs = signs_of_an_end(observed, worker, jobset) or _no_room(builder, fleet, worker, jobset)
    if signs:
        sign = strongest(signs)
        ended.setdefault(sign.verdict, []).append(f"worker {worker.worker}: {sign.evidence}")
        return _end(builder, worker, jobset, sign)
    if jobset is not None and worker.running_time is None:
        if sum(pod.running for pod in pods) >= worker.pods_total:
            return revised(worker, running_time=now)
        if any(pod.waiting.get("reason") in MAY_START for pod in pods):
            builder.wake_at(stamps.after(worker.created_time or now, START_PATIENCE_SECONDS))
    return worker


def _end(builder: PlanBuilder, worker: WorkerStatus, jobset: JobSet | None, sign: Sign) -> WorkerStatus:
    """Writes down that the worker has ended. Its JobSet stays until the next one starts, so that its log can be read,
    but for one of which a pod still runs."""
    observed, now = builder.observed, builder.observed.now
    stage_budget.book_worker(builder, worker)
    fleet = _fleet(builder)
    without_room = dict(fleet.without_room)
    if sign.verdict == Verdict.UNSCHEDULABLE and worker.placement is not None:
        without_room[worker.placement] = now
    builder.revise(rollouts=revised(fleet, restarts=fleet.restarts + 1, without_room=without_room))
    pods = observed.worker_pods(worker.worker, worker.attempt)
    if not all(harmless(pod, observed.node_of(pod)) for pod in pods):
        _delete(builder, jobset)
    counts = counted(worker, sign.verdict, now)
    evidence = sign.evidence[:EVIDENCE]
    return revised(worker, end_time=now, verdict=sign.verdict.value, evidence=evidence, **counts)


def _no_room(builder: PlanBuilder, fleet: Rollouts, worker: WorkerStatus, jobset: JobSet | None) -> list[Sign]:
    """The sign that the worker's placement has no room for it, once another one is to be tried."""
    if worker.running_time is not None or jobset is None or worker.created_time is None:
        return []
    pods = builder.observed.worker_pods(worker.worker, worker.attempt)
    bound = sum(pod.node is not None for pod in pods)
    if pods and bound >= worker.pods_total:
        return []
    there = next((p for p in fleet.placements if p.name == worker.placement), None)
    if there is None:
        words = f"placement {worker.placement} is no longer in spec.rollouts"
        return [Sign(Verdict.UNSCHEDULABLE, words, None)]
    if len(fleet.placements) < 2:
        return []
    until = stamps.after(worker.created_time, float(there.wait_seconds))
    if not builder.observed.passed(until):
        builder.wake_at(until)
        return []
    words = f"{bound} of {worker.pods_total} pods found a node of placement {there.name} within {there.wait_seconds} s"
    return [Sign(Verdict.UNSCHEDULABLE, words, None)]


def _start_due(builder: PlanBuilder, spec: Spec, fleet: Rollouts, wanted: int) -> None:
    """Authorizes JobSets for workers that have none, and creates those that are authorized."""
    there = {worker.worker: worker for worker in _workers(builder)}
    creates = 0
    for number in range(wanted):
        worker = there.get(number)
        if worker is not None and worker.end_time is None and worker.created_time is not None:
            continue
        if worker is not None and worker.end_time is not None and not builder.observed.passed(next_start(worker)):
            builder.wake_at(next_start(worker))
            continue
        if creates == AT_A_TIME:
            builder.wake_at(builder.observed.now)
            return
        creates += 1
        if worker is None or worker.end_time is not None or _taken(builder, worker):
            worker = _authorize(builder, fleet, number, worker)
        _create(builder, spec, fleet, worker)


def _authorize(builder: PlanBuilder, fleet: Rollouts, number: int, before: WorkerStatus | None) -> WorkerStatus:
    """A JobSet of its own for a worker, in status. What the one before failed with is remembered."""
    if before is not None:
        _delete(builder, _jobset(builder, before), before)
    status = _fleet(builder)
    attempt = status.last_attempt + 1
    builder.revise(rollouts=revised(status, last_attempt=attempt))
    fresh = _placed(WorkerStatus(worker=number, attempt=attempt), _choose(builder, fleet))
    fresh = revised(fresh, start_time=builder.observed.now)
    if before is not None:
        kept = {name: getattr(before, name) for name in ("verdict", "evidence", "failures", "hopeless")}
        fresh = revised(fresh, **kept)
    _put(builder, fresh)
    builder.status_first = True
    return fresh


def _create(builder: PlanBuilder, spec: Spec, fleet: Rollouts, worker: WorkerStatus) -> None:
    """Asks for the objects of an authorized worker."""
    observed = builder.observed
    chosen = next((p for p in fleet.placements if p.name == worker.placement), fleet.placements[0])
    if (chosen.name, processes(chosen)) != (worker.placement, worker.pods_total):
        # The spec was changed while it waited to be created: what is counted must be what is created.
        _put(builder, _placed(worker, chosen))
        builder.status_first = True
    step = builder.status.checkpoint.step if builder.status.checkpoint else 0
    stay_until = int(stamps.seconds(observed.now)) + spec.maintenance.lead_seconds
    job, values = observed.snapshot.job, observed.snapshot.values
    trainers = image.resolve(builder, spec)
    new = NewAttempt(job, spec, worker.attempt, chosen, trainers, step, values, stay_until, worker.worker)
    stage = builder.status.stage.index if builder.status.stage is not None else 0
    builder.create_last += [config_map(job, spec, worker.attempt, stage, worker.worker), build_jobset(new)]


def _choose(builder: PlanBuilder, fleet: Rollouts) -> Placement:
    """The first placement that had room when a worker last asked for some, or was asked long ago."""
    tried = _fleet(builder).without_room
    for placement in fleet.placements:
        stamp = tried.get(placement.name)
        rest = max(FORGET_SECONDS, float(placement.wait_seconds))
        if stamp is None or builder.observed.passed(stamps.after(stamp, rest)):
            return placement
    return min(fleet.placements, key=lambda placement: tried[placement.name])  # all were tried of late: go round


def _placed(worker: WorkerStatus, placement: Placement) -> WorkerStatus:
    return revised(worker, placement=placement.name, pods_total=processes(placement))


def _taken(builder: PlanBuilder, worker: WorkerStatus) -> bool:
    """Whether a foreign object has a name that it needs; the next number has another."""
    name = builder.observed.name
    needed = {
        f"JobSet/{jobset_name(name, worker.attempt, worker.worker)}",
        f"ConfigMap/{config_map_name(name, worker.attempt, worker.worker)}",
    }
    return bool(needed & set(builder.observed.snapshot.conflicts))


def _remove(builder: PlanBuilder, worker: WorkerStatus) -> None:
    """Lets a worker go that is not wanted: its pods have their grace, its call is another's."""
    if worker.end_time is None:
        stage_budget.book_worker(builder, worker)
    _delete(builder, _jobset(builder, worker), worker)
    fleet = _fleet(builder)
    builder.revise(rollouts=revised(fleet, workers=[w for w in fleet.workers if w.worker != worker.worker]))


# --- the fleet ------------------------------------------------------------------------------------------------------


def _with_trainers_word(builder: PlanBuilder, fleet: RolloutsStatus) -> RolloutsStatus:
    """What the trainer says of the fleet, while it runs; and whether it has left for want of workers."""
    attempt = builder.attempt
    report = builder.observed.report_of(attempt) if attempt is not None and attempt.ended_time is None else None
    said = report.said.rollouts if report is not None else None
    speed = said.results_per_second if said is not None else None
    waits = fleet.trainer_waits
    if attempt is not None and attempt.ended_time is not None and left_for_workers(builder, attempt.number):
        waits = True
    return revised(
        fleet,
        version=said.version if said is not None and said.version is not None else fleet.version,
        waiting_calls=said.waiting_calls if said is not None else None,
        results_per_second=None if speed is None else f"{speed:.6g}",
        trainer_waits=waits,
    )


def _trainer_away_since(builder: PlanBuilder) -> str | None:
    """Since when no trainer has run, or when the next one was authorized; None while one runs, or none ever did."""
    attempt = builder.attempt
    if attempt is None or not builder.status.attempts:
        return None
    if attempt.ended_time is not None:
        return attempt.ended_time
    return attempt.start_time if attempt.running_time is None else None


def _take_up_lost(builder: PlanBuilder, spec: Spec, wanted: int) -> None:
    """Takes up JobSets that status has forgotten, by the highest number where a worker has several."""
    fleet = _fleet(builder)
    there = {jobset.worker: jobset for jobset in builder.observed.worker_jobsets() if jobset.worker is not None}
    highest = max([fleet.last_attempt, *(attempt for _, attempt in there)])
    if highest <= fleet.last_attempt:
        return
    builder.revise(rollouts=revised(fleet, last_attempt=highest))
    known = {worker.worker for worker in fleet.workers}
    for (number, attempt), jobset in sorted(there.items(), reverse=True):
        if number in known or number >= wanted or jobset.deleting or spec.rollouts is None:
            continue
        known.add(number)
        fresh = _placed(WorkerStatus(worker=number, attempt=attempt), spec.rollouts.placements[0])
        _put(builder, revised(fresh, start_time=builder.observed.now))


def _sweep(builder: PlanBuilder) -> None:
    """Deletes JobSets that belong to no worker any more."""
    kept = {(worker.worker, worker.attempt) for worker in _workers(builder)}
    for jobset in builder.observed.worker_jobsets():
        if jobset.worker is not None and jobset.worker not in kept and not jobset.deleting:
            number, attempt = jobset.worker
            _delete(builder, jobset, WorkerStatus(worker=number, attempt=attempt))


def _count(builder: PlanBuilder, wanted: int) -> None:
    fleet = _fleet(builder)
    running = sum(worker.running_time is not None and worker.end_time is None for worker in fleet.workers)
    text = f"{running}/{wanted}"
    builder.revise(rollouts=revised(fleet, desired=wanted, running=running, text=text))


def _tell(builder: PlanBuilder, ended: dict[Verdict, list[str]]) -> None:
    """One event for all workers that ended alike in this pass: a pool that is taken takes many."""
    for verdict, words in ended.items():
        more = f"; and {len(words) - 3} more" if len(words) > 3 else ""
        lost = TABLE[verdict] == Answer.AT_ONCE
        builder.event("Normal" if lost else "Warning", f"Worker{verdict}", "; ".join(words[:3])[:900] + more)


def _fleet(builder: PlanBuilder) -> RolloutsStatus:
    return builder.status.rollouts or RolloutsStatus()


def _workers(builder: PlanBuilder) -> list[WorkerStatus]:
    return list(_fleet(builder).workers)


def _put(builder: PlanBuilder, worker: WorkerStatus) -> None:
    fleet = _fleet(builder)
    others = [w for w in fleet.workers if w.worker != worker.worker]
    workers = sorted([*others, worker], key=lambda w: w.worker)
    builder.revise(rollouts=revised(fleet, workers=workers))


def _jobset(builder: PlanBuilder, worker: WorkerStatus) -> JobSet | None:
    own = (worker.worker, worker.attempt)
    return next((jobset for jobset in builder.observed.worker_jobsets() if jobset.worker == own), None)


def _delete(builder: PlanBuilder, jobset: JobSet | None, whole: WorkerStatus | None = None) -> None:
    """Asks for the deletion of a JobSet, once; of a worker as a `whole`, of its ConfigMap, too."""
    wanted = [] if jobset is None or jobset.deleting else [delete_jobset(builder.observed, jobset)]
    if whole is not None:
        name = config_map_name(builder.observed.name, whole.attempt, whole.worker)
        wanted.append(Delete("v1", "ConfigMap", builder.observed.namespace, name, None))
    builder.delete += [deletion for deletion in wanted if deletion not in builder.delete]
