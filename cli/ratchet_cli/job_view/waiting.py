"""Why a job waits, or what speaks against it: conditions in the order in which a reader should see them.

Decides which conditions are worth a line, how urgent each is, and which command helps. The words are the operator's;
an operator that says more than this program knows is quoted all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from ratchet_cli.job_view.document import PodView, Wait
from ratchet_cli.job_view.read_job import NEW, conditions, phase
from ratchet_cli.job_view.words import count, seconds_between, span
from ratchet_cli.kube.parts import moment, text

Object = dict[str, Any]

BAD_WHEN_TRUE = ("Failed", "AwaitingApproval", "Suspended")
BAD_WHEN_FALSE = ("Accepted", "Placed", "Running", "Progressing", "Learning")
FOLLOWS = ("NotPlaced", "NotRunning", "NotAccepted", "Finished", "Suspended", "BudgetSpent", "AwaitingApproval")
"""Reasons of Placed, Running and Progressing that only repeat what another condition says."""

ERRORS = ("Failed", "AwaitingApproval", "Suspended", "Accepted")
"""Conditions without whose change the job does not go on."""
STALE_SECONDS = 300.0
UNSEEN_SECONDS = 15.0

ADVICE = {
    # reason -> what to do, with {job}, {namespace} and {program} filled in
    "Invalid": "correct the spec as the message says: kubectl edit rlj {job} -n {namespace}",
    "WaitingForQuota": "kubectl get workloads -n {namespace} shows the queue's view",
    "WaitingForCapacity": "{program} doctor says which node pools fit; more placements give it more places to try",
    "WaitingForOldPods": "wait: pods on a lost machine are given up on after some time",
    "NameConflict": "delete or rename the object that the message names",
    "BackingOff": "{program} logs {job} -n {namespace} shows why the attempts before made no step",
    "Stalled": "{program} logs {job} -n {namespace} shows why the attempts made no step",
    "Suspended": "{program} resume {job} -n {namespace}",
    "BudgetSpent": "raise spec.budgets of the stage: kubectl edit rlj {job} -n {namespace}",
    "NoInformativeGroups": "{program} samples {job} -n {namespace} --wrong shows what the verifier did not take",
    "AllSolved": "harder data, or the next stage",
    "ResponsesTruncated": "raise maxResponseTokens, or ask for shorter answers",
    "EntropyCollapsed": "a lower learning rate, a wider clipHigh, or objective.entropy",
    "SamplerTrainerMismatch": "objective.importanceCap, or model.dtype: float32",
    "RewardFalling": "a lower learning rate, or a drift term (kl)",
    "FailureLimitExceeded": "{program} logs {job} -n {namespace} shows the last failure",
    "DeterministicFailure": "{program} logs {job} -n {namespace} shows the failure; it would come again",
    "ConfigurationInvalid": "correct what the message names and create the job again",
}


def waits(job: Object, pods: Iterable[PodView], now: datetime, program: str) -> tuple[Wait, ...]:
    """What keeps the job from its next step, most urgent first."""
    name, namespace = text(job, "metadata", "name") or "?", text(job, "metadata", "namespace") or "?"
    words = {"job": name, "namespace": namespace, "program": program}
    found = [*_of_conditions(job, words, now), *_of_pods(pods)]
    if phase(job) == NEW and not found:
        age = seconds_between(moment(job, "metadata", "creationTimestamp"), now)
        late = age is not None and age > UNSEEN_SECONDS
        message = "no operator has looked at the job yet" + (f", {span(age)} after it was created" if late else "")
        advice = f"{program} doctor says whether the operator runs and watches namespace {namespace}"
        found.append(Wait("error" if late else "wait", "Accepted", NEW, message, advice if late else None, age))
    found += _silence(job, now, words)
    order = {"error": 0, "wait": 1, "note": 2}
    return tuple(sorted(found, key=lambda wait: order[wait.level]))


def _of_conditions(job: Object, words: dict[str, str], now: datetime) -> Iterator[Wait]:
    known = conditions(job)
    finished = phase(job) in ("Completed", "Failed")
    for kind in (*BAD_WHEN_TRUE, *BAD_WHEN_FALSE):
        condition = known.get(kind, {})
        reason, message = text(condition, "reason") or "", text(condition, "message") or ""
        if text(condition, "status") != ("True" if kind in BAD_WHEN_TRUE else "False"):
            continue
        if kind in ("Placed", "Running", "Progressing") and (reason in FOLLOWS or finished):
            continue
        if kind == "Running" and text(known.get("Placed"), "status") == "False":
            continue  # it is not placed, which is said
        if kind == "Progressing" and reason == "Recovering" and text(known.get("Running"), "status") == "False":
            message = message or "an attempt was disturbed; the next one is on its way"
        level = "error" if kind in ERRORS else "note" if kind == "Learning" else "wait"
        advice = ADVICE.get(reason)
        if kind == "AwaitingApproval":
            advice = "{program} approve {job} -n {namespace}"
        yield Wait(
            level,
            kind,
            reason or "?",
            message,
            advice.format(**words) if advice else None,
            seconds_between(moment(condition, "lastTransitionTime"), now),
        )


def _of_pods(pods: Iterable[PodView]) -> Iterator[Wait]:
    """What pods say themselves, each text once."""
    said: dict[str, list[str]] = {}
    for pod in pods:
        if pod.problem is not None and pod.phase in ("Pending", "Running"):
            said.setdefault(pod.problem, []).append(pod.name)
    for problem, names in said.items():
        reason, colon, rest = problem.partition(": ")
        about = names[0] if len(names) == 1 else count(len(names), "pod")
        yield Wait("wait", "Pods", reason if colon else "NotRunning", f"{about}: {rest or problem}")


def _silence(job: Object, now: datetime, words: dict[str, str]) -> Iterator[Wait]:
    silent = seconds_between(moment(job, "status", "progress", "updatedAt"), now)
    if phase(job) == "Running" and silent is not None and silent > STALE_SECONDS:
        message = f"nothing new from the trainer for {span(silent)}; a long step, or it hangs"
        advice = "{program} logs {job} -n {namespace}".format(**words)
        yield Wait("note", "Progressing", "Silent", message, advice, silent)
