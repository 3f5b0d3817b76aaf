"""Examples for GKE: each names its node pools, is admitted and rendered, and is pinned to one image in a release."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from ratchet_api.job import RLTrainingJob
from ratchet_api.validate import placement_shape, problems
from ratchet_cli.main import main
from ratchet_operator.checks.gcloud import node_pool_command

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples/gke").glob("*.yaml"))
SHAPES = {
    "sums-v5e-2x2": [(1, 4, 1), (1, 4, 1)],
    "sums-v6e-2x2": [(1, 4, 1), (1, 4, 1)],
    "qwen0.5b-v5e-2x4": [(2, 4, 1), (2, 4, 1)],
    "qwen0.5b-v6e-2x4": [(2, 4, 1), (2, 4, 1)],
    "qwen1.5b-v6e": [(1, 8, 1), (1, 8, 1)],
    "qwen7b-v5p": [(4, 4, 1), (4, 4, 1)],
    "sums-v6e-4x4-two-slices": [(4, 4, 2), (4, 4, 1)],
}
"""File -> hosts, chips of a host, slices of each placement."""


def job(file: Path) -> RLTrainingJob:
    return RLTrainingJob.model_validate({"spec": yaml.safe_load(file.read_text(encoding="utf-8"))["spec"]})


def commands(file: Path) -> list[str]:
    """The commands in a file's comments, each in one line."""
    lines = [line[1:].strip() for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return [line for line in re.sub(r" \\\n", " ", "\n".join(lines)).splitlines() if line.startswith("gcloud ")]


def test_the_shapes_are_those_that_the_names_say():
    assert {file.stem for file in EXAMPLES} == set(SHAPES)
    for file in EXAMPLES:
        placements = job(file).spec.placements
        shapes = [placement_shape(placement) for placement in placements]
        found = [(s.hosts, s.chips_per_node, p.slices) for s, p in zip(shapes, placements, strict=True)]
        assert found == SHAPES[file.stem]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_node_pools_in_the_comments_are_those_of_the_placements(file):
    """One pool a slice, on demand ones as well."""
    wanted = []
    for placement in job(file).spec.placements:
        names = [placement.name] if placement.slices == 1 else [f"{placement.name}-{c}" for c in "ab"]
        wanted += [node_pool_command(placement, name) for name in names]
    assert commands(file) == wanted


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_admitted_and_rendered_with_what_a_host_needs(file):
    assert problems(yaml.safe_load(file.read_text(encoding="utf-8"))) == []
    done = CliRunner().invoke(main, ["render", str(file)])
    assert done.exit_code == 0, done.stderr
    _, jobset = yaml.safe_load_all(done.stdout)
    (replicated,) = jobset["spec"]["replicatedJobs"]
    spec, first = replicated["template"]["spec"], job(file).spec.placements[0]
    assert (spec["completions"], replicated["replicas"]) == (placement_shape(first).hosts, first.slices)
    resources = spec["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["google.com/tpu"] == str(placement_shape(first).chips_per_node)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_reserves_what_it_needs_and_writes_to_nobodys_bucket(file):
    """Cloud Storage gives no bucket a name that begins with goog, so a job that is applied as it stands sends nothing
    to a stranger."""
    spec = job(file).spec
    requests = spec.pod_template.resources.requests
    assert requests.cpu
    assert requests.memory
    assert spec.pod_template.service_account_name == "ratchet-trainer"
    places = re.findall(r"gs://([^/\"]+)", file.read_text(encoding="utf-8"))
    assert places
    assert set(places) == {"goog-your-bucket"}


# --- a release --------------------------------------------------------------------------------------------------------

_spec = importlib.util.spec_from_file_location("pin_images", ROOT / "release/pin_images.py")
assert _spec
assert _spec.loader
pin_images = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pin_images)
A, B = "a" * 64, "b" * 64


def of_release() -> bool:
    """Whether this checkout is one: its commit has a version's tag, or somebody says so."""
    if "RATCHET_RELEASE" in os.environ:
        return True
    done = subprocess.run(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return any(re.fullmatch(r"v\d+\.\d+.*", tag) for tag in done.stdout.splitlines())


def texts() -> dict[str, str]:
    return {file.name: file.read_text(encoding="utf-8") for file in pin_images.files()}


def test_a_release_has_no_placeholder_and_a_checkout_no_invented_digest():
    wrong = list(pin_images.unpinned(texts()))
    if of_release():
        assert wrong == []
        return
    images = [image for text in texts().values() for image in pin_images.IMAGE.finditer(text)]
    pinned = {image["digest"] for image in images} - {None, pin_images.PLACEHOLDER}
    assert len(pinned) <= 1, "digests are written by the release, all at once"
    assert bool(wrong) is not bool(pinned)
    assert {image["name"] for image in images} == {"ghcr.io/ratchet-rl/ratchet-trainer"}


def test_pinning_leaves_nothing_to_be_filled_in():
    metadata = json.dumps({"image.name": "ghcr.io/me/ratchet-trainer:0.2.0", "containerimage.digest": f"sha256:{A}"})
    image = pin_images.pushed(metadata)
    after = {name: pin_images.pinned(text, *image) for name, text in texts().items()}
    assert list(pin_images.unpinned(after)) == []
    for file in EXAMPLES:
        assert yaml.safe_load(after[file.name])["spec"]["image"] == f"ghcr.io/me/ratchet-trainer:0.2.0@sha256:{A}"
    assert yaml.safe_load(after["values.yaml"])["trainer"]["image"].endswith(A)
    again = {name: pin_images.pinned(text, *image[:2], B) for name, text in after.items()}
    assert list(pin_images.unpinned(again)) == [], "the next release replaces the digest of this one"


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("r/ratchet-trainer:1", "has no digest"),
        ("r/ratchet-trainer:1@sha256:FILLED-AT-RELEASE", "has no digest"),
        (f"r/ratchet-trainer:1@sha256:{A[:-1]}", "has no digest"),
        (f"r/ratchet-trainer:1@sha256:{B}", "is another image than that of first"),
    ],
)
def test_what_is_no_release_is_named(image, words):
    (said,) = pin_images.unpinned({"first": f"image: r/ratchet-trainer:1@sha256:{A}", "second": f"image: {image}"})
    assert said.startswith("second: ")
    assert words in said


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ("", "no metadata of an image"),
        ("[]", "no metadata of an image"),
        (json.dumps({"image.name": "r/ratchet-trainer:1"}), "build with --push"),
        (json.dumps({"image.name": "r/other:1", "containerimage.digest": f"sha256:{A}"}), "no ratchet-trainer image"),
        (json.dumps({"image.name": "r/ratchet-trainer", "containerimage.digest": f"sha256:{A}"}), "with a tag"),
        (json.dumps({"image.name": "r/ratchet-trainer:1", "containerimage.digest": "sha256:1234"}), "no SHA-256"),
    ],
)
def test_a_digest_is_never_made_up(metadata, words):
    with pytest.raises(pin_images.NotPinned, match=words):
        pin_images.pushed(metadata)
