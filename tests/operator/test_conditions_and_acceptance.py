"""What a user reads: conditions that are always all there, and what a job is refused for."""

from __future__ import annotations

import pytest
from plan_story import Story, job

from ratchet_api.job import parse_spec
from ratchet_api.status import CONDITIONS, PHASES
from ratchet_operator.decide import acceptance, conditions
from ratchet_operator.decide.observed_job import read_status
from ratchet_operator.snapshot import Values


def test_all_conditions_are_there_from_the_first_pass():
    story = Story()
    plan = story.decide()
    assert tuple(c["type"] for c in plan.status["conditions"]) == CONDITIONS
    assert plan.status["observedGeneration"] == 1


def test_the_phase_follows_a_life():
    story = Story()
    seen = [story.decide().status["phase"]]
    story.settle()
    story.up()
    seen.append(story.status["phase"])
    story.shut_down("pool-a-0", "pool-a-1")
    story.settle()
    seen.append(story.status["phase"])
    story.leave(story.pod(0), 75).leave(story.pod(1), 75)
    story.settle()
    seen.append(story.status["phase"])
    story.up("pool-b")
    seen.append(story.status["phase"])
    assert seen == ["Placing", "Running", "Recovering", "Recovering", "Running"]
    assert set(seen) <= set(PHASES)


def test_the_time_of_a_transition_moves_only_with_the_status():
    story = Story()
    story.settle()
    created = story.condition("Running")["lastTransitionTime"]
    story.later(30).up()
    assert story.condition("Running")["lastTransitionTime"] == "2026-01-02T03:04:35Z"
    story.later(30)
    story.leave(story.pod(0), 1)
    story.decide()
    assert story.condition("Accepted")["lastTransitionTime"] == created


def test_every_reason_is_documented():
    for kind in CONDITIONS:
        assert conditions.REASONS[kind]
        assert all(meaning for meaning in conditions.REASONS[kind].values())


