"""What a tired reader types or meets: files that are none, readers that are gone, disks that are full, two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from jobs_in_a_cluster import create

from ratchet_cli import patience
from ratchet_cli.kube import KubeError, connect, jobs
from ratchet_cli.kube.errors import refused
from ratchet_cli.main import main

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "ratchet_cli.main")
ASKS = ("status", "watch", "top", "logs", "suspend", "resume", "approve", "report", "samples", "curve", "doctor")


def said(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.stderr


@pytest.mark.parametrize("command", ASKS)
def test_whatever_asks_a_cluster_is_told_which_in_the_same_words(command: str) -> None:
    """`-n`, `--namespace` and `--context`, as docs/command-line.md promises."""
    options = {name for one in main.get_command(None, command).params for name in one.opts}  # type: ignore[arg-type]
    assert {"-n", "--namespace", "--context"} <= options


def test_a_context_that_there_is_not_is_said_so_by_report(ratchet) -> None:
    for command in ("report", "samples", "curve"):
        done = ratchet(command, "sums", "--context", "elsewhere")
        assert done.exit_code == os.EX_UNAVAILABLE
        assert "elsewhere" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["validate", "render", "explain", "doctor", "report"])
def test_a_file_that_cannot_be_read_is_told_in_words(command: str, tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xb4")
    cases = {"none.yaml": "no such file or directory", "bytes.yaml": "it is not text in UTF-8 (byte 4)"}
    for name, words in cases.items():
        code, lines = said(command, str(tmp_path / name))
        assert code == os.EX_NOINPUT
        assert lines == f"{tmp_path / name}: cannot be read: {words}; name the file of a manifest\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("3", "spec: must be a mapping of fields, this is 3"),
        ("{model: tiny}", "spec.model: must be a mapping of fields, this is 'tiny'"),
        ("{stages: {name: a}}", "spec.stages: must be a list, this is {'name': 'a'}"),
        ("{podTemplate: {labels: [a]}}", "spec.podTemplate.labels: must be a mapping of fields, this is ['a']"),
    ],
)
def test_a_value_of_another_kind_is_told_in_words(spec: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(f"apiVersion: ratchet.dev/v1alpha1\nkind: RLTrainingJob\nmetadata: {{name: a}}\nspec: {spec}\n")
    code, lines = said("validate", str(file))
    assert code == os.EX_DATAERR
    assert words in lines
    assert "valid dictionary" not in lines


@pytest.mark.parametrize("command", [("crd",), ("examples",), ("render", "examples/sums.yaml"), ("completion", "bash")])
def test_a_reader_that_is_gone_ends_a_command_as_it_ends_every_program(command: tuple[str, ...]) -> None:
    assert unread(*command) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("command", ["status", "top", "status sums", "status sums -o json", "watch", "watch sums"])
def test_a_reader_of_jobs_that_is_gone_ends_the_command_alike(command: str, api_server, namespace) -> None:
    create(api_server, namespace)
    assert unread(*command.split(), "-n", namespace, **api_server.env()) == (128 + signal.SIGPIPE, "")


def unread(*command: str, **env: str) -> tuple[int, str]:
    """Code and words of a command whose output nobody reads. The code should be that of SIGPIPE: 1 has a meaning of its
    own in `watch --until` and `doctor`."""
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(
        [*PROGRAM, *command], cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, text=True, env=os.environ | env
    )
    os.close(theirs)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("command", [("crd",), ("examples",), ("completion", "bash")])
def test_a_full_disk_is_one_line(command: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*PROGRAM, *command], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == os.EX_IOERR
    assert done.stderr == "the output cannot be written: No space left on device; write it to another place\n"


def test_of_two_approvals_at_once_none_is_lost(api_server, namespace, ratchet) -> None:
    create(api_server, namespace)
    with connect(namespace) as kube:
        seen = jobs.get(kube, "sums")
        jobs.approve(kube, seen, "warm-up")
        after = jobs.approve(kube, seen, "reason")  # as read before the first one
        again = jobs.approve(kube, seen, "warm-up")
    for job in (after, again):
        assert [entry["stage"] for entry in job["spec"]["approvals"]] == ["warm-up", "reason"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("Complete", "Complete: no job has such a phase or condition; did you mean Completed?"),
        ("Nonsense", "Nonsense: no job has such a phase or condition; there are phase, Accepted, Placed, "),
        ("phase=Runing", "Runing: no job has such a phase; did you mean Running?"),
        ("phase", "'phase': say a condition such as Completed or Learning=False, or phase=Running"),
        (
            "Placed=WaitingForQuotas",
            "WaitingForQuotas: no job has such a status or reason of Placed; did you mean WaitingForQuota?",
        ),
    ],
)
def test_what_no_job_ever_says_is_not_waited_for(wanted: str, words: str) -> None:
    code, lines = said("watch", "sums", "--until", wanted)
    assert code == os.EX_USAGE
    assert lines.startswith(f"--until {words}")


def test_who_may_not_change_is_not_told_to_ask_for_a_role_that_reads() -> None:
    for what, role in (("read /a", "view"), ("change /a", "edit"), ("create /a", "edit")):
        assert str(refused("the cluster", what, 403, b"{}")).endswith(f"; ask for a role that may, for example {role}")


@pytest.mark.parametrize("watched", [True, False])
def test_who_waits_at_a_terminal_is_told_what_for(watched: bool, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(patience, "SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: watched)
    seen = ""
    with patience.patience("asking"):
        for _ in range(1000 if watched else 20):
            seen += capsys.readouterr().err
            if seen:
                break
            time.sleep(0.01)
    assert seen == ("asking ...\n" if watched else "")


def test_the_hint_of_a_cluster_that_was_started_leads_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to the cluster of the default folder, which `ratchet cluster env` without --dir is about."""
    monkeypatch.setattr("ratchet_cluster.cluster.Cluster.up", lambda *_, **__: None)
    _, lines = said("cluster", "--dir", str(tmp_path / "a b"), "up")
    assert lines == f"use it: eval \"$(ratchet cluster --dir '{tmp_path / 'a b'}' env)\" && kubectl get nodes\n"
    assert said("cluster", "up")[1] == 'use it: eval "$(ratchet cluster env)" && kubectl get nodes\n'


class Old:
    """A cluster whose definition lacks the fields that are set: it stores the rest, and says nothing."""

    namespace, place = "team", "the cluster"

    def patch(self, *_: object) -> dict:
        return {"metadata": {"name": "sums", "resourceVersion": "2"}, "spec": {"stages": [{"name": "warm-up"}]}}


def test_a_change_that_an_older_definition_drops_is_not_reported_as_done() -> None:
    job = {"metadata": {"name": "sums", "resourceVersion": "1"}, "spec": {"stages": [{"name": "warm-up"}]}}
    with pytest.raises(KubeError, match=r"has dropped spec\.approvals: its definition .* is older; install the chart"):
        jobs.approve(Old(), job, "warm-up")  # type: ignore[arg-type]
    with pytest.raises(KubeError, match=r"has dropped spec\.suspend"):
        jobs.suspend(Old(), "sums", True)  # type: ignore[arg-type]
