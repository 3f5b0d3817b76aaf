"""Names and places that no cluster and no object store has are told beforehand, by `ratchet validate`."""

from __future__ import annotations

from typing import Any

import pytest
from bent_manifests import bend

from ratchet_api.validate import problems

QUEUE = "kueue.x-k8s.io/queue-name"
OTHER = {"name": "p", "accelerator": "tpu-v9", "hosts": 2, "chipsPerNode": 4}
RESERVED = {"name": "p", "accelerator": "tpu-v6e-slice", "topology": "4x4", "capacity": "Reserved"}
WRONG: list[tuple[str, Any, str]] = [
    # the path that is bent and reported, value, words of the way out
    ("spec.placements[0].zone", "us east5", "'us east5' is no value of a node's label; letters, digits"),
    ("spec.placements[0].zone", "", "'' is no value of a node's label"),
    ("spec.placements[0].nodeSelector", {"a b": "c"}, "letters, digits"),
    ("spec.placements[0].nodeSelector", {"a": "b\n"}, "'b\\n' is no label"),
    ("spec.placements[0].nodeSelector", {"a..b/c": "d"}, "is no label"),
    ("spec.placements[0].tolerations[0]", {}, "needs operator: Exists; or name the key"),
    ("spec.placements[0].tolerations[0]", {"key": "", "value": "x"}, "needs operator: Exists; or name the key"),
    ("spec.placements[0].tolerations[0]", {"key": "a", "operator": "Exists", "value": "b"}, "leave 'b' out"),
    ("spec.placements[0].tolerations[0]", {"key": "a b", "operator": "Exists"}, "key 'a b' is no key of a taint"),
    ("spec.placements[0].tolerations[0]", {"key": "a", "value": "b c"}, "value 'b c' is no value of a taint"),
    ("spec.podTemplate.labels", {"": "x"}, "letters, digits"),
    ("spec.podTemplate.labels", {"a": "x" * 64}, "at most 63"),
    ("spec.podTemplate.labels", {QUEUE: "research"}, "write it into jobSetTemplate.labels"),
    ("spec.podTemplate.annotations", {"a/b/c": "d"}, "letters, digits"),
    ("spec.podTemplate.serviceAccountName", "a..b", "'a..b' is no name of an object"),
    ("spec.podTemplate.priorityClassName", "a.-b", "'a.-b' is no name of an object"),
    ("spec.podTemplate.priorityClassName", "system-node-critical", "a class of yours"),
    ("spec.podTemplate.env[0].value", "a\0b", "a character 0, which no variable can hold"),
    ("spec.checkpoint.claimName", "a..b", "is no name of an object"),
    ("spec.jobSetTemplate.labels", {QUEUE: "Research"}, "'Research' is no name of a LocalQueue; lower-case"),
    ("spec.jobSetTemplate.labels", {QUEUE: ""}, "'' is no name of a LocalQueue"),
    ("spec.jobSetTemplate.labels", {QUEUE: "a_b"}, "is no name of a LocalQueue"),
    ("spec.jobSetTemplate.labels", {"kueue.x-k8s.io/queue": "research"}, f"did you mean {QUEUE}?"),
    ("spec.jobSetTemplate.labels", {"kueue.x-k8s.io/queueName": "research"}, f"did you mean {QUEUE}?"),
    ("spec.image", " ", "without them"),
    ("spec.image", "trainer:1\n", "without them"),
    ("spec.checkpoint.directory", "/checkpoints/sums ", "has blanks around it"),
    ("spec.checkpoint.directory", "/a\0b", "control characters"),
    ("spec.checkpoint.localDirectory", "/local\t", "control characters"),
    ("spec.model.path", "/models/\x7f", "control characters"),
]


@pytest.mark.parametrize(("path", "value", "words"), WRONG, ids=[f"{p}={v!r:.30}" for p, v, _ in WRONG])
def test_a_name_that_nothing_can_have_is_told_with_its_place_and_a_way_out(path: str, value: Any, words: str) -> None:
    (problem,) = problems(bend(path, value))
    assert problem.path == path
    assert words in problem.message
    assert "\n" not in str(problem)


@pytest.mark.parametrize("path", ["spec.podTemplate.labels", "spec.jobSetTemplate.annotations", "spec"])
def test_a_key_of_several_lines_is_told_in_one(path: str) -> None:
    manifest = bend("spec.podTemplate.labels", {"team": "a"})
    part = manifest["spec"]
    for name in path.split(".")[1:]:
        part = part[name]
    part["a\nb"] = "c"
    (problem,) = problems(manifest)
    assert "a\\nb" in str(problem)
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        (OTHER | {"accelerator": "tpu v9!"}, "accelerator"),
        (OTHER | {"accelerator": ""}, "accelerator"),
        (OTHER | {"topology": "no topology!"}, "topology"),
        (RESERVED | {"reservation": "My Reservation"}, "reservation"),
        (RESERVED | {"reservation": "projects/p/reservations/r"}, "reservation"),
    ],
)
def test_what_nodes_are_selected_by_is_a_label(placement: dict[str, Any], field: str) -> None:
    found = [str(p) for p in problems(bend("spec.placements[0]", placement))]
    assert [text for text in found if text.startswith(f"spec.placements[0].{field}: ")] == found != []
    assert "letters, digits" in found[0]


