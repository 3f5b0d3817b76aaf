"""The commands as a user calls them: output, errors that name the place, exit codes of sysexits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/sums.yaml"
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
LARGE = "methods", "recipes"  # test_examples.py trains these
TRAINABLE = [
    "README.md",
    *(f.name for f in EXAMPLES if f.parent.name not in LARGE and "preset:" in f.read_text()),
]


def ratchet(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ratchet_cli.main", *arguments], input=stdin, capture_output=True, text=True
    )


def test_every_command_explains_itself():
    listed = ratchet("--help").stdout
    for command in (
        "demo",
        "cluster",
        "train",
        "prove",
        "objective",
        "validate",
        "render",
        "crd",
        "operator",
        "trainer",
    ):
        assert command in listed
        done = ratchet(command, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


def test_every_example_is_valid():
    done = ratchet("validate", *map(str, sorted((ROOT / "examples").rglob("*.yaml"))))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", TRAINABLE)
def test_every_example_trains(tmp_path, example):
    """On one process, as far as the first step: data, lengths and shapes fit."""
    file = next((ROOT / "examples").rglob(example)) if example != "README.md" else tmp_path / "job.yaml"
    if example == "README.md":
        file.write_text((ROOT / "README.md").read_text().split("```yaml\n")[1].split("```")[0])
    done = ratchet("train", str(file), "--processes", "1", "--until-step", "1", "--workdir", str(tmp_path / "work"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("step 1, ")


def test_the_processors_of_one_process_may_count_as_several_devices(tmp_path):
    found = tmp_path / "result.json"
    where = "--processes", "1", "--until-step", "1", "--workdir", str(tmp_path / "work"), "--json", str(found)
    done = ratchet("train", str(ROOT / "examples" / "sums.yaml"), "--devices", "2", *where)
    assert done.returncode == 0, done.stderr
    assert "1 process of 2 devices" in done.stderr
    assert json.loads(found.read_text())["devices"] == 2
    (digests,) = (tmp_path / "work" / "steps").glob("*/digests.json")
    assert '"mesh":{"data":2,' in digests.read_text()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", os.EX_DATAERR, "no manifest"),
        ("a: [", os.EX_DATAERR, "-:1: not YAML: while parsing a flow node, expected"),
        ("a: b\nc:\n\t- d", os.EX_DATAERR, "-:3: not YAML: while scanning for the next token, found character"),
        ("a: b\nc: *d", os.EX_DATAERR, "-:2: not YAML: found undefined alias 'd'"),
        ("a: b\nc: \x07", os.EX_DATAERR, "-:2: not YAML: character 0x7 cannot be in it"),
        ("a: !!python/name:os.system x", os.EX_DATAERR, "-:1: not YAML: could not determine a constructor"),
        ("a: b\nc: {d: 1, e: 2, d: 3}", os.EX_DATAERR, "-:2: d stands in line 2, too; leave out one of the two"),
        ("a: b\nc: d\na: e", os.EX_DATAERR, "-:3: a stands in line 1, too; leave out one of the two"),
        ("a: 2026-13-45", os.EX_DATAERR, "not YAML: month must be in 1..12"),
        pytest.param("[" * 20_000, os.EX_DATAERR, "nested too deeply", id="deep"),
        pytest.param(
            "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
            os.EX_DATAERR,
            ":1: its aliases stand for over 1000000 values; write out what is meant",
            id="aliases of aliases",
        ),
        pytest.param("a: &a [*a]", os.EX_DATAERR, ":1: its aliases stand for", id="an alias in itself"),
        ("- 1", os.EX_DATAERR, "a manifest is a mapping"),
        ("kind: Job", os.EX_DATAERR, "RLTrainingJob"),
    ],
)
def test_what_is_no_manifest_is_refused(text, code, words):
    done = ratchet("validate", "-", stdin=text)
    assert done.returncode == code
    assert words in done.stderr
    assert "not YAML" not in done.stderr or done.stderr.count("\n") == 1


def test_errors_name_file_line_and_path(tmp_path):
    manifest = yaml.safe_load(EXAMPLE.read_text())
    manifest["spec"]["sead"] = 1
    file = tmp_path / "job.yaml"
    text = "# a comment\n\n" + yaml.safe_dump(manifest)
    file.write_text(text)
    line = next(number for number, words in enumerate(text.splitlines(), 1) if words.startswith("  sead:"))
    done = ratchet("validate", str(file))
    assert done.returncode == os.EX_DATAERR
    assert f"{file}:{line}: spec.sead: unknown field; did you mean seed?" in done.stderr
    (row,) = json.loads(ratchet("validate", "--json", str(file)).stdout)
    assert row["path"] == "spec.sead"


def test_a_file_that_is_not_there_is_said_so():
    done = ratchet("validate", "nowhere.yaml")
    assert done.returncode == os.EX_NOINPUT
    assert "nowhere.yaml" in done.stderr


def test_a_damaged_step_is_no_success(tmp_path):
    """Also where nothing has to be done, as the step is there."""
    train = ["train", str(ROOT / "examples/minimal.yaml"), "--workdir", str(tmp_path / "work"), "--until-step", "1"]
    assert ratchet(*train).returncode == 0
    (control,) = (tmp_path / "work" / "steps").glob("1-*/control.json")
    control.write_bytes(control.read_bytes()[:50])
    done = ratchet(*train)
    assert (done.returncode, done.stdout) == (os.EX_DATAERR, ""), done.stderr
    assert f"{tmp_path}/work: step 1 is there, but it is damaged or another job's; leave --until-" in done.stderr
    assert "Traceback" not in done.stderr


WITHOUT = "import sys; sys.modules['tensorstore'] = None; from ratchet_cli.main import main; main(sys.argv[1:])"


@pytest.mark.parametrize("command", ["train", "prove"])
def test_a_bucket_without_the_library_is_said_in_a_line(tmp_path, command):
    arguments = [command, str(EXAMPLE), "--workdir", str(tmp_path / "work"), "--directory", "gs://bucket/x"]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True)
    assert done.returncode in (os.EX_DATAERR, os.EX_IOERR)
    assert "gs:// needs the package tensorstore" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_a_store_that_is_none_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = ratchet("train", str(EXAMPLE), "--workdir", str(tmp_path / "work"), "--directory", "s3://bucket/x")
    assert done.returncode == os.EX_DATAERR, done.stderr
    assert "AWS_ENDPOINT_URL is an address such as https://HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["train"], ["prove"], ["objective", "check"], ["model", "check"], ["demo"]])
def test_a_file_for_results_is_tried_before_the_work(tmp_path, command):
    """A run of hours would end in a traceback."""
    argument = [str(EXAMPLE)] if command != ["demo"] else []
    done = ratchet(*command, *argument, "--json", str(tmp_path / "absent" / "result.json"))
    assert done.returncode == 2
    assert f"{tmp_path}/absent/result.json: No such file or directory; name a file that can be written" in done.stderr
    assert done.stdout == ""


def test_the_crd_is_printed_as_the_repository_holds_it():
    assert ratchet("crd").stdout == (ROOT / "crds/rltrainingjobs.ratchet.dev.yaml").read_text()


def test_rendered_objects_are_the_ones_of_the_first_attempt():
    done = ratchet("render", str(EXAMPLE))
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    (jobset,) = [d for d in documents if d["kind"] == "JobSet"]
    assert jobset["metadata"]["name"] == "sums-a1"
    assert jobset["spec"].get("failurePolicy", {}).get("maxRestarts", 0) == 0
