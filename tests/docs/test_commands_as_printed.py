"""Each command of README and docs/ works as printed: it is run, or its words are checked and the table says why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_words import wrong
from documented import Command, commands, mentioned
from how_commands_run import ROWS, Row, Way, row_of

from ratchet_cluster.build import ensure_binaries
from ratchet_cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
PRINTED = commands(ROOT)
MENTIONED = mentioned(ROOT)
OF_README = [command for command in MENTIONED if command.page == "README.md"]


def runs(way: Way) -> list[pytest.param]:
    """The different commands of a way, each once, in the order of the pages."""
    found: dict[str, tuple[Command, Row]] = {}
    for command in [*PRINTED, *OF_README]:
        row = row_of(command.text)
        if row is not None and row.way == way:
            found.setdefault((row.run or "{}").replace("{}", command.text), (command, row))
    return [pytest.param(text, id=f"{command}: {text}"[:80]) for text, (command, _) in found.items()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what commands touch, with `ratchet` and the tools of the cluster on the PATH."""
    folder = tmp_path_factory.mktemp("as-printed")
    for part in ("examples", "helm"):
        shutil.copytree(ROOT / part, folder / part)
    (folder / "tests").symlink_to(ROOT / "tests")
    shutil.copy(ROOT / "examples/minimal.yaml", folder / "job.yaml")
    programs = folder / "programs"
    programs.mkdir()
    for name, line in {"ratchet": f'exec {sys.executable} -m ratchet_cli.main "$@"', "less": "exec cat"}.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    return folder


def run(text: str, place: Path, **more: str) -> None:
    path = os.pathsep.join([str(place / "programs"), str(ensure_binaries()), os.environ["PATH"]])
    packages = os.pathsep.join(str(ROOT / part) for part in ("crds", "operator", "trainer", "cli", "cluster"))
    env = os.environ | {"PATH": path, "PYTHONPATH": packages, "BUCKET": "a-bucket", "REGION": "r", "PROJECT_ID": "p"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", text], cwd=place, env=env | more, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{text}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"


def test_every_printed_command_has_a_row() -> None:
    lacking = [f"{command}: {command.text}" for command in [*PRINTED, *OF_README] if row_of(command.text) is None]
    assert lacking == [], "add a row to tests/docs/how_commands_run.py, and prefer one that runs it"
    assert len(PRINTED) > 50


def test_what_is_not_run_says_why() -> None:
    assert [row.pattern for row in ROWS if row.way == Way.READ and not row.note] == []


@pytest.mark.parametrize("command", [*PRINTED, *MENTIONED], ids=lambda command: f"{command}: {command.text}"[:80])
def test_the_words_of_a_command_exist(command: Command) -> None:
    assert [said for words in command.simple() if (said := wrong(words)) is not None] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ratchet trane job.yaml", "main has no trane"),
        ("ratchet train job.yaml --until-stop 3", "No such option"),
        ("ratchet samples a.yaml b.yaml", "['b.yaml'] is too much"),
        ("ratchet crd --format toml", "'toml' is not one of"),
        ("make dmo", "No rule to make target"),
        ("kubectl gett rlj", "kubectl has no gett"),
        ("kubectl get rlj --wach", "kubectl get has no --wach"),
        ("helm install r helm/ratchet --namespase x", "helm install has no --namespase"),
        ("python bench/nothing.py", "there is no bench/nothing.py"),
        ("pip install 'ratchet-rl[gpu]'", "there is no extra gpu"),
    ],
)
def test_a_word_that_means_nothing_is_seen(text: str, said: str) -> None:
    (words,) = Command("page", 1, text).simple()
    found = wrong(words)
    assert found is not None
    assert said in found


@pytest.mark.timeout(900)  # the first one trains for half a minute where nothing else runs
@pytest.mark.parametrize("text", runs(Way.HERE))
def test_it_runs_here_as_printed(text: str, place: Path) -> None:
    run(text, place)


@pytest.fixture(scope="module")
def kubeconfig(api_server: Cluster, place: Path) -> Path:
    """The administrator's kubeconfig with a namespace of its own, in which nothing runs."""
    file = place / "kubeconfig"
    shutil.copy(api_server.kubeconfig, file)
    run("kubectl create namespace as-printed", place, KUBECONFIG=str(file))
    run("kubectl config set-context --current --namespace as-printed", place, KUBECONFIG=str(file))
    return file


@pytest.mark.parametrize("text", runs(Way.CLUSTER))
def test_it_runs_against_the_api_server_as_printed(text: str, place: Path, kubeconfig: Path) -> None:
    run(text, place, KUBECONFIG=str(kubeconfig))


@pytest.mark.parametrize(
    "command", [c for c in [*PRINTED, *MENTIONED] if c.text.startswith("make ")], ids=lambda command: f"{command}"
)
def test_a_printed_make_command_gives_what_its_target_insists_on(command: Command) -> None:
    """`make release` pushed images and then ended with an error where docs/gke.md called it."""
    targets = dict(re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE))

    def insists(target: str) -> set[str]:
        recipe = targets.get(target, "")
        called = re.findall(r"^\t@?\$\(MAKE\)(?: --\S+)* (\S+)", recipe, re.MULTILINE)
        asked = re.findall(r"test -n '\$\((\w+)\)'", recipe)
        return set(asked).union(*map(insists, called))

    for words in command.simple():
        if words[0] == "make":
            given = {word.partition("=")[0] for word in words if "=" in word}
            assert set().union(*map(insists, words[1:])) <= given
