"""Why an attempt ended: from what Kubernetes, GKE and the trainer leave behind to one verdict with its evidence.

Reading this file should teach what happens to a TPU pod on GKE:

* **Spot preemption.** The machine gets an ACPI notice; kubelet turns Ready to False with "node is shutting down" and
  ends ordinary pods within 15 s. Only when all containers have ended does the pod become Failed with reason
  Terminated and the condition DisruptionTarget (TerminationByKubelet), so the *node* tells first. A multi-host pool
  goes as a whole.
* **Host error.** No notice. The lease stops, Ready becomes Unknown, the Node object is deleted; the pods on it say
  nothing more. What is seen first is usually a survivor: its collective fails and it leaves with 69.
* **Eviction and deletion.** Somebody asks for the pod's end: DisruptionTarget names who, a bare deletionTimestamp
  does not.
* **An end of its own.** The exit code says which (see `ratchet_api.protocol.Exit`). It is looked at last, because a
  pod on a dying machine leaves with any code: exit code first would charge preemptions to the application.

So the strongest evidence on any pod or node wins, whenever it is seen. What a verdict costs is `budget`'s; what is done
about it is `attempts`' and `gang`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ratchet_api.protocol import Exit as Code
from ratchet_api.status import AttemptStatus
from ratchet_operator.decide import stamps
from ratchet_operator.decide.views import Exit, Node, Pod
from ratchet_operator.decide.world import World
from ratchet_operator.plan import Raw

STRENGTH = (
    "Completed",
    "Preempted",
    "Maintenance",
    "NodeLost",
    "AdmissionRejected",
    "Evicted",
    "QueueEvicted",
    "Deleted",
    "ConfigurationInvalid",
    "DeterministicFailure",
    "CheckpointUnreadable",
    "StorageUnavailable",
    "StartFailed",
    "OutOfMemory",
    "Hung",
    "ApplicationFailed",
    "Fenced",
    "Drained",
    "PeerLost",
    "Unschedulable",
)
"""Strongest first."""

ANNOUNCED = {
    "Preempted": "graceful",
    "Evicted": "graceful",
    "Deleted": "graceful",
    "NodeLost": "abrupt",
    "AdmissionRejected": "abrupt",
    "PeerLost": "abrupt",
}
"""Whether the pods had notice; an end of its own had `none`."""

EXITS: dict[int, str] = {
    Code.CONFIGURATION_INVALID: "ConfigurationInvalid",
    Code.DETERMINISTIC_FAILURE: "DeterministicFailure",
    Code.PEER_LOST: "PeerLost",
    Code.HUNG: "Hung",
    Code.FENCED: "Fenced",
    Code.STORAGE_UNAVAILABLE: "StorageUnavailable",
    Code.DRAINED: "Drained",
    Code.CHECKPOINT_UNREADABLE: "CheckpointUnreadable",
    126: "StartFailed",  # the shell's: found but not executable
    127: "StartFailed",  # the shell's: no such command
    143: "Drained",  # SIGTERM before the trainer had a handler: nothing had been done yet
}
"""Exit code -> verdict; every other code is ApplicationFailed."""

NOTICE_SECONDS = 15.0
"""What ordinary pods get when a GKE spot machine is taken."""
OWN_GRACE_SECONDS = 30.0
"""terminationGracePeriodSeconds of trainer pods: what a deletion gives."""
OVERDUE_SECONDS = 5.0
"""How long after its grace a pod must still be there, before its unreachable node is called lost."""
HUNG_FACTOR = 1.5
"""Of the deadline that the trainer's own watchdog keeps."""
START_PATIENCE_SECONDS = 120.0
"""How long a container may fail to start for a reason that may pass."""

NEVER_STARTS = ("InvalidImageName", "ErrImageNeverPull")
MAY_START = (
    "ErrImagePull",
    "ImagePullBackOff",
    "RegistryUnavailable",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)


@dataclass(frozen=True)
class Sign:
    """One sign that an attempt is ending."""

    verdict: str
    evidence: str
    window: float | None
    """Seconds in which all members can still commit one common last step; None: a member is lost, it is too late."""
    stamp: str | None = None
    """When it happened by its own account."""


def strongest(signs: list[Sign]) -> Sign:
    """The sign that gives the verdict."""
    return min(signs, key=lambda sign: STRENGTH.index(sign.verdict))


def stronger(verdict: str, than: str) -> bool:
    return STRENGTH.index(verdict) < STRENGTH.index(than)


