"""What holds at every moment of every life of a job, whatever goes wrong: ten invariants on a recorded history.

Each is a function from a history to the sentences that say where it is broken. They know the protocols, not the
operator's code: what they hold it to is written down here a second time.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from history import JOB, JOBSET, NODE, POD, History, Look, Round, Seen, Version

from ratchet_api.protocol import LABEL_ATTEMPT, LABEL_JOB_UID, LABEL_JOBSET_UID

Raw = dict[str, Any]
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
CHARGES = {
    "preemptions": {"Preempted", "Maintenance", "NodeLost", "AdmissionRejected", "Evicted", "QueueEvicted",
                    "AcceleratorUnavailable"},
    "nothing": {"Completed", "Drained", "Deleted", "Fenced", "Unschedulable", "PeerLost", "StorageUnavailable",
                "ConfigurationInvalid", "DeterministicFailure", "CheckpointUnreadable",
                "TakenOver", "WorkersFailed"},
    "failures": {"StartFailed", "OutOfMemory", "ApplicationFailed", "Hung", "PeerLost"},
}  # fmt: skip
"""Who pays for what: the table of protocols, section 2, from the budget's side."""
NO_FAILURE = (73, 74, 75, 143)
"""Exit codes with which no trainer has failed. (0 is a failure before the end of the job.)"""
KEPT_RECORDS = 20
ROUNDS = 10
"""Periodic lists within which a change must have been looked at; one would do on a machine that is not busy."""


def broken(history: History, excused: dict[str, str] | None = None) -> list[str]:
    """Every place where an invariant does not hold, with its name; `excused`: name -> why a test breaks it on
    purpose."""
    return [f"{name}: {text}" for name, check in INVARIANTS.items() if name not in (excused or {})
            for text in check(history)]  # fmt: skip


def one_live_attempt(history: History) -> Iterator[str]:
    """I1: never do pods of two attempts of a job run together, nor is an attempt made beside one that is not over.
    Workers are no attempts."""
    pods: dict[str, Version] = {}
    nodes: dict[str, Version] = {}
    machine: dict[str, str] = {}  # uid of a pod -> uid of the Node that it was bound to
    jobsets: dict[str, Version] = {}
    for it in history.versions:
        there = {POD: pods, NODE: nodes, JOBSET: jobsets}.get(it.kind)
        if there is None or it.of_worker:
            continue
        key = it.name if it.kind == NODE else it.uid
        if it.kind == JOBSET and it.change == "ADDED" and it.owned_by(JOB):
            for other in jobsets.values():
                if other.job == it.job and other.uid != it.uid and other.owned_by(JOB) and not _over(other):
                    yield f"JobSet {it.name} was made while {other.name} was not over"
        if it.change == "DELETED":
            there.pop(key, None)
        else:
            there[key] = it
        if it.kind == POD and (name := it.raw["spec"].get("nodeName")) and name in nodes:
            machine.setdefault(it.uid, nodes[name].uid)
        if it.kind == POD and _runs(it, nodes, machine):
            for other in pods.values():
                if other.job == it.job and _attempt(other) != _attempt(it) and _runs(other, nodes, machine):
                    yield f"pods {other.name} and {it.name} ran together"


def nothing_decreases(history: History) -> Iterator[str]:
    """I2: no write of an operator takes back an attempt, a stage or a step."""
    ours = history.written_by_operators()
    for life in history.lives(JOB).values():
        for before, after in itertools.pairwise(life):
            if after.revision not in ours:
                continue
            for path in ("attempt.number", "stage.index", "checkpoint.step", "progress.step", "counters.attempts",
                         "rollouts.lastAttempt", "rollouts.restarts"):  # fmt: skip
                old, new = _at(before.status, path), _at(after.status, path)
                rewound = _at(before.status, "rewind.lineage") != _at(after.status, "rewind.lineage")
                if old is not None and (new is None or new < old) and not rewound:
                    yield f"{after.name}: status.{path} went from {old} to {new}"


