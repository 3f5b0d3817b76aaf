"""What is wrong in a manifest is said with its path and a way out."""

from __future__ import annotations

import pytest
from bent_manifests import GOOD, WRONG, bend
from manifests_for_tests import full

from ratchet_api.job import parse_spec
from ratchet_api.validate import problems


def test_the_full_manifest_is_right():
    assert problems(full()) == []


@pytest.mark.parametrize(("path", "value", "reported", "words"), WRONG, ids=[f"{p}={v!r:.20}" for p, v, *_ in WRONG])
def test_a_wrong_value_is_named_with_its_place_and_a_way_out(path, value, reported, words):
    found = problems(bend(path, value))
    assert [p for p in found if p.path == reported and words in p.message], [str(p) for p in found]


@pytest.mark.parametrize("document", [None, [], "text", 7, {"spec": []}, {"spec": {"stages": 3}}, {}])
def test_anything_at_all_gets_an_answer(document):
    assert problems(document)


@pytest.mark.parametrize("rl", GOOD, ids=[str(i) for i in range(len(GOOD))])
def test_what_goes_together_is_taken(rl):
    manifest = bend("spec.stages[1].rl", {"dataset": "sums", "promptsPerStep": 8, **rl})
    assert [str(p) for p in problems(manifest)] == []


def test_a_rule_may_wait_for_drift_where_there_is_a_reference():
    manifest = bend("spec.stages[1].advance.when[0].metric", "kl")
    assert problems(manifest) == []
    del manifest["spec"]["stages"][1]["rl"]["reference"]
    assert problems(manifest) == [], "a penalty brings a reference along"
    del manifest["spec"]["stages"][1]["rl"]["kl"]
    assert "set rl.reference {kind: frozen} or rl.kl" in str(problems(manifest)[0])


def test_hints_need_a_file_that_says_where_they_are():
    manifest = bend("spec.stages[1].rl", {"dataset": "hinted", "promptsPerStep": 8, "method": "scaf-grpo"})
    jsonl = {"path": "/data/hinted.jsonl", "claimName": "data"}
    manifest["spec"]["stages"][1]["advance"]["when"][0]["metric"] = "train/unhelped"
    manifest["spec"]["datasets"].append({"name": "hinted", "jsonl": jsonl})
    (problem,) = problems(manifest)
    assert str(problem).startswith("spec.stages[1].rl.expansion: kind hints needs hints, and data set hinted has none")
    assert "say in its hints which key they have" in problem.message
    jsonl["hints"] = "help.tiers"
    assert problems(manifest) == []


@pytest.mark.parametrize(
    ("metric", "method", "emits"),
    [
        ("scored_rollouts", "sfl", True),
        ("train/scored_rollouts", "lilo", True),
        ("scored_rollouts", "srpo", False),
        ("train/exhausted", "srpo", True),
        ("active_items", "srpo", True),
        ("active_items", "lilo", False),
        ("value_loss", "sfl", True),
        ("value_loss", "lilo", True),
        ("value_loss", "srpo", False),
        ("value_loss", "vineppo", False),
        ("kl", "prorl", True),
        ("kl", "prorl-v2", True),
        ("kl", "srpo", False),
        ("rounds", "dapo", True),
        ("train/dropped_wrong", "dapo", True),
        ("train/surplus", "grpo", False),
        ("hinted", "dapo", False),
    ],
)
def test_a_rule_may_wait_for_what_its_stages_slots_say(metric, method, emits):
    manifest = bend("spec.stages[1].advance.when[0].metric", metric)
    manifest["spec"]["stages"][1]["rl"] = {"dataset": "sums", "promptsPerStep": 8, "method": method}
    assert (problems(manifest) == []) == emits


def test_what_a_preset_decides_is_not_written_into_the_manifest():
    spec = parse_spec(bend("spec.stages[1].rl", {"dataset": "sums"})["spec"])
    rl = spec.manifest()["stages"][1]["rl"]
    assert (rl["objective"], rl["advantage"]) == ({}, {})
    assert not {"kl", "reference", "selection", "expansion"} & rl.keys()


@pytest.mark.parametrize(
    ("hosts", "shards", "way_out"),
    [(8, 4, "set it to 8"), (3, 8, "take a number of devices that is a power of two"), (4, 8, None)],
)
def test_in_mode_exact_the_devices_divide_the_shards(hosts, shards, way_out):
    job = full()
    job["spec"]["placements"] = [{"name": "here", "cpu": {"hosts": hosts}}]
    job["spec"]["reproducibility"] = {"mode": "Exact", "virtualShards": shards}
    found = [str(p) for p in problems(job) if "virtualShards" in str(p)]
    assert (way_out is None) == (found == [])
    assert all(way_out in text and "spec.placements[0]" in text for text in found)


def with_curation(*order: str):
    """The manifest whose stage `reason` trains on what a curate stage keeps, with its stages in this order."""
    manifest = full()
    stages = {stage["name"]: stage for stage in manifest["spec"]["stages"]}
    stages["reason"]["rl"]["dataset"] = "chosen"
    manifest["spec"]["stages"] = [stages[name] for name in order]
    return manifest


def test_a_stage_may_train_on_what_one_before_it_keeps():
    assert problems(with_curation("warm-up", "choose", "reason")) == []
    assert problems(with_curation("choose", "warm-up", "reason")) == []
    (problem,) = problems(with_curation("warm-up", "reason", "choose"))
    assert str(problem).startswith("spec.stages[1].rl: data set chosen is made by stage choose, which is not before")


def test_an_evaluation_is_not_on_what_a_stage_keeps():
    manifest = with_curation("warm-up", "choose", "reason")
    manifest["spec"]["evaluations"] = [{"name": "e", "dataset": "chosen", "items": 4, "everySteps": 5}]
    assert "is made by stage choose to be trained on; name another data set" in str(problems(manifest)[0])


def test_hints_may_be_made_by_the_stage_that_makes_the_data_set():
    manifest = with_curation("warm-up", "choose", "reason")
    choose, reason = manifest["spec"]["stages"][1:]
    reason["rl"] = {"dataset": "chosen", "promptsPerStep": 8, "method": "scaf-grpo"}
    reason["advance"] = {"steps": 40}
    assert problems(manifest) == []
    del choose["curate"]["hints"]
    (problem,) = problems(manifest)
    assert "data set chosen has none; have stage choose make some (curate.hints)" in str(problem)
