"""Signs that an attempt is ending: what Kubernetes, GKE and the trainer leave behind, read as verdicts with evidence.

Reading this file should teach what happens to a TPU pod on GKE:

* **Spot preemption.** The machine gets an ACPI notice; kubelet turns Ready to False with "node is shutting down" and
  ends ordinary pods within 15 s. Only when all containers have ended does the pod become Failed with reason
  Terminated and the condition DisruptionTarget (TerminationByKubelet), so the *node* tells first. A multi-host pool
  goes as a whole. Capacity on demand is taken in the same way, without anything that speaks of maintenance, when GKE
  makes room for larger slices: a preemption, too.
* **Maintenance.** Announced days before by a date on the node, which is no evidence. When it begins the node says so
  (label active-node-maintenance, taint maintenance-window-started), and pods get their own
  terminationGracePeriodSeconds, an hour at most. A machine whose announced time has come and that then goes goes for
  that reason, whatever it says.
* **Host error.** No notice. The lease stops, Ready becomes Unknown, the Node object is deleted; the pods on it say
  nothing more. What is seen first is usually a survivor: its collective fails and it leaves with 69. A machine that is
  started anew under its name keeps its Node, which is soon Ready again: its kubelet does not find the containers any
  more and makes up how they ended (137 ContainerStatusUnknown, 255 Unknown).
* **Eviction and deletion.** Somebody asks for the pod's end: DisruptionTarget names who, a bare deletionTimestamp
  does not.
* **A queue wants its quota back.** Kueue suspends the JobSet, the Job controller deletes the pods. Only the JobSet
  says so; the pods look as if somebody had deleted them.
* **An end of its own.** The exit code says which (see `ratchet_api.protocol.Exit`). It is looked at last, because a
  pod on a dying machine leaves with any code: exit code first would charge preemptions to the application.

So the strongest evidence on any pod or node wins, whenever it is seen. Verdicts are given here and nowhere else; what
one costs is in `verdict` and `failure_budget`, what is done about it in `attempts` and `gang`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ratchet_api.protocol import Exit as Code
from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import hang, queue_wait, stamps
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_jobset import JobSet
from ratchet_operator.decide.observed_node import Node
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.own_end import ends_of_its_own
from ratchet_operator.decide.sign import MAINTENANCE_SECONDS, NOTICE_SECONDS, WHOLE_GRACE, Sign
from ratchet_operator.decide.verdict import Verdict

OVERDUE_SECONDS = 5.0
"""How long after its grace a pod must still be there, before its unreachable node is called lost."""
CAUSED_BY_OTHERS = (Verdict.DRAINED, Verdict.PEER_LOST, Verdict.FENCED)
"""Ends that a pod came to by itself, but because of something elsewhere."""
SUSPENDED = "spec.suspend is true"


def signs_of_an_end(observed: ObservedJob, attempt: AttemptStatus, *, finishing: bool) -> list[Sign]:
    """Everything that says that this attempt is ending or has ended; empty while all is well.

    `finishing`: the trainer has been told to finish, so exit code 0 is what is wanted.
    """
    if attempt.ended_time is not None:
        return late_signs(observed, attempt.number, finishing=finishing)
    pods = observed.own_pods(attempt.number)
    if (done := _completed(pods, finishing)) is not None:
        return [done]
    found = [sign for pod in pods for sign in disruptions(pod, observed)]
    since = queue_wait.looks_for_nodes_since(attempt)
    own = [sign for pod in pods for sign in ends_of_its_own(pod, observed, since, finishing=finishing)]
    found += own
    if (jobset := queue_wait.evicted(observed, attempt)) is not None:
        found.append(_queue_evicted(jobset))
    if all(sign.verdict in CAUSED_BY_OTHERS for sign in own):  # else the deletions are Kubernetes' answer to it
        found += _deletions(observed, attempt, pods)
    return found or [*_silence(observed, attempt, pods)]


def late_signs(
    observed: ObservedJob, number: int, *, finishing: bool, present: AttemptStatus | None = None
) -> list[Sign]:
    """What can still be learned of an attempt whose end is known: its pods were deleted by us, so deletions say
    nothing. A machine that a later attempt, `present` at last, has run on was there all the time: what becomes of it
    then is evidence for that one alone."""
    pods = observed.own_pods(number)
    if (done := _completed(pods, finishing)) is not None:
        return [done]
    there = [pod for pod in pods if not _outlived(pod, number, observed, present)]
    found = [sign for pod in there for sign in disruptions(pod, observed)]
    return found + [sign for pod in pods for sign in ends_of_its_own(pod, observed, None, finishing=finishing)]


def _outlived(pod: Pod, number: int, observed: ObservedJob, present: AttemptStatus | None) -> bool:
    """Whether the pod's machine was well after the attempt's end, because a pod of a later attempt ran on it."""
    if present is None or present.number <= number:
        return False
    later = [p for p in observed.pods if p.job_uid == observed.uid and p.attempt is not None and p.attempt > number]
    if any(p.node == pod.node and p.has_run for p in later):
        return True
    # Where the pods of the later attempt are gone, too, nobody knows any more whose machine it was.
    ended = any(r.number > number and r.verdict != Verdict.UNSCHEDULABLE for r in observed.status.attempts)
    return not later and (ended or (present.running_time is not None and present.ended_time is not None))


def suspended() -> Sign:
    """The user's own wish ends the attempt."""
    return Sign(Verdict.DRAINED, SUSPENDED, WHOLE_GRACE)


