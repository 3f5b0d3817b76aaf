"""What a manifest may say of a rollout fleet: the same answer from types, `ratchet validate` and a real API server."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests_for_tests import full, paths, with_fleet
from pydantic import ValidationError

from ratchet_api.job import FLEET_NAME_LENGTH, NAME_LENGTH, RLTrainingJob
from ratchet_api.validate import problems

JOBS = "/apis/ratchet.dev/v1alpha1/namespaces/default/rltrainingjobs"
QUEUE = {"labels": {"kueue.x-k8s.io/queue-name": "research"}}


def rl(manifest: dict[str, Any], **said: Any) -> None:
    manifest["spec"]["stages"][1]["rl"] |= said


def exact_on(manifest: dict[str, Any], *placements: dict[str, Any]) -> None:
    """Mode Exact, with workers on these placements."""
    shape = {"topology": "2x2"}
    ladder = [({} if "cpu" in one else shape) | {"name": f"p{n}"} | one for n, one in enumerate(placements)]
    manifest["spec"]["rollouts"]["placements"] = ladder
    manifest["spec"]["reproducibility"] = {"mode": "Exact", "virtualShards": 16}


REFUSED = [
    # what is done to a good manifest, where the problem is, its reason, the way out
    (
        lambda m: rl(m, method="dapo", expansion={"surplus": "carry"}),
        "spec.stages[1].rl",
        "that step's prompts are drawn before this one is sampled",
        "take surplus drop, or lag 0",
    ),
    (
        lambda m: rl(m, method="sfl"),
        "spec.stages[1].rl",
        "scores prompts by the weights that train on them",
        "take lag 0, or another selection.kind",
    ),
    (
        lambda m: rl(m, method="lilo"),
        "spec.stages[1].rl",
        "scores prompts by the weights that train on them",
        "take lag 0, or another selection.kind",
    ),
    (
        lambda m: rl(m, selection={"kind": "learnability", "buffer": {}}),
        "spec.stages[1].rl",
        "with a buffer, too",
        "take lag 0, or another selection.kind",
    ),
    (
        lambda m: rl(m, method="vineppo"),
        "spec.stages[1].rl",
        "samples values of the weights that are trained",
        "take lag 0, or another estimator",
    ),
    (
        lambda m: rl(m, advantage={"estimator": "vine"}),
        "spec.stages[1].rl",
        "samples values of the weights that are trained",
        "take lag 0, or another estimator",
    ),
    (
        lambda m: rl(m, promptsInFlight=2),
        "spec.stages[1].rl",
        "promptsInFlight refills the places of a single one",
        "choose one of them",
    ),
    (
        lambda m: exact_on(m, {"accelerator": "tpu-v6e-slice"}, {"accelerator": "tpu-v5p-slice", "topology": "2x2x1"}),
        "spec",
        "mode Exact has all workers sample on one kind of machine",
        "give rollouts.placements one accelerator, or take reproducibility.mode PerTopology",
    ),
    (
        lambda m: exact_on(m, {"accelerator": "tpu-v6e-slice"}, {"cpu": {"hosts": 1}}),
        "spec",
        "mode Exact has all workers sample on one kind of machine",
        "give rollouts.placements one accelerator, or take reproducibility.mode PerTopology",
    ),
    (
        lambda m: rl(m, rollouts={"promptsPerCall": 9}),
        "spec.stages[1].rl",
        "promptsPerCall is more than promptsPerStep",
        "set it to less, or leave it out",
    ),
    (
        lambda m: rl(m, rollouts={"lag": 3}),
        "spec.stages[1].rl.rollouts.lag",
        "less than or equal to 2",
        "2",
    ),
    (
        lambda m: m["spec"].update(stages=m["spec"]["stages"][:1], budgets=[]),
        "spec",
        "a fleet that samples for rl stages, and spec.stages has none",
        "leave it out, or add a stage with rl",
    ),
    (
        lambda m: m["spec"].update(jobSetTemplate=QUEUE),
        "spec",
        "would hold single workers back while their trainer waits",
        "leave kueue.x-k8s.io/queue-name out",
    ),
    (
        lambda m: m["spec"]["rollouts"]["workers"].update(min=9),
        "spec.rollouts.workers",
        "workers.min is more than workers.max",
        "lower min, or raise max",
    ),
    (
        lambda m: m["spec"]["rollouts"]["placements"][0].update(slices=2),
        "spec.rollouts",
        "a worker is one slice",
        "raise rollouts.workers.max",
    ),
    (
        lambda m: m["metadata"].update(name="a" * (FLEET_NAME_LENGTH + 1)),
        "metadata.name",
        "named after",
        f"at most {FLEET_NAME_LENGTH} characters",
    ),
]
TAKEN = [
    lambda m: None,
    lambda m: rl(m, rollouts={}),
    lambda m: rl(m, rollouts={"lag": 2}),
    lambda m: rl(m, method="dapo"),
    lambda m: rl(m, method="dapo", expansion={"surplus": "drop"}),
    lambda m: rl(m, method="dapo", expansion={"surplus": "carry"}, rollouts={"promptsPerCall": 8}),
    lambda m: rl(m, method="sfl", rollouts={"lag": 0}),
    lambda m: rl(m, method="lilo", selection={"kind": "uniform"}),
    lambda m: rl(m, selection={"kind": "difficultyBand"}),
    lambda m: rl(m, method="srpo"),
    lambda m: rl(m, method="vineppo", rollouts={"promptsPerCall": 1}),
    lambda m: rl(m, method="vineppo", advantage={"estimator": "mean-std"}),
    lambda m: rl(m, promptsInFlight=2, rollouts={"lag": 1}),
    lambda m: m["spec"].pop("rollouts"),
    lambda m: m["spec"]["rollouts"]["workers"].update(max=0),
    lambda m: m["spec"]["rollouts"]["workers"].update(min=8),
    lambda m: m["metadata"].update(name="a" * FLEET_NAME_LENGTH),
    lambda m: exact_on(
        m,
        {"accelerator": "tpu-v6e-slice", "capacity": "Spot"},
        {"accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 8},
    ),
    lambda m: m["spec"].update(stages=m["spec"]["stages"][1:], budgets=[]),
]


def bent(change: Any) -> dict[str, Any]:
    manifest = with_fleet()
    change(manifest)
    return manifest


def post(server: Any, manifest: dict[str, Any], *, dry_run: bool = True) -> tuple[int, str]:
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    code, message = server.request("POST", JOBS + query, manifest)
    assert code in (201, 400, 422), message
    return code, message


@pytest.mark.parametrize(("change", "path", "reason", "way_out"), REFUSED, ids=[reason for *_, reason, _ in REFUSED])
def test_what_no_fleet_can_do_is_refused_with_the_reason_and_a_way_out(change, path, reason, way_out):
    (problem,) = problems(bent(change))
    assert problem.path == path
    assert reason in problem.message
    assert way_out in problem.message


@pytest.mark.parametrize("change", TAKEN, ids=range(len(TAKEN)))
def test_what_a_fleet_can_do_is_taken(change):
    assert [str(problem) for problem in problems(bent(change))] == []


def test_the_stage_says_how_it_is_sampled_whether_or_not_there_is_a_fleet():
    manifest = full()
    rl(manifest, selection={"kind": "uniform"}, expansion={"kind": "none"}, rollouts={"lag": 2, "promptsPerCall": 2})
    assert problems(manifest) == []
    manifest["metadata"]["name"] = "a" * NAME_LENGTH
    assert problems(manifest) == [], "the shorter limit is for jobs whose workers are named after them"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ((0, "topology"), "spec.rollouts.placements[0].topology: "),
        ((0, "nodeSelector"), "spec.rollouts.placements[0].nodeSelector: "),
    ],
)
def test_placements_of_workers_are_looked_at_as_those_of_trainers_are(path, words):
    manifest = with_fleet()
    index, field = path
    manifest["spec"]["rollouts"]["placements"][index][field] = {"no label": "!"} if field == "nodeSelector" else "9x9"
    assert any(str(problem).startswith(words) for problem in problems(manifest))


def test_a_workers_devices_need_not_divide_the_prompts_of_a_step():
    manifest = with_fleet()
    manifest["spec"]["rollouts"]["placements"] = [{"name": "odd", "cpu": {"hosts": 7}}]
    assert problems(manifest) == []


def test_what_is_added_to_workers_pods_is_looked_at_as_what_is_added_to_trainers_is():
    manifest = with_fleet()
    manifest["spec"]["rollouts"]["podTemplate"] = {
        "env": [{"name": "NPROC", "value": "1"}],
        "labels": {"ratchet.dev/attempt": "1", **QUEUE["labels"]},
        "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
        "volumes": [{"name": "a", "mountPath": "/etc", "emptyDir": {}}],
    }
    found = {problem.path: problem.message for problem in problems(manifest)}
    assert "set rollouts.podTemplate.resources.requests.cpu" in found["spec.rollouts.podTemplate.env[0].name"]
    assert "spec.rollouts.podTemplate.resources.requests.cpu" in found
    assert "spec.rollouts.podTemplate.volumes[0].mountPath" in found
    assert "spec.rollouts.podTemplate.labels" in found


@pytest.mark.parametrize("change", [change for change, *_ in REFUSED] + TAKEN, ids=range(len(REFUSED) + len(TAKEN)))
def test_the_server_says_the_same(server, change):
    manifest = bent(change)
    code, message = post(server, manifest)
    assert (code == 201) == (problems(manifest) == []), message


ODD = [None, True, 0, 1, 2, 3, 9, 257, 1.5, "", "a", "0.5", [], {}, [{}], {"name": "x"}]
PLACES = [path for path in paths(with_fleet()["spec"], ("spec",)) if "rollouts" in path]


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.sampled_from(PLACES), st.sampled_from(["set", "delete"]), st.sampled_from(ODD))
def test_what_python_accepts_of_a_fleet_the_server_accepts_and_the_other_way_round(server, path, kind, odd):
    manifest = with_fleet()
    node: Any = manifest
    for part in path[:-1]:
        node = node[part]
    if kind == "set":
        node[path[-1]] = copy.deepcopy(odd)
    else:
        del node[path[-1]]
    code, message = post(server, manifest)
    try:
        RLTrainingJob.model_validate(manifest)
    except ValidationError:
        assert code != 201, (path, kind, odd)
    else:
        assert code == 201, (path, kind, odd, message)


@pytest.fixture
def sampling(server):
    """A job with a fleet whose rl stage has begun."""
    path = f"{JOBS}/fleet"
    server.request("DELETE", path, None)
    code, message = post(server, with_fleet("fleet"), dry_run=False)
    assert code == 201, message
    job = json.loads(server.request("GET", path, None)[1])
    job["status"] = {"stage": {"name": "reason", "index": 1, "startStep": 20}}
    code, answer = server.request("PUT", path + "/status", job)
    assert code == 200, answer
    yield path, json.loads(answer)
    server.request("DELETE", path, None)


EDITS = [
    # an edit while workers run, and what the server says; None: it takes it
    (lambda s: s["rollouts"]["workers"].update(min=2, max=3), None),
    (lambda s: s["rollouts"]["workers"].update(max=0), None),
    (lambda s: s["rollouts"].update(waitSeconds=60), None),
    (lambda s: s["rollouts"]["placements"].pop(), None),
    (lambda s: s["rollouts"].update(podTemplate={}), None),
    (lambda s: s.pop("rollouts"), "only while the job is suspended"),
    (lambda s: (s.pop("rollouts"), s.update(suspend=True)), None),
    (lambda s: s["stages"][1]["rl"]["rollouts"].update(lag=2), "a stage that has begun cannot change"),
    (lambda s: s["stages"][1]["rl"].pop("rollouts"), "a stage that has begun cannot change"),
]


@pytest.mark.parametrize(("edit", "words"), EDITS, ids=range(len(EDITS)))
def test_what_may_change_while_workers_run(server, sampling, edit, words):
    path, job = sampling
    edit(job["spec"])
    code, message = server.request("PUT", path, job)
    assert code == (200 if words is None else 422), message
    assert words is None or words in message