TPU = {"name": "p", "accelerator": "tpu-v6e-slice", "topology": "4x4"}
HERE = {"name": "here", "cpu": {"hosts": 1}}
REFUSED = [
    # a change of the spec, the path that is named, a word of the way out
    ({"checkpoint": {"directory": "/checkpoints/sums"}}, "spec.checkpoint.claimName", "PersistentVolumeClaim"),
    (
        {"datasets": [{"name": "sums", "reasoningGym": {"task": "chain_summ"}}]},
        "spec.datasets[0].reasoningGym.task: reasoning-gym has no task chain_summ; did you mean chain_sum?",
        "did you mean chain_sum",
    ),
    ({"checkpoint": {"directory": "/etc/sums", "claimName": "c"}}, "spec.checkpoint.directory", "/checkpoints"),
    ({"checkpoint": {"directory": "/", "claimName": "c"}}, "spec.checkpoint.directory", "/checkpoints"),
    ({"checkpoint": {"directory": "gs://bucket"}}, "spec.checkpoint.directory", "a prefix of the job's own is missing"),
    ({"checkpoint": {"directory": "gs://x/sums"}}, "spec.checkpoint.directory", "'x' is no bucket's name"),
    ({"checkpoint": {"directory": "s3://bucket/a//b"}}, "spec.checkpoint.directory", "empty, . or .."),
    ({"checkpoint": {"directory": "/checkpoints/../etc", "claimName": "c"}}, "spec.checkpoint.directory", "without"),
    ({"checkpoint": {"directory": "/../etc", "claimName": "c"}}, "spec.checkpoint.directory", "without"),
    ({"checkpoint": {"directory": "/checkpoints//sums", "claimName": "c"}}, "spec.checkpoint.directory", "without"),
    (
        {"checkpoint": {"directory": "/checkpoints/sums", "claimName": "c", "localDirectory": "/fast"}},
        "spec.checkpoint.localDirectory",
        "trainer.localDirectory",
    ),
    (
        {"checkpoint": {"directory": "/checkpoints/sums", "claimName": "c", "localDirectory": "/checkpoints/fast"}},
        "spec.checkpoint.localDirectory: claim c is mounted at /checkpoints",
        "another folder",
    ),
    (
        {"checkpoint": {"directory": "/checkpoints/sums", "claimName": "c", "localDirectory": "/var/fast"}},
        "spec.checkpoint.localDirectory: the node's folder would be mounted at /var",
        "/local",
    ),
    (
        {"datasets": [{"name": "sums", "jsonl": {"path": "/data/../usr/data.jsonl", "claimName": "c"}}]},
        "spec.datasets[0].jsonl.path",
        "without",
    ),
    (
        {"podTemplate": {"serviceAccountName": "admin"}},
        "spec.podTemplate.serviceAccountName",
        "trainer.serviceAccounts",
    ),
    (
        {"rollouts": {"placements": [HERE], "podTemplate": {"serviceAccountName": "admin"}}},
        "spec.rollouts.podTemplate.serviceAccountName",
        "trainer.serviceAccounts",
    ),
    (
        {"rollouts": {"placements": [HERE], "podTemplate": {"runAsUser": 0}}},
        "spec.rollouts.podTemplate.runAsUser",
        "trainer.allowRoot",
    ),
    (
        {
            "rollouts": {
                "placements": [HERE],
                "podTemplate": {"volumes": [{"name": "a", "mountPath": "/checkpoints/a", "emptyDir": {}}]},
            }
        },
        "spec.rollouts.podTemplate.volumes[0].mountPath",
        "another folder",
    ),
    (
        {"rollouts": {"placements": [HERE | {"nodeSelector": {"cloud.google.com/gke-spot": "true"}}]}},
        "spec.rollouts.placements[0].nodeSelector",
        "set capacity instead",
    ),
    ({"podTemplate": {"env": [{"name": "NPROC", "value": "8"}]}}, "spec.podTemplate.env[0].name", "requests.cpu"),
    ({"podTemplate": {"env": [{"name": "RATCHET_ATTEMPT"}]}}, "spec.podTemplate.env[0].name", "set by Ratchet"),
    ({"podTemplate": {"labels": {"ratchet.dev/attempt": "9"}}}, "spec.podTemplate.labels", "domain of yours"),
    ({"podTemplate": {"annotations": {"ratchet.dev/word": "{}"}}}, "spec.podTemplate.annotations", "domain of yours"),
    ({"podTemplate": {"labels": {"team": "my team!"}}}, "spec.podTemplate.labels", "letters, digits"),
    ({"podTemplate": {"annotations": {"a/b/c": "x"}}}, "spec.podTemplate.annotations", "letters, digits"),
    ({"jobSetTemplate": {"labels": {"ratchet.dev/attempt": "9"}}}, "spec.jobSetTemplate.labels", "domain of yours"),
    (
        {"jobSetTemplate": {"annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "x"}}},
        "spec.jobSetTemplate.annotations",
        "domain of yours",
    ),
    ({"jobSetTemplate": {"labels": {"team": "my team!"}}}, "spec.jobSetTemplate.labels", "letters, digits"),
    (
        {"podTemplate": {"priorityClassName": "system-node-critical"}},
        "spec.podTemplate.priorityClassName",
        "a class of yours",
    ),
    (
        {"placements": [{"name": "p", "accelerator": "tpu-v6e-slice", "topology": "2x2", "slices": 2}]},
        "spec.placements[0].slices",
        "topology of several hosts",
    ),
    (
        {"placements": [{"name": "p", "accelerator": "tpu-v9-slice", "topology": "4x4"}]},
        "spec.placements[0].accelerator",
        "give hosts and chipsPerNode",
    ),
    (
        {
            "placements": [{"name": "p", "accelerator": "tpu-v6e-slice", "topology": "4x4", "slices": 2}],
            "parallelism": {"fsdp": 32},
        },
        "spec.parallelism",
        "2 slices of 16; fsdp x tensor must divide 16",
    ),
    (
        {"placements": [{"name": "p", "cpu": {"hosts": 1}, "nodeSelector": {"pool": "-x"}}]},
        "spec.placements[0].nodeSelector",
        "beginning and ending",
    ),
    (
        {"placements": [{**TPU, "nodeSelector": {"cloud.google.com/gke-tpu-accelerator": "tpu7x"}}]},
        "spec.placements[0].nodeSelector",
        "contradicts the placement's own fields, by which it is 'tpu-v6e-slice'; leave it out",
    ),
    (
        {"placements": [{**TPU, "nodeSelector": {"cloud.google.com/gke-spot": "true"}}]},
        "spec.placements[0].nodeSelector",
        "set capacity instead",
    ),
    (
        {"podTemplate": {"resources": {"requests": {"cpu": "8"}, "limits": {"cpu": "2500m"}}}},
        "spec.podTemplate.resources.requests.cpu",
        "raise the limit",
    ),
    (
        {"podTemplate": {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000M"}}}},
        "spec.podTemplate.resources.requests.memory",
        "raise the limit",
    ),
    (
        {
            "podTemplate": {
                "annotations": {f"example.com/{i}": "x" * 1024 for i in range(32)},
                "env": [{"name": f"V{i}", "value": "x" * 4096} for i in range(64)],
            }
        },
        "spec",
        "at most 262144",
    ),
    (
        {"placements": [{"name": "p", "accelerator": "tpu-v6e-slice", "topology": "3x3"}]},
        "spec.placements[0].topology",
        "there is",
    ),
    (
        {"datasets": [{"name": "sums", "jsonl": {"path": "data.jsonl", "claimName": "c"}}]},
        "spec.datasets[0].jsonl.path",
        "/FOLDER/FILE",
    ),
    (
        {"datasets": [{"name": "sums", "jsonl": {"path": "/usr/data.jsonl", "claimName": "c"}}]},
        "spec.datasets[0].jsonl.path",
        "/data",
    ),
    (
        {"datasets": [{"name": "sums", "jsonl": {"path": "/checkpoints/data.jsonl", "claimName": "other"}}]},
        "spec.datasets[0].jsonl.claimName",
        "another folder",
    ),
    (
        {"stages": [{"name": "s", "sft": {"dataset": "sums", "batchSize": 33}, "advance": {"steps": 1}}]},
        "spec.stages[0].sft.batchSize",
        "multiple of 2",
    ),
]


@pytest.mark.parametrize(("change", "path", "way_out"), REFUSED, ids=[f"{i}-{r[1]}" for i, r in enumerate(REFUSED)])
def test_a_job_that_cannot_run_is_refused_with_path_and_way_out(change, path, way_out):
    story = Story(**change)
    story.settle()
    accepted = story.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "Invalid")
    assert path in accepted["message"]
    assert way_out in accepted["message"]
    assert story.jobsets == []
    assert story.status["phase"] == "Pending"
    assert story.events == ["NotAccepted"], "told once"


def test_a_corrected_spec_is_accepted():
    story = Story(podTemplate={"serviceAccountName": "admin"})
    story.settle()
    story.values = Values(service_accounts=("admin",))
    story.settle()
    assert story.condition("Accepted")["status"] == "True"
    pod = story.jobsets[0]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == "admin"


def test_the_example_is_accepted():
    assert acceptance.problems(parse_spec(job()["spec"]), Values()) == ()


def test_a_spec_that_becomes_wrong_keeps_its_attempt_but_gets_no_other():
    story = Story().begin()
    story.job["spec"]["podTemplate"] = {"serviceAccountName": "admin"}
    story.settle()
    assert story.condition("Running")["status"] == "True"
    story.leave(story.pod(0), 69).leave(story.pod(1), 69)
    story.settle()
    assert story.attempt["number"] == 1
    assert story.condition("Placed")["reason"] == "NotAccepted"


def test_a_suspended_job_is_suspended_also_when_it_is_not_accepted():
    story = Story(podTemplate={"serviceAccountName": "admin"}, suspend=True)
    story.settle()
    assert story.condition("Accepted")["status"] == "False"
    assert story.condition("Suspended")["status"] == "True"
    assert story.status["phase"] == "Suspended"


def test_status_of_a_newer_version_is_read_without_what_is_unknown():
    story = Story().begin()
    newer = {**story.status, "lineage": 3, "attempt": {**story.attempt, "rung": {"name": "x"}}}
    assert read_status(newer) == read_status(story.status)


def test_an_image_of_ones_own_may_have_tasks_of_its_own():
    datasets = [{"name": "sums", "reasoningGym": {"task": "ours"}}]
    assert Story(datasets=datasets, image="registry.example/ours:1").decide().create
    assert Story(datasets=datasets).decide().create == ()