def signs(world: World, attempt: AttemptStatus, *, finishing: bool) -> list[Sign]:
    """Everything that says that this attempt is ending or has ended; empty while all is well.

    `finishing`: the trainer has been told to finish, so exit code 0 is what is wanted.
    """
    pods = world.own_pods(attempt.number)
    by_us = attempt.ended_time is not None
    done = next((p for p in pods if p.is_leader and p.exit is not None and p.exit.code == Code.DONE), None)
    if finishing and done is not None:
        return [Sign("Completed", f"pod {done.name} exited with 0 after the last stage", OWN_GRACE_SECONDS)]
    found = [sign for pod in pods for sign in _disruptions(pod, world)]
    own = [sign for pod in pods for sign in _own_ends(pod, world, attempt, finishing=finishing, by_us=by_us)]
    found += own
    caused = any(sign.verdict not in ("Drained", "PeerLost", "Fenced") for sign in own)
    if not by_us and not caused:  # else the deletions are ours, or Kubernetes' answer to a member's own end
        found += _deletions(world, attempt, pods)
    if not found and not by_us:
        found += _silence(world, attempt, pods)
    return found


# --- what the cluster did to a pod ----------------------------------------------------------------------------------


def _going_away(pod: Pod, node: Node) -> str | None:
    announced = node.termination
    return f"node {node.name} of pod {pod.name} is going away ({announced[0]})" if announced else None


def _shut_down(pod: Pod, node: Node) -> str | None:
    reason = pod.status.get("reason")
    if reason in ("Terminated", "NodeShutdown", "Shutdown"):
        return f"pod {pod.name} was ended by the shutdown of node {node.name} (reason {reason})"
    if _disrupted(pod, "TerminationByKubelet") and reason != "Evicted":
        return f"pod {pod.name} was ended by the kubelet of node {node.name} (DisruptionTarget TerminationByKubelet)"
    return None


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


DISRUPTIONS: tuple[tuple[str, Callable[[Pod, Node], str | None]], ...] = (
    ("Preempted", _going_away),
    ("Preempted", _shut_down),
    ("NodeLost", _node_gone),
    ("NodeLost", _collected),
    ("NodeLost", _ended_on_dead_node),
    ("AdmissionRejected", _not_admitted),
    ("Evicted", _evicted),
)
"""What is asked of every pod and its node, strongest first; the answer is the evidence in words."""


def _disruptions(pod: Pod, world: World) -> Iterator[Sign]:
    node = world.node_of(pod)
    if node is None:
        return
    for verdict, question in DISRUPTIONS:
        if evidence := question(pod, node):
            announced = node.termination
            stamp = announced[1] if announced else (pod.disruption or {}).get("lastTransitionTime")
            yield Sign(verdict, evidence + _leaving(pod), _window(pod, node, world), stamp)
            return
    overdue = pod.deletion is not None and world.passed(stamps.after(pod.deletion, OVERDUE_SECONDS))
    if node.ready == "Unknown" and overdue and not pod.ended:
        yield Sign("NodeLost", f"node {node.name} (Ready=Unknown) does not end its pod {pod.name}", None, pod.deletion)


def _disrupted(pod: Pod, reason: str) -> bool:
    return pod.disruption is not None and pod.disruption.get("reason") == reason


def _window(pod: Pod, node: Node, world: World) -> float | None:
    if node.absent or (pod.ended and not _committed(pod.exit)):
        return None
    if pod.deletion is not None and node.termination is None:
        return stamps.between(world.now, pod.deletion)
    return NOTICE_SECONDS


def _committed(exit: Exit | None) -> bool:
    return exit is not None and exit.code in (Code.DONE, Code.DRAINED)


def _leaving(pod: Pod) -> str:
    return f"; it left with exit code {pod.exit.code}" if pod.exit is not None else ""


# --- what a pod did by itself ---------------------------------------------------------------------------------------