def budget_spent(words: str) -> Sign:
    """The stage has taken the chip time that it may take."""
    return Sign(Verdict.DRAINED, words, WHOLE_GRACE)


def workers_failed(words: str) -> Sign:
    """No worker of the fleet can sample, so the trainer would wait for ever."""
    return Sign(Verdict.WORKERS_FAILED, words, WHOLE_GRACE)


def rewound(words: str) -> Sign:
    """A stage is to begin again."""
    return Sign(Verdict.DRAINED, words, WHOLE_GRACE)


def jobset_vanished(name: str) -> Sign:
    """The JobSet of an authorized attempt was deleted before it was seen."""
    return Sign(Verdict.DELETED, f"JobSet {name} was deleted while its pods live", None)


def no_room(evidence: str) -> Sign:
    """The placement has no nodes for the whole gang; see `placement`."""
    return Sign(Verdict.UNSCHEDULABLE, evidence, None)


def no_room_instead(evidence: str, of: Sign) -> Sign:
    """A lost peer that was never there, because it had no node."""
    return Sign(Verdict.UNSCHEDULABLE, f"{evidence} when {of.evidence}", of.window, of.stamp)


def _completed(pods: tuple[Pod, ...], finishing: bool) -> Sign | None:
    done = next((p for p in pods if p.is_leader and p.exit is not None and p.exit.code == Code.DONE), None)
    if not finishing or done is None:
        return None
    return Sign(Verdict.COMPLETED, f"pod {done.name} exited with 0 after the last stage", WHOLE_GRACE)


# --- what the cluster did to a pod ----------------------------------------------------------------------------------


def _going_away(pod: Pod, node: Node) -> str | None:
    announced = node.termination
    if announced is None:
        return None
    return f"node {node.name} of pod {pod.name} is going away ({announced[0]})"


def _shut_down(pod: Pod, node: Node) -> str | None:
    reason = pod.status.get("reason")
    if reason in ("Terminated", "NodeShutdown", "Shutdown"):
        return f"pod {pod.name} was ended by the shutdown of node {node.name} (reason {reason})"
    if _disrupted(pod, "TerminationByKubelet") and reason != "Evicted":
        return f"pod {pod.name} was ended by the kubelet of node {node.name} (DisruptionTarget TerminationByKubelet)"
    return None


