"""The API server and `ratchet validate` give the same answer, judged by a real API server."""

from __future__ import annotations

import copy
import json

import pytest
from bent_manifests import GOOD, WRONG
from bent_manifests import bend as bent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests_for_tests import full, paths
from pydantic import ValidationError

from ratchet_api.job import RLTrainingJob, parse_spec

OF_METHODS = [(path, value) for path, value, *_ in WRONG if path.startswith("spec.stages[1].rl")]
JOBS = "/apis/ratchet.dev/v1alpha1/namespaces/default/rltrainingjobs"

# Not in here: 4.0, which kubectl sends as 4, and which the server reads as a double where another client sends it raw.
ODD = [
    None, True, False, 0, 1, -1, 2, 3, 1.5, 2**31, 2**53, 2**70, "", "a", "A b", "0.5", "-1", "1e-3", "1e400",
    ".5", "é", "x" * 41, "x" * 2000, "gs://bucket/a", "/a", [], {}, [{}], [1], ["a", "a"],
    {"name": "sums"}, {"cpu": "1"},
]  # fmt: skip


def post(server, manifest, *, dry_run=True):
    """Status code and message of a create with strict field validation."""
    query = "?fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
    return server.request("POST", JOBS + query, manifest)


def accepted_by_types(manifest):
    """Whether the types accept it. Shapes of TPU slices are left to the operator (condition Accepted)."""
    try:
        RLTrainingJob.model_validate(manifest)
    except ValidationError:
        return False
    return True


mutations = st.lists(
    st.tuples(
        st.sampled_from(paths(full()["spec"], ("spec",))),
        st.sampled_from(["set", "delete", "unknown", "repeat"]),
        st.sampled_from(ODD),
    ),
    min_size=1,
    max_size=2,
)


def bend(manifest, changes):
    for path, kind, odd in changes:
        value = copy.deepcopy(odd)
        node = manifest
        try:
            for part in path[:-1]:
                node = node[part]
            if kind == "set":
                node[path[-1]] = value
            elif kind == "delete":
                del node[path[-1]]
            elif kind == "unknown":
                node[path[-1]]["unheardOf"] = value
            else:
                node[path[-1]].append(json.loads(json.dumps(node[path[-1]][0])))
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change removed this place
    return manifest


def test_the_full_manifest_is_admitted(server):
    code, message = post(server, full())
    assert code == 201, message


@settings(
    max_examples=1500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=mutations)
def test_what_python_accepts_the_server_accepts_and_the_other_way_round(server, changes):
    manifest = bend(full(), changes)
    code, message = post(server, manifest)
    assert code in (201, 400, 422), message
    assert accepted_by_types(manifest) == (code == 201), (changes, message)


@pytest.mark.parametrize("rl", GOOD, ids=[str(i) for i in range(len(GOOD))])
def test_what_goes_together_is_admitted(server, rl):
    job = full()
    job["spec"]["stages"][1]["rl"] = {"dataset": "sums", "promptsPerStep": 8, **rl}
    code, message = post(server, job)
    assert code == 201, message


@pytest.mark.parametrize(("path", "value"), OF_METHODS, ids=[f"{p}={v!r:.20}" for p, v in OF_METHODS])
def test_a_stage_that_the_types_refuse_is_refused_by_the_server(server, path, value):
    job = bent(path, value)
    code, message = post(server, job)
    assert code in (201, 400, 422), message
    assert (code == 201) == accepted_by_types(job), message


