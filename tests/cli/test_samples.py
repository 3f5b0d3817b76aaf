"""`ratchet samples`: where a run's rollouts are found, and how one looks in a terminal of any width."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from ratchet_cli import sample_view
from ratchet_cli.main import main
from ratchet_cli.samples import in_words
from ratchet_cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
LONG = "Because the sum of two and three is five, and five is what was asked for, the answer is 5. " * 8


def rollout(**changes: Any) -> dict[str, Any]:
    return {
        "step": 3,
        "stage": "reason",
        "item": 7,
        "place": "data set sums, item 7",
        "draw": 9,
        "sample": 2,
        "prompt": "What is 2 + 3?",
        "response": "2 + 3 = 5",
        "tokens": 9,
        "finish": "end",
        "extracted": "2 + 3 = 5",
        "expected": "5",
        "accuracy": 0.0,
        "score": 0.0,
        "status": "ok",
        "reward": 0.25,
        "parts": {"accuracy": 0.0, "short": 0.25},
        "disposition": "all_wrong",
        "edit": None,
        **changes,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with the samples of steps 1 and 3."""
    (tmp_path / "samples").mkdir()
    right = rollout(
        step=3,
        item=8,
        place="data set sums, item 8",
        accuracy=1.0,
        extracted="5",
        response="5",
        reward=1.0,
        disposition="trained",
    )
    for step, lines in {1: [rollout(step=1)], 3: [rollout(), right]}.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "samples" / f"{step:08d}.jsonl").write_text(text)
    (tmp_path / "samples" / ".00000004.jsonl.tmp").write_text("half a li")
    return tmp_path


def ratchet(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(main, ["samples", *arguments], env=environment)


def test_the_newest_step_is_shown_whole(folder) -> None:
    done = ratchet(str(folder))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("step 3, stage reason: 2 rollouts kept, 1 wrong\n")
    for words in (
        "data set sums, item 7, sample 2: wrong, reward 0.25",
        "prompt     What is 2 + 3?",
        "response   2 + 3 = 5",
        "extracted  2 + 3 = 5",
        "expected   5",
        "rewards    accuracy 0, short 0.25",
        "ended by   its end token after 9 tokens",
        "fate       all_wrong: ",
    ):
        assert words in done.stdout


def test_a_pipe_gets_no_colors(folder) -> None:
    place = os.pathsep.join(str(ROOT / part) for part in ("crds", "operator", "trainer", "cli", "cluster"))
    command = [sys.executable, "-m", "ratchet_cli.main", "samples", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": place})
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "sample 2" in done.stdout


def test_only_the_wrong_ones_or_a_step_or_json(folder) -> None:
    assert "item 8" not in ratchet(str(folder), "--wrong").stdout
    assert ratchet(str(folder), "--step", "1").stdout.startswith("step 1, ")
    lines = ratchet(str(folder), "--json", "--wrong").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [rollout()]


def test_a_manifest_means_its_working_folder(folder, tmp_path, monkeypatch) -> None:
    file = tmp_path / "job.yaml"
    manifest = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())
    manifest["metadata"]["name"] = "mine"
    file.write_text(yaml.safe_dump(manifest))
    monkeypatch.chdir(tmp_path)
    done = ratchet("job.yaml")
    assert done.exit_code == os.EX_NOINPUT
    assert ".ratchet/mine: no such folder; run `ratchet train job.yaml` here, or say --workdir" in done.stderr
    (tmp_path / ".ratchet").mkdir()
    os.symlink(folder, tmp_path / ".ratchet/mine")
    assert ratchet("job.yaml").stdout.startswith("step 3, ")
    assert ratchet("job.yaml", "--workdir", str(folder)).stdout.startswith("step 3, ")


def test_what_is_not_there_is_said_with_what_is(folder, tmp_path) -> None:
    done = ratchet(str(folder), "--step", "2")
    assert done.exit_code == os.EX_NOINPUT
    assert "none of step 2; there are those of steps 1, 3" in done.stderr
    (empty := tmp_path / "empty").mkdir()
    assert "no samples; a run writes them after its first rl step" in ratchet(str(empty)).stderr
    (folder / "samples" / "00000003.jsonl").write_text("{")
    assert "cannot be read" in ratchet(str(folder)).stderr
    assert in_words(list(range(1, 31))) == "1, 2, 3, ..., " + ", ".join(map(str, range(14, 31)))


@pytest.fixture
def made(api_server: Cluster, namespace: str) -> Callable[..., None]:
    """Applies a job `mine` with this checkpoint, its claim `c`, bound to a volume or not, and the volume."""

    def apply(checkpoint: dict[str, Any], volume: dict[str, Any] | None = None, bound: bool = True) -> None:
        job = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())
        job["metadata"], job["spec"]["checkpoint"] = {"name": "mine", "namespace": namespace}, checkpoint
        size = {"accessModes": ["ReadWriteMany"], "storageClassName": namespace}  # nobody else's volume fits
        claim = {**size, "resources": {"requests": {"storage": "1Gi"}}} | ({"volumeName": namespace} if bound else {})
        objects: list[dict[str, Any]] = [job, of_kind("PersistentVolumeClaim", "c", namespace, claim)]
        if volume is not None:
            spec = {**size, "capacity": {"storage": "1Gi"}, **volume}
            objects.append(of_kind("PersistentVolume", namespace, None, spec))
        api_server.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    return apply


