"""What is wrong in a manifest is said with its path and a way out."""

from __future__ import annotations

import pytest
from manifests_for_tests import full

from ratchet_api.validate import problems


def bend(path: str, value):
    """The full manifest with one value replaced; the path as in the error messages."""
    manifest = full()
    node = manifest
    *parents, last = path.replace("[", ".[").split(".")
    for part in parents:
        node = node[int(part[1:-1])] if part.startswith("[") else node[part]
    if value is KeyError:
        del node[last]
    elif last.startswith("["):
        node[int(last[1:-1])] = value
    else:
        node[last] = value
    return manifest


WRONG = [
    # path bent, value, path reported, words that must appear
    ("spec.model.presett", "tiny", "spec.model.presett", "did you mean preset?"),
    ("spec.seed", "7", "spec.seed", "integer"),
    ("spec.seed", True, "spec.seed", "integer"),
    ("spec.seed", 1.5, "spec.seed", "integer"),
    ("spec.stages", [], "spec.stages", "at least 1"),
    ("spec.checkpoint", KeyError, "spec.checkpoint", "required"),
    ("spec.stages[1].name", "warm-up", "spec", "warm-up"),
    ("spec.stages[1].rl.dataset", "nowhere", "spec", "not in spec.datasets"),
    ("spec.stages[1].sft", {"dataset": "sums"}, "spec.stages[1]", "exactly one way"),
    ("spec.stages[1].rl.temperature", 0.5, "spec.stages[1].rl.temperature", 'quote it: "0.5"'),
    ("spec.stages[1].rl.temperature", "0", "spec.stages[1].rl.temperature", "greater than 0"),
    ("spec.stages[1].rl.temperature", "1e999", "spec.stages[1].rl.temperature", "greater than 0"),
    ("spec.stages[1].rl.groupSize", 1, "spec.stages[1].rl.groupSize", "greater than or equal to 2"),
    ("spec.stages[1].rl.updatesPerStep", 5, "spec.stages[1]", "divisible by rl.updatesPerStep"),
    ("spec.stages[1].rl.promptsPerStep", 7, "spec.stages[1].rl.promptsPerStep", "use a multiple of 2"),
    ("spec.stages[0].advance.minSteps", 21, "spec.stages[0].advance", "no rule could ever hold"),
    ("spec.stages[0].advance.when[0].metric", "accuracy", "spec.stages[0]", "sft stage emits"),
    ("spec.stages[0].advance.when[0].atLeast", "1", "spec.stages[0].advance.when[0]", "exactly one bound"),
    ("spec.stages[0].sft.batchSize", 9, "spec.stages[0].sft.batchSize", "for example 10"),
    ("spec.placements[0].topology", "3x5", "spec.placements[0].topology", "4x4"),
    ("spec.placements[0].chipsPerNode", KeyError, "spec.placements[0].chipsPerNode", "8 (1 host) or 4 (2 hosts)"),
    ("spec.placements[0].cpu", {}, "spec.placements[0]", "on TPUs"),
    ("spec.checkpoint.directory", "gs://bucket/a", "spec.checkpoint", "gs:// needs none"),
    ("spec.checkpoint.directory", "relative", "spec.checkpoint.directory", "pattern"),
    ("spec.checkpoint.directory", None, "spec.checkpoint.directory", "required"),
    ("metadata.name", "9lives", "metadata.name", "beginning with a letter"),
    ("metadata.name", "a" * 40, "metadata.name", "at most 39"),
    ("metadata.name", "Upper", "metadata.name", "lower-case"),
    ("apiVersion", "ratchet.dev/v1", "apiVersion", "ratchet.dev/v1alpha1"),
    ("kind", "Job", "kind", "RLTrainingJob"),
    ("sepc", {}, "sepc", "did you mean spec?"),
]


def test_the_full_manifest_is_right():
    assert problems(full()) == []


@pytest.mark.parametrize(("path", "value", "reported", "words"), WRONG, ids=[f"{p}={v!r:.20}" for p, v, *_ in WRONG])
def test_a_wrong_value_is_named_with_its_place_and_a_way_out(path, value, reported, words):
    found = problems(bend(path, value))
    assert [p for p in found if p.path == reported and words in p.message], [str(p) for p in found]


@pytest.mark.parametrize("document", [None, [], "text", 7, {"spec": []}, {"spec": {"stages": 3}}, {}])
def test_anything_at_all_gets_an_answer(document):
    assert problems(document)
