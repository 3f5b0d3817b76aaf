"""`ratchet init`: three answers become a manifest that is valid and, on a laptop, trains."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ratchet_api.validate import problems
from ratchet_cli.main import main

ROOT = Path(__file__).parents[2]
LAPTOP = ("--model", "tiny", "--data", "sums", "--where", "laptop")


def init(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["init", *arguments])


def written(file: Path, *arguments: str) -> dict[str, Any]:
    done = init(str(file), *arguments)
    assert done.exit_code == 0, done.output
    said: dict[str, Any] = yaml.safe_load(file.read_text())
    assert problems(said) == []
    return said


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen/config.json").write_text("{}")
    return str(tmp_path / "qwen")


@pytest.fixture
def data(tmp_path: Path) -> str:
    lines = [{"question": f"What is 1 + {i}?", "answer": i + 1} for i in range(9)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(tmp_path / "train.jsonl")


@pytest.mark.parametrize("where", ["laptop", "v5e-2x2", "v6e-2x4", "v6e-2x4:8", "v5p-2x2x4", "v4-2x2x1"])
@pytest.mark.parametrize("what", ["sums", "chain_sum", "file"])
@pytest.mark.parametrize("which", ["tiny", "folder", "gs://bucket/models/qwen"])
def test_every_answer_makes_a_valid_manifest(tmp_path, model, data, where, what, which):
    asked = ("--model", model if which == "folder" else which, "--data", data if what == "file" else what)
    said = written(tmp_path / "my job.yaml", *asked, "--where", where)
    assert said["metadata"]["name"] == "my-job"
    places = [p.get("capacity") for p in said["spec"]["placements"]]
    assert places == ([None] if where == "laptop" else ["Spot", "OnDemand"])
    if where == "v6e-2x4":
        assert said["spec"]["placements"][0]["chipsPerNode"] == 4


def test_the_commands_in_its_comments_name_the_file(tmp_path):
    file = tmp_path / "first.yaml"
    written(file, *LAPTOP)
    text = file.read_text()
    for command in ("explain", "train", "report", "samples"):
        assert f"ratchet {command} {file}" in text
    assert "FILE" not in text


def test_lengths_follow_from_the_data(tmp_path, data):
    rl = written(tmp_path / "a.yaml", "--model", "tiny", "--data", data, "--where", "laptop")["spec"]["stages"][1]["rl"]
    assert rl["maxPromptTokens"] >= len("What is 1 + 8?")
    assert rl["maxPromptTokens"] < 64


def test_what_is_there_is_left_alone(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("mine")
    done = init(str(file), *LAPTOP)
    assert (done.exit_code, file.read_text()) == (os.EX_CANTCREAT, "mine")
    assert "is there already, and is left alone; name another file" in done.stderr
    (tmp_path / "link.yaml").symlink_to(tmp_path / "nowhere")
    assert init(str(tmp_path / "link.yaml"), *LAPTOP).exit_code == os.EX_CANTCREAT
    done = init(str(tmp_path / "no/job.yaml"), *LAPTOP)
    assert done.exit_code == os.EX_CANTCREAT
    assert "name a file that can be written" in done.stderr


def test_where_nobody_can_be_asked_the_missing_answers_are_named(tmp_path):
    done = init(str(tmp_path / "job.yaml"), "--data", "sums")
    assert done.exit_code == os.EX_USAGE
    assert "say --model, --where (for example --model tiny --where laptop)" in done.stderr
    assert not (tmp_path / "job.yaml").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("--model", "./nowhere", "no such folder; say tiny, a folder with config.json"),
        ("--model", ".", "has no config.json"),
        ("--model", "gs://b/x", "no bucket's name"),
        ("--data", "chain_sums", "did you mean chain_sum"),
        ("--data", "none.jsonl", "no such file; say sums"),
        ("--data", "data.csv", "neither a .jsonl nor a .parquet file"),
        ("--where", "cloud", "say laptop, or a TPU slice of GKE as TYPE-TOPOLOGY"),
        ("--where", "v6e-3x3", "tpu-v6e-slice has no slice 3x3"),
        ("--where", "v6e-2x2:3", "machines of 1 or 4 or 8 chips"),
        ("--checkpoints", "/x", "write gs://BUCKET/NAME"),
    ],
)
def test_an_answer_that_cannot_be_meant_is_refused_with_what_could(tmp_path, key, value, words):
    done = init(str(tmp_path / "job.yaml"), *LAPTOP, key, value)
    assert done.exit_code == os.EX_USAGE
    assert words in done.stderr
    assert not (tmp_path / "job.yaml").exists()


def test_a_file_with_other_keys_is_told_with_its_keys(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"q": "1 + 1?", "a": {"value": 2}}\n')
    asked = ("--model", "tiny", "--data", str(tmp_path / "a.jsonl"), "--where", "laptop")
    done = init(str(tmp_path / "job.yaml"), *asked)
    assert "an item has no key question; it has q, a. Name them with --question and --answer" in done.stderr
    said = written(tmp_path / "job.yaml", *asked, "--question", "q", "--answer", "a.value")
    assert said["spec"]["datasets"][0]["jsonl"]["answer"] == "a.value"
    (tmp_path / "a.jsonl").write_text("{\n")
    assert "a.jsonl:1: not JSON" in init(str(tmp_path / "b.yaml"), *asked).stderr


def test_in_a_terminal_it_asks_and_asks_again(tmp_path):
    place = os.pathsep.join(str(ROOT / part) for part in ("crds", "operator", "trainer", "cli", "cluster"))
    main_end, child_end = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "ratchet_cli.main", "init", str(tmp_path / "job.yaml")],
        stdin=child_end, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": place},
    )  # fmt: skip
    os.write(main_end, b"\nnothing.csv\nsums\nlaptop\n")
    out, err = child.communicate(timeout=120)
    os.close(main_end)
    os.close(child_end)
    assert child.returncode == 0, err
    assert b"written; next: ratchet train" in out
    assert b"neither a .jsonl nor a .parquet file" in err
    assert problems(yaml.safe_load((tmp_path / "job.yaml").read_text())) == []


def test_the_laptop_s_manifest_trains(tmp_path):
    file = tmp_path / "job.yaml"
    written(file, *LAPTOP)
    asked = [
        "train",
        str(file),
        "--workdir",
        str(tmp_path / "run"),
        "--until-step",
        "2",
        "--json",
        str(tmp_path / "r.json"),
    ]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "r.json").read_text())["step"] >= 2