def of_kind(kind: str, name: str, namespace: str | None, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}


def test_a_job_of_the_cluster_is_read_through_its_claim(
    folder, made, namespace, tmp_path, monkeypatch, api_server
) -> None:
    monkeypatch.chdir(tmp_path)
    os.renames(folder / "samples", tmp_path / "volume/jobs/mine/samples")
    made({"directory": "/checkpoints/jobs/mine", "claimName": "c"}, {"hostPath": {"path": str(tmp_path / "volume")}})
    done = ratchet("mine", "-n", namespace, **api_server.env())
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("step 3, ")


@pytest.mark.parametrize(
    ("checkpoint", "volume", "bound", "words"),
    [
        (
            {"directory": "/x/y", "claimName": "c"},
            {"nfs": {"server": "127.0.0.1", "path": "/"}},
            True,
            "is not on this machine; copy the folder samples from /x/y",
        ),
        ({"directory": "/x/y", "claimName": "c"}, None, False, "claim c is not bound to a volume yet"),
    ],
)
def test_what_lies_elsewhere_is_said_with_a_way(
    made, namespace, tmp_path, monkeypatch, api_server, checkpoint, volume, bound, words
) -> None:
    monkeypatch.chdir(tmp_path)
    made(checkpoint, volume, bound)
    done = ratchet("mine", "-n", namespace, **api_server.env())
    assert done.exit_code == os.EX_NOINPUT
    assert words in done.stderr
    assert f"job {namespace}/mine: " in done.stderr


def test_a_name_that_nobody_knows(namespace, tmp_path, monkeypatch, api_server) -> None:
    monkeypatch.chdir(tmp_path)
    done = ratchet("other", "-n", namespace, **api_server.env())
    assert done.exit_code == os.EX_NOINPUT
    assert "no file and no folder other here, and " in done.stderr


@pytest.mark.parametrize("width", [40, 41, 80, 200])
@pytest.mark.parametrize(
    "text", [LONG, "x" * 500, "二加三等于五，" * 40, "a\n\n  b\tc " * 30, "e\N{COMBINING ACUTE ACCENT}" * 200]
)
def test_every_line_fits_the_terminal_and_nothing_is_lost(width, text) -> None:
    lines = sample_view.block(rollout(response=text, prompt=text, expected=text), width)
    plain = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in lines]
    assert max(map(sample_view._columns, plain)) <= width
    shown = "".join(line[sample_view.LABEL :] for line in plain if not line.startswith(("ended", "fate")))
    kept = "".join(text.replace("\t", "").split())
    assert kept in "".join(shown.split()), "white space may move, nothing else"


def test_what_a_model_wrote_cannot_drive_the_terminal() -> None:
    nasty = "\x1b[2J\x1b]0;title\x07right\r\N{RIGHT-TO-LEFT OVERRIDE}5\x00\x9b31m"
    text = "\n".join(sample_view.block(rollout(response=nasty, extracted=nasty, expected=nasty), 80)[1:])
    assert all(c == "\n" or c.isprintable() for c in text)
    assert "\\x1b[2J" in text


def test_the_short_form_leaves_out_the_middle() -> None:
    text = "\n".join(map(str, range(100)))
    lines = sample_view.block(rollout(response=text), 80, short=True)
    shown = [line[sample_view.LABEL :] for line in lines if line[sample_view.LABEL :].strip(".").isdigit()]
    assert "0" in shown
    assert "99" in shown
    assert any("... 89 lines ..." in line for line in lines)


def test_failures_of_a_verifier_are_said_in_words() -> None:
    assert "the verifier took too long" in "\n".join(sample_view.block(rollout(status="timeout"), 100))
    lines = "\n".join(sample_view.block(rollout(extracted=None, response="", finish="length"), 100))
    assert "extracted  (nothing)" in lines
    assert "response   (empty)" in lines
    assert "the length limit" in lines