TEMPLATES = [{"name": "a", "text": "{question}"}, {"name": "b", "text": "{question}!"}]
EXPANSIONS = [
    # what a stage says besides its data set, and whether it is taken
    ({"method": "dapo"}, True),
    ({"method": "dapo", "groupSize": 1, "advantage": {"estimator": "gae"}}, False),
    ({"method": "grpo", "expansion": {"surplus": "drop"}}, False),
    ({"method": "scaf-grpo", "expansion": {"text": "{hint}", "levels": 3, "trueHard": {"patience": 5}}}, True),
    ({"method": "scaf-grpo", "expansion": {"text": "hint"}}, False),
    ({"method": "scaf-grpo", "groupSize": 1, "advantage": {"estimator": "gae"}}, False),
    ({"method": "scaf-grpo", "expansion": {"templates": TEMPLATES}}, False),
    ({"method": "template-rl"}, False),
    ({"method": "template-rl", "expansion": {"templates": TEMPLATES}}, True),
    ({"method": "template-rl", "expansion": {"templates": [*TEMPLATES, TEMPLATES[0]]}}, False),
    ({"method": "template-rl", "expansion": {"templates": [{"name": "a", "text": "no"}]}}, False),
    ({"method": "template-rl", "groupSize": 5, "expansion": {"templates": TEMPLATES}}, False),
    ({"method": "template-rl", "groupSize": 2, "expansion": {"templates": TEMPLATES}}, True),
    (
        {"method": "template-rl", "groupSize": 2, "expansion": {"templates": TEMPLATES, "baseline": "perTemplate"}},
        False,
    ),
    (
        {
            "method": "template-rl",
            "advantage": {"estimator": "gae"},
            "expansion": {"templates": TEMPLATES, "baseline": "perTemplate"},
        },
        False,
    ),
    (
        {
            "method": "template-rl",
            "selection": {"kind": "learnability", "reuse": True},
            "expansion": {"templates": TEMPLATES},
        },
        False,
    ),
]


@pytest.mark.parametrize(("rl", "taken"), EXPANSIONS, ids=[str(i) for i in range(len(EXPANSIONS))])
def test_what_goes_with_an_expansion_is_said_alike_by_server_and_types(server, rl, taken):
    manifest = full()
    manifest["spec"]["stages"][1]["rl"] = {"dataset": "sums", "promptsPerStep": 8, **rl}
    code, message = post(server, manifest)
    assert (code == 201) == accepted_by_types(manifest) == taken, message


IMMUTABLE = [
    (lambda s: s.update(seed=8), "seed cannot change"),
    (lambda s: s.pop("seed"), "seed cannot change"),
    (lambda s: s.update(reproducibility={"mode": "Exact"}), "reproducibility cannot change"),
    (lambda s: s["checkpoint"].update(directory="/checkpoints/b"), "checkpoint.directory and claimName cannot change"),
    (lambda s: s["checkpoint"].update(claimName="b"), "checkpoint.directory and claimName cannot change"),
    (lambda s: s["datasets"][0]["reasoningGym"].update(size=5), "data set cannot change"),
    (lambda s: s.update(image="registry.example/trainer:2"), "only while the job is suspended"),
    (lambda s: s["stages"][0]["advance"].update(steps=21), "stage that has begun cannot change"),
    (lambda s: s.update(stages=s["stages"][1:]), "stage that has begun cannot change"),
]
MUTABLE = [
    lambda s: s["stages"][1]["advance"].update(steps=41),
    lambda s: s["stages"].append({**s["stages"][1], "name": "more"}),
    lambda s: s.update(stages=s["stages"][:1]),
    lambda s: s.update(suspend=True, image="registry.example/trainer:2"),
    lambda s: s["placements"].pop(),
    lambda s: s.update(budgets=[{"stage": "warm-up", "chipHours": "0.5"}]),
    lambda s: s["datasets"].append({"name": "more", "reasoningGym": {"task": "chain_sum"}}),
]


@pytest.fixture
def begun(server):
    """A job whose first stage has begun."""
    path = f"{JOBS}/sums"
    server.request("DELETE", path, None)
    code, message = post(server, full(), dry_run=False)
    assert code == 201, message
    code, answer = server.request("GET", path, None)
    job = json.loads(answer)
    job["status"] = {"stage": {"name": "warm-up", "index": 0, "startStep": 0}}
    code, answer = server.request("PUT", path + "/status", job)
    assert code == 200, answer
    yield path, json.loads(answer)
    server.request("DELETE", path, None)