def no_orphans(history: History) -> Iterator[str]:
    """I3: at rest every pod belongs to a JobSet of a job that is there. Pods on machines that are gone are left to
    Kubernetes."""
    if not history.settled:
        return
    jobs, jobsets = history.left(JOB), history.left(JOBSET)
    nodes = {it.name for it in history.left(NODE).values()}
    for pod in history.left(POD).values():
        bound = pod.raw["spec"].get("nodeName")
        if "deletionTimestamp" in pod.raw["metadata"] or (bound and bound not in nodes) or pod.owned_by("Job") is None:
            continue
        jobset = jobsets.get(str(pod.labels.get(LABEL_JOBSET_UID)))
        if jobset is None:
            yield f"pod {pod.name} has outlived its JobSet"
        elif jobset.owned_by(JOB) not in jobs:
            yield f"pod {pod.name} has outlived its job"


def resumes_from_what_is_committed(history: History) -> Iterator[str]:
    """I4: an attempt is told the newest step that is known to be safe, and none that does not exist."""
    last: dict[str, Version] = {}  # uid of a job -> its last version so far
    found = {it.jobset_uid: it.step for it in history.resumed}
    for it in history.versions:
        if it.kind == JOB:
            last[it.uid] = it
        owner = it.owned_by(JOB) if it.kind == JOBSET and it.change == "ADDED" else None
        if owner is None or owner not in last:
            continue
        told, known = int(_environment(it.raw).get("RATCHET_LAST_STEP", -1)), _at(last[owner].status, "checkpoint.step")
        if told < (known or 0):
            yield f"JobSet {it.name} is told step {told}, though step {known} is known to be committed"
        if it.uid in found and told > found[it.uid]:
            yield f"JobSet {it.name} is told step {told}, but only {found[it.uid]} exists"


def generation_is_observed(history: History) -> Iterator[str]:
    """I5: status never tells of a generation that is to come, and at rest of no older one."""
    for it in history.of(JOB):
        seen = [it.status.get("observedGeneration"), *(c.get("observedGeneration") for c in _conditions(it))]
        if any(number is not None and number > it.raw["metadata"]["generation"] for number in seen):
            yield f"{it.name}: generation {max(n for n in seen if n)} of {it.raw['metadata']['generation']} observed"
    for it in history.left(JOB).values() if history.settled else ():
        seen_last, generation = it.status.get("observedGeneration"), it.raw["metadata"]["generation"]
        if seen_last != generation:
            yield f"{it.name}: at rest generation {seen_last} is observed, not {generation}"


def transitions_are_stable(history: History) -> Iterator[str]:
    """I6: lastTransitionTime moves with the status of a condition and only with it, and never back."""
    ours = history.written_by_operators()
    for life in history.lives(JOB).values():
        for before, after in itertools.pairwise(life):
            old = {c["type"]: c for c in _conditions(before)} if after.revision in ours else {}
            for new in _conditions(after):
                if (was := old.get(new["type"])) is None:
                    continue
                times = was["lastTransitionTime"], new["lastTransitionTime"]
                if was["status"] == new["status"] and times[0] != times[1]:
                    yield f"{after.name}: {new['type']} stayed {new['status']}, its time went {times[0]} -> {times[1]}"
                elif times[1] < times[0]:
                    yield f"{after.name}: the time of {new['type']} went back, {times[0]} -> {times[1]}"


def nothing_is_written_in_vain(history: History) -> Iterator[str]:
    """I7: where nothing happens nothing is written, and no write leaves the object as it was."""
    for act in history.quiet:
        yield f"written at rest: {act}"
    for act in history.acts:
        before = (act.sent.get("metadata") or {}).get("resourceVersion")
        if act.method in ("PUT", "PATCH") and act.code < 300 and before and before == str(act.revision):
            yield f"changed nothing: {act}"