def _maintained(pod: Pod, node: Node, now: str) -> str | None:
    if (begun := node.maintenance) is not None:
        return f"maintenance of node {node.name} of pod {pod.name} has begun ({begun[0]})"
    coming = node.announced
    if coming is None or stamps.seconds(now) < stamps.seconds(coming.at):
        return None
    went = _going_away(pod, node) or _shut_down(pod, node) or _restarted(pod, node) or _node_gone(pod, node)
    return f"{went}, as announced for {coming.at} ({coming.words})" if went else None


def _restarted(pod: Pod, node: Node) -> str | None:
    # Who asked for the pod's end explains it better: a kubelet also says so of containers that it has removed itself.
    if pod.exit is None or pod.deletion is not None or (pod.exit.code, pod.exit.reason) not in LOST_CONTAINERS:
        return None
    return (
        f"the machine of node {node.name} was started anew, the container of pod {pod.name} is lost ({pod.exit.reason})"
    )


def _node_gone(pod: Pod, node: Node) -> str | None:
    return f"node {node.name} of pod {pod.name} no longer exists" if node.absent else None


def _collected(pod: Pod, node: Node) -> str | None:
    if _disrupted(pod, "DeletionByPodGC"):
        return f"pod {pod.name} was collected after its node {node.name} (DisruptionTarget DeletionByPodGC)"
    return None


def _ended_on_dead_node(pod: Pod, node: Node) -> str | None:
    # A NotReady blip alone says nothing: it counts together with this pod's own end.
    if not node.absent and node.ready != "True" and pod.ended and pod.deletion is None:
        return f"pod {pod.name} ended while node {node.name} was not ready (Ready={node.ready})"
    return None


def _not_admitted(pod: Pod, node: Node) -> str | None:
    reason = pod.status.get("reason") or ""
    if pod.ended and (reason in ("UnexpectedAdmissionError", "NodeAffinity") or reason.startswith("OutOf")):
        return f"node {node.name} did not admit pod {pod.name} ({reason}: {pod.status.get('message', '')})"
    return None


def _evicted(pod: Pod, node: Node) -> str | None:
    for reason in ("EvictionByEvictionAPI", "DeletionByTaintManager", "PreemptionByScheduler"):
        if _disrupted(pod, reason):
            return f"pod {pod.name} was evicted from node {node.name} (DisruptionTarget {reason})"
    return None


LOST_CONTAINERS = ((137, "ContainerStatusUnknown"), (255, "Unknown"))
"""What a kubelet, or containerd, says of a container that is not there any more when it looks again."""

DISRUPTIONS: tuple[tuple[Verdict, Callable[[Pod, Node], str | None]], ...] = (
    (Verdict.PREEMPTED, _going_away),
    (Verdict.PREEMPTED, _shut_down),
    (Verdict.NODE_LOST, _node_gone),
    (Verdict.NODE_LOST, _collected),
    (Verdict.NODE_LOST, _restarted),
    (Verdict.NODE_LOST, _ended_on_dead_node),
    (Verdict.ADMISSION_REJECTED, _not_admitted),
    (Verdict.EVICTED, _evicted),
)
"""What is asked of every pod and its node that is not in maintenance, strongest first; the answer is the evidence in
words. Maintenance is asked for before: what else is seen of a node in maintenance follows from it."""