PLACES = [
    ("gs://b/x", "'b' is no bucket's name; write gs://BUCKET/PREFIX"),
    ("gs://my bucket/x", "'my bucket' is no bucket's name"),
    ("gs://bucket:80/x", "'bucket:80' is no bucket's name"),
    ("s3://bucket_/x", "'bucket_' is no bucket's name; write s3://BUCKET/PREFIX"),
    ("gs://bücket/x", "is no bucket's name"),
    ("gs://bucket/a//b", "empty, . or .."),
    ("gs://bucket/a/../b", "empty, . or .."),
    ("gs://bucket/a ", "has blanks around it"),
    ("gs://bucket/a\0b", "control characters"),
]
ANYWHERE = [
    ("gs:/bucket/x", "one / is missing after gs:/; write gs://BUCKET/PREFIX"),
    ("gcs://bucket/x", "gcs: is not known; write gs://BUCKET/PREFIX"),
    ("GS://bucket/x", "GS: is not known; write gs://BUCKET/PREFIX"),
    ("az://bucket/x", "az: is not known; write a path, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX"),
    ("file:///x", "file: is not known; write a path"),
]


def placed(path: str, place: str) -> dict[str, Any]:
    manifest = bend("spec.export", {"directory": "/exports/sums"})
    spec = manifest["spec"]
    spec["checkpoint"].pop("claimName")
    spec["model"].pop("claimName")
    spec["datasets"][1]["jsonl"].pop("claimName")
    *parents, last = path.split(".")
    for part in parents:
        spec = spec[int(part)] if part.isdigit() else spec[part]
    spec[last] = place
    return manifest


@pytest.mark.parametrize("path", ["checkpoint.directory", "model.path", "export.directory", "datasets.1.jsonl.path"])
@pytest.mark.parametrize(("place", "words"), PLACES)
def test_a_place_that_cannot_be_meant_is_told_wherever_it_stands(path: str, place: str, words: str) -> None:
    (problem,) = problems(placed(path, place))
    assert problem.path == f"spec.{path}".replace(".1.", "[1].")
    assert words in problem.message
    assert "\n" not in str(problem)


@pytest.mark.parametrize("path", ["export.directory", "datasets.1.jsonl.path"])
@pytest.mark.parametrize(("place", "words"), ANYWHERE)
def test_a_scheme_that_is_none_is_no_path_either(path: str, place: str, words: str) -> None:
    assert [words in p.message for p in problems(placed(path, place))] == [True]


@pytest.mark.parametrize("path", ["checkpoint.directory", "model.path"])
@pytest.mark.parametrize("place", [*(p for p, _ in ANYWHERE), "relative/x", "~/x", " /x", "gs://", "s3://Bucket_/x"])
def test_what_is_no_place_at_all_is_told_how_places_are_written(path: str, place: str) -> None:
    (problem,) = problems(placed(path, place))
    way = "write gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a path that begins with /"
    assert str(problem) == f"spec.{path}: {place!r} is not how it is written; {way}"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.placements[0].name", "Spot", "take lower-case letters, digits and '-'"),
        ("spec.podTemplate.priorityClassName", "High", "take lower-case letters, digits, '-' and '.'"),
        ("spec.podTemplate.env[0].name", "1A", "not beginning with a digit"),
        ("spec.podTemplate.resources.requests.cpu", "four", "write a number of CPUs, for example 4, 2.5 or 500m"),
        ("spec.podTemplate.resources.requests.memory", "8GB", "for example 8Gi or 500M"),
        ("spec.stages[1].rl.temperature", "warm", 'write a number in quotes, for example "0.5" or "1e-6"'),
        ("spec.checkpoint.localDirectory", "local", "write a path that begins with /"),
        ("spec.checkpoint.localDirectory", "x" * 500, "xxx... is not how it is written"),
    ],
)
def test_a_pattern_is_said_in_words(path: str, value: str, words: str) -> None:
    (problem,) = problems(bend(path, value))
    assert problem.path == path
    assert words in problem.message
    assert "pattern" not in problem.message


@pytest.mark.parametrize("place", ["gs://bucket/a b/ünï", "s3://bucket.with.dots/x/", "gs://goog-bucket/x", "/a/b"])
def test_places_that_can_be_meant_are_taken(place: str) -> None:
    assert [str(p) for p in problems(placed("checkpoint.directory", place))] == []


def test_checkpoints_have_a_prefix_of_their_own_and_a_model_may_have_a_bucket() -> None:
    (problem,) = problems(placed("checkpoint.directory", "gs://bucket/"))
    assert "a prefix of the job's own is missing; write gs://bucket/PREFIX" in problem.message
    assert problems(placed("model.path", "gs://bucket")) == []


def test_labels_that_kubernetes_recommends_to_everybody_are_taken() -> None:
    labels = {"app.kubernetes.io/part-of": "research"}
    for kind in ("podTemplate", "jobSetTemplate"):
        assert problems(bend(f"spec.{kind}.labels", labels)) == []
        (refused,) = problems(bend(f"spec.{kind}.labels", {"kubernetes.io/arch": "x"}))
        assert "belongs to Kubernetes" in str(refused)