def the_end_is_the_end(history: History) -> Iterator[str]:
    """I8: a job that is Completed stays so and starts nothing, and so does a Failed one until it is edited."""
    over: dict[str, tuple[Any, ...]] = {}  # uid -> how it ended
    seen: dict[str, int] = {}  # uid -> the generation that it was over for
    for it in history.versions:
        if it.kind == JOB:
            state = it.status.get("phase"), _at(it.status, "attempt.number")
            if it.uid in over and over[it.uid][0] == "Failed" and it.raw["metadata"]["generation"] > seen[it.uid]:
                del over[it.uid]  # an edit may have taken away why
            if it.uid in over and state != over[it.uid]:
                yield f"{it.name}: was {over[it.uid]} and became {state}"
            if state[0] in ("Completed", "Failed"):
                over[it.uid] = state
                seen[it.uid] = it.status.get("observedGeneration", 0)
        elif it.kind == JOBSET and it.change == "ADDED" and it.owned_by(JOB) in over:
            yield f"JobSet {it.name} was made after its job was over"


def budgets_count_what_the_policy_says(history: History) -> Iterator[str]:
    """I9: each verdict is charged as the protocols say, counters are sums of charges, a failure has a sign of failure,
    and nothing starts beyond the limit."""
    last: dict[str, Version] = {}
    for it in history.versions:
        if it.kind == JOB:
            last[it.uid] = it
            yield from _charges(it)
        elif it.kind == JOBSET and it.change == "ADDED" and (owner := it.owned_by(JOB)) in last:
            job = last[str(owner)]
            limit, count = _at(job.raw["spec"], "restart.failureLimit"), _at(job.status, "counters.failures")
            if (count or 0) > (3 if limit is None else limit):
                yield f"JobSet {it.name} was made after {count} failures"
    for uid, it in last.items():
        for record in it.status.get("attempts") or ():
            own, paid = (uid, str(record["number"])), record.get("chargedTo")
            signs = (pod for pod in history.of(POD) if _attempt(pod)[:2] == own and _failed(pod))
            if paid == "failures" and record["verdict"] != "Hung" and next(signs, None) is None:
                yield f"{it.name}: attempt {record['number']} is charged as a failure, and no container failed"


def every_change_is_looked_at(history: History) -> Iterator[str]:
    """I10: what has changed of a job that is not over is looked at within a few periodic lists, and by the end, if an
    operator works then."""
    ours = history.written_by_operators()
    ends = _ends(history)
    changes = [
        it for it in history.versions if it.job and it.revision not in ours and it.revision < ends.get(it.job, 0)
    ]
    looks: dict[str, Looked] = defaultdict(Looked)
    rounds: list[int] = []
    for read in history.reads:
        if not isinstance(read, Round):
            looks[read.job].add(read)
            continue
        if len(rounds) >= ROUNDS:
            yield from _overlooked(changes, looks, rounds[-ROUNDS], f"the end of {ROUNDS} periodic lists")
        rounds.append(read.revision)
    if history.settled:
        yield from _overlooked(changes, looks, max((it.revision for it in history.versions), default=0), "the end")


INVARIANTS: dict[str, Callable[[History], Iterator[str]]] = {
    "I1": one_live_attempt,
    "I2": nothing_decreases,
    "I3": no_orphans,
    "I4": resumes_from_what_is_committed,
    "I5": generation_is_observed,
    "I6": transitions_are_stable,
    "I7": nothing_is_written_in_vain,
    "I8": the_end_is_the_end,
    "I9": budgets_count_what_the_policy_says,
    "I10": every_change_is_looked_at,
}


def _over(jobset: Version) -> bool:
    """Whether a JobSet is finished or going."""
    ended = any(c["type"] in ("Completed", "Failed") and c["status"] == "True" for c in _conditions(jobset))
    return ended or "deletionTimestamp" in jobset.raw["metadata"]


