"""What a pod did by itself: its exit code, or that its container cannot start.

Looked at last, because a pod on a dying machine leaves with any code.
"""

from __future__ import annotations

from collections.abc import Iterator

from ratchet_api.protocol import Exit as Code
from ratchet_operator.decide import stamps
from ratchet_operator.decide.observed_job import ObservedJob
from ratchet_operator.decide.observed_pod import Pod
from ratchet_operator.decide.sign import NOTICE_SECONDS, Sign
from ratchet_operator.decide.verdict import Verdict

EXITS: dict[int, Verdict] = {
    Code.CONFIGURATION_INVALID: Verdict.CONFIGURATION_INVALID,
    Code.DETERMINISTIC_FAILURE: Verdict.DETERMINISTIC_FAILURE,
    Code.PEER_LOST: Verdict.PEER_LOST,
    Code.HUNG: Verdict.HUNG,
    Code.ACCELERATOR_UNAVAILABLE: Verdict.ACCELERATOR_UNAVAILABLE,
    Code.FENCED: Verdict.FENCED,
    Code.STORAGE_UNAVAILABLE: Verdict.STORAGE_UNAVAILABLE,
    Code.DRAINED: Verdict.DRAINED,
    Code.CHECKPOINT_UNREADABLE: Verdict.CHECKPOINT_UNREADABLE,
    126: Verdict.START_FAILED,  # the shell's: found but not executable
    127: Verdict.START_FAILED,  # the shell's: no such command
    143: Verdict.DRAINED,  # SIGTERM before the trainer had a handler: nothing had been done yet
}
"""Exit code -> verdict; every other code is ApplicationFailed."""

START_PATIENCE_SECONDS = 120.0
"""How long a container may fail to start for a reason that may pass."""

LAST_LINE = 500
"""Characters of a line that are shown as evidence."""

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


def ends_of_its_own(pod: Pod, observed: ObservedJob, created: str | None, *, finishing: bool) -> Iterator[Sign]:
    """The sign that this pod gives by its own end, if it gives one.

    `created`: when its JobSet was seen created; None once its attempt has ended, after which nothing starts any more.
    """
    if pod.phase == "Failed" and pod.status.get("reason") == "Evicted":
        what = pod.status.get("message", "")
        verdict = Verdict.OUT_OF_MEMORY if "memory" in what else Verdict.APPLICATION_FAILED
        yield Sign(verdict, f"the kubelet of node {pod.node} evicted pod {pod.name}: {what}", None)
        return
    if pod.exit is None:
        yield from _no_start(pod, observed, created)
        return
    code, message = pod.exit.code, pod.exit.message
    words = (message.message or "").strip().splitlines()  # the first line says it, the rest is a traceback
    if message.reason is None and message.message is None:  # it ended before it could say why: the end of its log does
        words = [line.strip() for line in pod.exit.text.splitlines() if line.strip()][-1:]
    said = f": {words[0][:LAST_LINE]}" if words else ""
    where = f" on node {pod.node}" if pod.node else ""
    evidence = f"pod {pod.name}{where} left with exit code {code}{said}"
    window = NOTICE_SECONDS if pod.committed else None
    if code == Code.DONE:
        if not finishing:
            yield Sign(Verdict.APPLICATION_FAILED, f"{evidence}, before it was told to finish", None, pod.exit.finished)
    elif code in (137, 143) and pod.deletion is not None:
        return  # killed by whoever deleted it
    elif pod.exit.reason == "OOMKilled":
        yield Sign(Verdict.OUT_OF_MEMORY, f"{evidence} (OOMKilled)", None, pod.exit.finished)
    elif pod.exit.reason in ("StartError", "ContainerCannotRun"):
        yield Sign(Verdict.START_FAILED, f"{evidence} ({pod.exit.reason}: {pod.exit.text})", None, pod.exit.finished)
    elif code == 134 and message.reason is None and message.message is None:
        # JAX's coordination service aborts the process when the coordinator or a peer is gone.
        yield Sign(Verdict.PEER_LOST, f"{evidence} (signal 6 without a termination message)", None, pod.exit.finished)
    elif code == Code.FENCED and message.owner is not None and message.owner.job_uid != observed.uid:
        yield Sign(Verdict.TAKEN_OVER, evidence, None, pod.exit.finished)  # each further attempt would be, too
    else:
        yield Sign(EXITS.get(code, Verdict.APPLICATION_FAILED), evidence, window, pod.exit.finished)


def _no_start(pod: Pod, observed: ObservedJob, created: str | None) -> Iterator[Sign]:
    reason = pod.waiting.get("reason") or ""
    evidence = f"pod {pod.name} cannot start its container ({reason}: {pod.waiting.get('message', '')})"
    if reason in NEVER_STARTS:
        yield Sign(Verdict.START_FAILED, evidence, None)
    elif reason in MAY_START:
        if created is not None and observed.passed(stamps.after(created, START_PATIENCE_SECONDS)):
            yield Sign(Verdict.START_FAILED, evidence, None)
    elif pod.phase == "Failed" and pod.disruption is None:
        why = f"{pod.status.get('reason', 'no reason given')}: {pod.status.get('message', '')}"
        yield Sign(Verdict.APPLICATION_FAILED, f"pod {pod.name} failed without an exit code ({why})", None)