def _own_ends(pod: Pod, world: World, attempt: AttemptStatus, *, finishing: bool, by_us: bool) -> Iterator[Sign]:
    if pod.phase == "Failed" and pod.status.get("reason") == "Evicted":
        what = pod.status.get("message", "")
        verdict = "OutOfMemory" if "memory" in what else "ApplicationFailed"
        yield Sign(verdict, f"the kubelet of node {pod.node} evicted pod {pod.name}: {what}", None)
        return
    if pod.exit is None:
        yield from _no_start(pod, world, attempt)
        return
    code, message = pod.exit.code, pod.exit.message
    words = str(message.get("message") or "").strip().splitlines()  # the first line says it, the rest is a traceback
    said = f": {words[0]}" if words else ""
    where = f" on node {pod.node}" if pod.node else ""
    evidence = f"pod {pod.name}{where} left with exit code {code}{said}"
    window = NOTICE_SECONDS if _committed(pod.exit) else None
    if code == Code.DONE:
        if not finishing:
            yield Sign("ApplicationFailed", f"{evidence}, before it was told to finish", None, pod.exit.finished)
    elif code in (137, 143) and pod.deletion is not None:
        return  # killed by whoever deleted it
    elif pod.exit.reason == "OOMKilled":
        yield Sign("OutOfMemory", f"{evidence} (OOMKilled)", None, pod.exit.finished)
    elif pod.exit.reason in ("StartError", "ContainerCannotRun"):
        yield Sign("StartFailed", f"{evidence} ({pod.exit.reason}: {pod.exit.text})", None, pod.exit.finished)
    elif code == 134 and not pod.exit.text:
        # JAX's coordination service aborts the process when the coordinator or a peer is gone.
        yield Sign("PeerLost", f"{evidence} (signal 6 without a termination message)", None, pod.exit.finished)
    else:
        yield Sign(EXITS.get(code, "ApplicationFailed"), evidence, window, pod.exit.finished)


def _no_start(pod: Pod, world: World, attempt: AttemptStatus) -> Iterator[Sign]:
    reason = pod.waiting.get("reason") or ""
    evidence = f"pod {pod.name} cannot start its container ({reason}: {pod.waiting.get('message', '')})"
    if reason in NEVER_STARTS:
        yield Sign("StartFailed", evidence, None)
    elif reason in MAY_START:
        if attempt.created_time is not None and world.passed(
            stamps.after(attempt.created_time, START_PATIENCE_SECONDS)
        ):
            yield Sign("StartFailed", evidence, None)
    elif pod.phase == "Failed" and pod.disruption is None:
        why = f"{pod.status.get('reason', 'no reason given')}: {pod.status.get('message', '')}"
        yield Sign("ApplicationFailed", f"pod {pod.name} failed without an exit code ({why})", None)


# --- what somebody did to the attempt -------------------------------------------------------------------------------


def _deletions(world: World, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Iterator[Sign]:
    jobset = world.own_jobset(attempt.number)
    if jobset is None or (attempt.job_set_uid is not None and jobset.uid != attempt.job_set_uid):
        yield Sign("Deleted", f"JobSet {attempt.job_set} was deleted", OWN_GRACE_SECONDS)
    elif jobset.deleting:
        yield Sign("Deleted", f"JobSet {attempt.job_set} is being deleted", OWN_GRACE_SECONDS)
    for pod in pods:
        node = world.node_of(pod)
        if pod.deletion is None or pod.disruption is not None or (node is not None and node.absent):
            continue
        window = None if pod.ended and not _committed(pod.exit) else stamps.between(world.now, pod.deletion)
        yield Sign("Deleted", f"pod {pod.name} was deleted{_leaving(pod)}", window, pod.deletion_asked)


def _hang(answer: Raw, world: World) -> Sign | None:
    """The trainer's own watchdog ends a hang at the deadline; where that hangs, too, it is ended from outside."""
    age, phase = answer.get("lastSafePointAgeSeconds"), answer.get("phase")
    if age is None or world.spec is None:
        return None
    if age < HUNG_FACTOR * world.spec.restart.patience(phase):
        return None
    return Sign("Hung", f"the trainer has shown no sign of life for {age:.0f} s in phase {phase}", None)


def _silence(world: World, attempt: AttemptStatus, pods: tuple[Pod, ...]) -> Iterator[Sign]:
    """Ends that no pod and no node tells of."""
    answer = world.progress_of(attempt.number, attempt.job_set_uid)
    jobset = world.own_jobset(attempt.number)
    if answer is not None and answer.get("draining"):
        yield Sign("Drained", "the trainer reports that it is draining", NOTICE_SECONDS)
    elif answer is not None and (hang := _hang(answer, world)) is not None:
        yield hang
    elif attempt.running_time is not None and len(pods) < attempt.pods_total:
        yield Sign("Deleted", f"{attempt.pods_total - len(pods)} of {attempt.pods_total} pods have vanished", None)
    elif jobset is not None and jobset.failed is not None:
        yield Sign("ApplicationFailed", f"JobSet {jobset.name} failed: {jobset.failed.get('message', '')}", None)