@pytest.mark.parametrize(("change", "words"), IMMUTABLE, ids=[w for _, w in IMMUTABLE])
def test_what_has_begun_cannot_change(server, begun, change, words):
    path, job = begun
    change(job["spec"])
    code, message = server.request("PUT", path, job)
    assert code == 422
    assert words in message


@pytest.mark.parametrize("change", MUTABLE, ids=range(len(MUTABLE)))
def test_what_lies_ahead_can_change(server, begun, change):
    path, job = begun
    change(job["spec"])
    code, message = server.request("PUT", path, job)
    assert code == 200, message


PREFIX = {"name": "prefix", "correctPrefix": {"python": {"entrypoint": "steps:check"}}}
CHOOSE = {"dataset": "sums"}
REFUSED = [
    # where, what is put there, what the server says
    (("stages", 1, "rl"), {"dataset": "sums", "method": "sgpo"}, "or take method grpo"),
    (("stages", 1, "rl", "rewards"), [PREFIX], "lose against it; add {name: accuracy}"),
    (("stages", 1, "rl", "rewards"), [{"name": "a"}, {**PREFIX, "of": "score"}], "a reward is one thing"),
    (("stages", 1, "rl", "rewards"), [{"name": "p", "correctPrefix": {}}], "give one of the two"),
    (("stages", 1, "rl", "rewards", 1, "correctPrefix", "gamma"), "2", "must be between 0 and 1"),
    (("stages", 2, "advance"), {"steps": 4}, "a curate stage has none"),
    (("stages", 2, "rl"), {"dataset": "sums"}, "exactly one way: sft, rl or curate"),
    (("stages", 2, "curate"), {"dataset": "nowhere"}, "a stage names a data set that is not in"),
    (("stages", 2, "curate"), {**CHOOSE, "samples": 1}, "set samples to 2 or more"),
    (("stages", 2, "curate", "keep"), {"low": "0.9", "high": "0.1"}, "low is above high"),
    (("stages", 2, "guards", 0, "metric"), "train/accuracy", "no guard can watch another metric"),
    (("stages", 2, "guards", 0, "action"), "Advance", "can only have action: Fail"),
    (("datasets", 2, "verifier"), "math", "asked and verified as where they come from"),
    (("datasets", 2), {"name": "chosen"}, "or fromStage"),
    (("budgets", 0), {"stage": "reason", "onExceeded": "Fail"}, "a budget limits something"),
    (("budgets", 0, "chipHours"), "0", "must be greater than 0"),
]


@pytest.mark.parametrize(("path", "value", "words"), REFUSED, ids=[words for *_, words in REFUSED])
def test_the_server_refuses_what_the_types_refuse_in_the_same_words(server, path, value, words):
    manifest = full()
    node = manifest["spec"]
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    status, message = post(server, manifest)
    assert (status, words in message) == (422, True), message
    with pytest.raises(ValidationError) as caught:
        RLTrainingJob.model_validate(manifest)
    assert words in str(caught.value)


def test_a_stage_that_trains_needs_its_end(server):
    manifest = full()
    del manifest["spec"]["stages"][1]["advance"]
    status, message = post(server, manifest)
    assert (status, "a stage that trains needs advance" in message) == (422, True), message


def test_defaults_of_server_and_types_agree(server):
    manifest = full()
    for key in ("seed", "suspend", "restart", "podTemplate", "image"):
        del manifest["spec"][key]
    manifest["spec"]["stages"][0]["sft"] = {"dataset": "sums"}
    expected = parse_spec(manifest["spec"]).manifest()
    code, answer = post(server, manifest)
    assert code == 201, answer
    assert json.loads(answer)["spec"] == expected
