"""Manifests and objects that somebody made with a bad intention, or by mistake: refused, or reported and left alone."""

from __future__ import annotations

import copy

import yaml
from running_operator import JOB, until
from scripted_trainer import Pace

from ratchet_api.protocol import LABEL_ATTEMPT
from ratchet_cluster.api import ApiError


async def test_a_pod_or_jobset_that_wears_our_labels_is_reported_and_left_alone(world):
    await (await world.operator()).leads()
    world.kubelet.pace["sums"] = Pace(stop_at=5)
    await world.apply()
    await world.running(step=5)
    worn = (await world.items("pods"))[0]["metadata"]["labels"]
    # Without the Job's own: a pod with that is adopted by the Job controller, and then it is the Job's.
    labels = {key: text for key, text in worn.items() if key.startswith(("ratchet.dev/", "jobset.sigs.k8s.io/"))}
    for number in ("1", "7"):
        meta = {"name": f"forged-{number}", "labels": {**labels, LABEL_ATTEMPT: number}}
        container = {"name": "trainer", "image": "x"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
        nowhere = {"containers": [container], "nodeSelector": {"there-is": "none"}}
        await world.api.create(world.path("pods"), {**pod, "spec": nowhere})
        ended = {"exitCode": 64, "reason": "Error", "startedAt": None, "finishedAt": None}
        state = {**container, "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": ended}}
        failed = {"status": {"phase": "Failed", "containerStatuses": [state]}}
        await world.api.patch(world.path("pods", f"forged-{number}") + "/status", failed)
    jobset = copy.deepcopy(next(it for it in await world.items("jobsets")))
    jobset["metadata"] = {"name": "forged", "labels": {**jobset["metadata"]["labels"], LABEL_ATTEMPT: "1"}}
    jobset["spec"]["suspend"] = True
    jobset.pop("status")
    await world.api.create(world.path("jobsets"), jobset)
    expected = {"pod forged-1", "pod forged-7", "JobSet forged"}

    async def told():
        words = [message for reason, message in await world.events() if reason == "ForeignObject"]
        return {name for name in expected if any(f"{name} " in message for message in words)} == expected

    await until("each is reported", told)
    world.kubelet.pace["sums"].stop_at = None
    status = await world.completed()
    assert (status["attempt"]["number"], status["counters"].get("failures", 0)) == (1, 0)
    for plural, name in (("pods", "forged-1"), ("pods", "forged-7"), ("jobsets", "forged")):
        assert "deletionTimestamp" not in (await world.api.get(world.path(plural, name)))["metadata"]


def changed(path, value):
    """The manifest of the tests with one value replaced."""
    job = yaml.safe_load(JOB)
    *parents, last = path
    node = job
    for part in parents:
        node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
    node[last] = value
    return job


STAGE = {"sft": {"dataset": "sums"}, "advance": {"steps": 1}}
ENVIRONMENT = ("spec", "podTemplate", "env")
PLACEMENT = ("spec", "placements", 0)
HOSTILE = {
    # name -> path, value, words of the refusal: the API server's, or of the condition Accepted
    "no stages": (("spec", "stages"), [], "spec.stages"),
    "10,000 stages": (("spec", "stages"), [{**STAGE, "name": f"s{i}"} for i in range(10_000)], "spec.stages"),
    "no steps": (("spec", "stages", 0, "advance", "steps"), 0, "advance.steps"),
    "fewer than no steps": (("spec", "stages", 0, "advance", "steps"), -1, "advance.steps"),
    "a huge number": (("spec", "stages", 0, "advance", "steps"), 10**30, "steps"),
    "no slices": ((*PLACEMENT, "slices"), 0, "slices"),
    "a topology that does not fit the chips": ((*PLACEMENT, "topology"), "4x4x4", "spec.placements[0]"),
    "not a number": (("spec", "stages", 0, "sft", "learningRate"), "NaN", "learningRate"),
    "a name of 64 letters": (("metadata", "name"), "x" * 64, "metadata.name"),
    "a name in another alphabet": (("metadata", "name"), "jäger", "metadata.name"),
    "a stage in another alphabet": (("spec", "stages", 0, "name"), "подъём", "spec.stages[0].name"),
    "a megabyte of environment": (ENVIRONMENT, [{"name": "A", "value": "x" * (1 << 20)}], "spec"),
    "a field that nobody knows": (("spec", "unheardOf"), 1, "unheardOf"),
    "a foreign service account": (("spec", "podTemplate", "serviceAccountName"), "admin", "serviceAccountName"),
    "the host's network": (("spec", "podTemplate", "hostNetwork"), True, "hostNetwork"),
}


async def test_hostile_manifests_are_refused_with_their_path_and_stop_nobody(world):
    operator = await (await world.operator()).leads()
    admitted = {}
    for number, (name, (path, value, words)) in enumerate(HOSTILE.items()):
        body = changed(path, value)
        body["metadata"].setdefault("name", f"hostile-{number}")
        if (refused := await refusal(world, body)) is None:
            admitted[body["metadata"]["name"]] = words
        else:
            assert refused.status in (400, 413, 422), name
            assert words in str(refused), name
    await world.apply()
    await world.completed()
    for name, words in admitted.items():
        status = await world.until("it is refused", lambda s: s.get("conditions"), name)
        accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", "Invalid"), name
        assert words in accepted["message"], name
    assert len(admitted) < len(HOSTILE) / 2, "most of it the API server refuses by itself"
    made = {it["metadata"]["labels"]["ratchet.dev/job-name"] for it in await world.items("jobsets")}
    assert made == {"sums"}
    assert operator.metric('ratchet_reconcile_total{result="bug"}') == 0


async def refusal(world, body):
    """What the API server says to it; None when it takes it."""
    try:
        await world.api.request("POST", world.path("rltrainingjobs"), body, timeout=100.0, fieldValidation="Strict")
    except ApiError as error:
        return error
    return None