def _attempt(pod: Version) -> tuple[str, str, str]:
    label = pod.labels.get
    return label(LABEL_JOB_UID, ""), label(LABEL_ATTEMPT, ""), label(LABEL_JOBSET_UID, "")


def _runs(pod: Version, nodes: dict[str, Version], machine: dict[str, str]) -> bool:
    """Whether a trainer may be running: its phase says so and its machine is neither gone nor out of service."""
    if pod.status.get("phase") != "Running" or pod.owned_by("Job") is None:
        return False
    if pod.uid not in machine:
        return True
    node = nodes.get(pod.raw["spec"]["nodeName"])
    if node is None or node.uid != machine[pod.uid]:
        return False
    return all(taint["key"] != OUT_OF_SERVICE for taint in node.raw["spec"].get("taints") or ())


def _at(data: Raw, path: str) -> Any:
    for key in path.split("."):
        data = (data or {}).get(key)  # type: ignore[assignment]
    return data


def _conditions(it: Version) -> list[Raw]:
    return list(it.status.get("conditions") or ())


def _environment(jobset: Raw) -> dict[str, str]:
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    return {env["name"]: env["value"] for env in pod["containers"][0].get("env") or () if "value" in env}


def _charges(job: Version) -> Iterator[str]:
    records = job.status.get("attempts") or []
    for record in records:
        verdict, budget = record["verdict"], record.get("chargedTo")
        if budget is not None and verdict not in CHARGES.get(budget, ()):
            yield f"{job.name}: attempt {record['number']}, {verdict}, is charged to {budget}"
    if len(records) >= KEPT_RECORDS:
        return
    paid = [record.get("chargedTo") for record in records]
    counters = job.status.get("counters") or {}
    if counters.get("preemptions", 0) != paid.count("preemptions"):
        yield f"{job.name}: {counters.get('preemptions', 0)} preemptions are counted, {paid} were charged"
    if counters.get("failures", 0) > paid.count("failures"):
        yield f"{job.name}: {counters['failures']} failures are counted, {paid} were charged"


def _failed(pod: Version) -> bool:
    """Whether this state of a pod is a sign that its own container failed."""
    for container in pod.status.get("containerStatuses") or ():
        state = container.get("state") or {}
        if "waiting" in state and state["waiting"].get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return True
        if "terminated" in state and state["terminated"].get("exitCode") not in NO_FAILURE:
            return True
    return False


def _ends(history: History) -> dict[str, int]:
    """Job name -> the revision at which it was over or gone; beyond all revisions if it never was."""
    ends: dict[str, int] = {}
    for it in history.of(JOB):
        gone = it.change == "DELETED" or "deletionTimestamp" in it.raw["metadata"]
        over = gone or it.status.get("phase") in ("Completed", "Failed")
        ends[it.name] = min(it.revision, ends.get(it.name, it.revision)) if over else 1 << 62
    return ends


@dataclass
class Looked:
    """What the passes over one job have looked at so far."""

    read: int = 0  # everything up to this revision, by lists
    heard: int = 0  # the same by watches, of objects that were gone when a pass came
    seen: dict[str, int] = field(default_factory=dict)  # uid -> revision

    def add(self, look: Look | Seen) -> None:
        if isinstance(look, Look):
            self.read = max(self.read, look.revision)
            return
        self.heard = max(self.heard, look.heard)
        for uid in self.seen.keys() | look.versions.keys():
            self.seen[uid] = max(self.seen.get(uid, 0), look.versions.get(uid, look.heard))

    def at(self, it: Version) -> bool:
        return max(self.read, self.seen.get(it.uid, self.heard)) >= it.revision


def _overlooked(changes: list[Version], looks: dict[str, Looked], until: int, when: str) -> Iterator[str]:
    for it in changes:
        if it.revision <= until and not looks[it.job].at(it):
            yield f"{it.kind} {it.name} at revision {it.revision} was not looked at by {when}"
            return
