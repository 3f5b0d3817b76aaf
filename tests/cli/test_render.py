"""`ratchet render`: the objects of a first attempt, printed without contacting anything."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from click.testing import CliRunner

from ratchet_cli.main import main

EXAMPLES = Path(__file__).parents[2] / "examples"


def render(*arguments: str):
    return CliRunner().invoke(main, ["render", *arguments])


def test_the_objects_of_an_example():
    done = render(str(EXAMPLES / "minimal.yaml"), "--namespace", "team", "--image", "trainer:7")
    assert done.exit_code == 0, done.stderr
    config_map, jobset = yaml.safe_load_all(done.stdout)
    assert (config_map["kind"], config_map["metadata"]["name"]) == ("ConfigMap", "minimal-a1-job")
    assert (jobset["kind"], jobset["metadata"]["namespace"]) == ("JobSet", "team")
    pod = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "trainer:7"


def test_every_example_can_be_rendered():
    for path in sorted(EXAMPLES.rglob("*.yaml")):
        done = render(str(path))
        assert done.exit_code == 0, f"{path}: {done.stderr}"
        rollouts = yaml.safe_load(path.read_text())["spec"].get("rollouts")
        gangs = 1 + (rollouts["workers"]["max"] if rollouts is not None else 0)  # the trainer's, and each worker's
        assert [o["kind"] for o in yaml.safe_load_all(done.stdout)] == ["ConfigMap", "JobSet"] * gangs


def test_a_suspended_job_shows_what_would_be_created(tmp_path):
    manifest = yaml.safe_load((EXAMPLES / "minimal.yaml").read_text())
    manifest["spec"]["suspend"] = True
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(manifest))
    assert "kind: JobSet" in render(str(path)).stdout


def test_what_would_be_refused_is_said_instead(tmp_path):
    manifest = yaml.safe_load((EXAMPLES / "minimal.yaml").read_text())
    manifest["spec"]["podTemplate"] = {"env": [{"name": "NPROC", "value": "64"}]}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(manifest))
    done = render(str(path))
    assert done.exit_code == os.EX_DATAERR
    assert "spec.podTemplate.env[0].name" in done.stderr
    assert "requests.cpu" in done.stderr