def disruptions(pod: Pod, observed: ObservedJob) -> Iterator[Sign]:
    """What the cluster did to a pod, a trainer's or a worker's; no sign while it did nothing."""
    node = observed.node_of(pod)
    if node is None:
        return
    announced = node.termination or node.maintenance
    stamp = announced[1] if announced else (pod.disruption or {}).get("lastTransitionTime")
    if evidence := _maintained(pod, node, observed.now):
        window = _window(pod, node, observed, MAINTENANCE_SECONDS)
        yield Sign(Verdict.MAINTENANCE, evidence + _leaving(pod), window, stamp)
        return
    for verdict, question in DISRUPTIONS:
        if evidence := question(pod, node):
            window = _window(pod, node, observed, node.notice_seconds)
            why = _unexpected(node) if verdict == Verdict.PREEMPTED else ""
            yield Sign(verdict, evidence + why + _leaving(pod), window, stamp)
            return
    overdue = pod.deletion is not None and observed.passed(stamps.after(pod.deletion, OVERDUE_SECONDS))
    if node.ready == "Unknown" and overdue and not pod.ended:
        yield Sign(
            Verdict.NODE_LOST, f"node {node.name} (Ready=Unknown) does not end its pod {pod.name}", None, pod.deletion
        )


def _unexpected(node: Node) -> str:
    """Why capacity can go that is not sold as one that may be taken away."""
    if not node.lasting:
        return ""
    return "; it is neither spot nor flex-start and nothing speaks of maintenance: GKE made room for a larger slice"


def _disrupted(pod: Pod, reason: str) -> bool:
    return pod.disruption is not None and pod.disruption.get("reason") == reason


def _window(pod: Pod, node: Node, observed: ObservedJob, notice: float) -> float | None:
    if node.absent or (pod.ended and not pod.committed):
        return None
    if pod.deletion is not None and (node.termination is None or node.maintenance is not None):
        return stamps.between(observed.now, pod.deletion)
    return notice


def _leaving(pod: Pod) -> str:
    return f"; it left with exit code {pod.exit.code}" if pod.exit is not None else ""


# --- what somebody did to the attempt -------------------------------------------------------------------------------


def _deletions(observed: ObservedJob, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Iterator[Sign]:
    jobset = observed.own_jobset(attempt.number)
    if jobset is None or (attempt.job_set_uid is not None and jobset.uid != attempt.job_set_uid):
        yield Sign(Verdict.DELETED, f"JobSet {attempt.job_set} was deleted", WHOLE_GRACE)
    elif jobset.deleting:
        yield Sign(Verdict.DELETED, f"JobSet {attempt.job_set} is being deleted", WHOLE_GRACE)
    for pod in pods:
        node = observed.node_of(pod)
        if pod.deletion is None or pod.disruption is not None or (node is not None and node.absent):
            continue
        window = None if pod.ended and not pod.committed else stamps.between(observed.now, pod.deletion)
        yield Sign(Verdict.DELETED, f"pod {pod.name} was deleted{_leaving(pod)}", window, pod.deletion_asked)


def _queue_evicted(jobset: JobSet) -> Sign:
    # The Job controller has deleted the pods for it, with their whole grace.
    by = f"its queue, {jobset.queue}," if jobset.queue is not None else "somebody who is not Ratchet"
    return Sign(Verdict.QUEUE_EVICTED, f"{by} suspended JobSet {jobset.name} after it had been started", WHOLE_GRACE)


def _silence(observed: ObservedJob, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Iterator[Sign]:
    """Ends that no pod and no node tells of."""
    report = observed.report_of(attempt)
    jobset = observed.own_jobset(attempt.number)
    if report is not None and report.said.draining:
        yield Sign(Verdict.DRAINED, "the trainer reports that it is draining", NOTICE_SECONDS)
    elif (hung := hang.sign(observed, attempt)) is not None:
        yield hung
    elif len(pods) < attempt.pods_total and (
        attempt.running_time is not None or (jobset is not None and jobset.failed is not None)
    ):  # what failed with the JobSet may have been a pod that was taken away: without it nothing speaks of a failure
        yield Sign(
            Verdict.DELETED, f"{attempt.pods_total - len(pods)} of {attempt.pods_total} pods have vanished", None
        )
    elif jobset is not None and jobset.failed is not None:
        yield Sign(Verdict.APPLICATION_FAILED, f"JobSet {jobset.name} failed: {jobset.failed.get('message', '')}", None)
