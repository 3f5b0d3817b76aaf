"""The images: what the Dockerfile says, and the processes started from what it installs and nothing else."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
import urllib.request
from functools import partial
from pathlib import Path

import clean_root
import pytest

from ratchet_cluster.cluster import Cluster

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
LINES = (ROOT / "Dockerfile").read_text().splitlines()
TARGETS = {"operator": "operator", "trainer": "tpu", "trainer-cpu": "trainer"}
"""Target -> the extra that it installs."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and another user's rights need root")


def stage(name: str) -> list[str]:
    """The lines of a stage, with those of the stages that it is made from."""
    start = next(i for i, line in enumerate(LINES) if re.fullmatch(rf"FROM \S+ AS {name}", line))
    end = next((i for i in range(start + 1, len(LINES)) if LINES[i].startswith("FROM ")), len(LINES))
    base = LINES[start].split()[1]
    before = stage(base) if any(line.endswith(f" AS {base}") for line in LINES) else []
    return before + LINES[start:end]


@pytest.mark.parametrize("target", TARGETS)
def test_every_image_runs_without_rights_and_says_what_it_is(target: str):
    lines = stage(target)
    assert "USER 10001:10001" in lines, "a number: Kubernetes cannot tell that a name is not root"
    text = "\n".join(lines)
    for label in ("title", "licenses", "source", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in text
    packages = stage(f"{target}-packages")
    assert any(line.endswith(f'[{TARGETS[target]}]"') for line in packages)


def test_what_goes_into_the_build_is_listed():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in allowed)
    assert not allowed & {"tests", ".git", "docs", ".venv"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_root.wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def operator_packages(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_root.install(built, "operator", tmp_path_factory.mktemp("operator"))


@needs_root
def test_the_operator_works_from_its_image_alone(
    operator_packages: Path, api_server: Cluster, namespace: str, tmp_path: Path
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(api_server.kubectl("config", "view", "--raw", "--flatten"))
    for folder in (tmp_path, tmp_path / "root"):
        folder.mkdir(exist_ok=True)
    command = clean_root.command(
        operator_packages, tmp_path / "root", "sh", "-c", 'cat > /tmp/kubeconfig && exec ratchet operator',
        KUBECONFIG="/tmp/kubeconfig", RATCHET_POD_IP="127.0.0.1", RATCHET_METRICS_PORT=str(port),
        RATCHET_OPERATOR_NAMESPACE=namespace, RATCHET_WATCH_NAMESPACES=namespace,
    )  # fmt: skip
    log = tmp_path / "log"
    with open(log, "wb") as output, open(kubeconfig, "rb") as given:
        process = subprocess.Popen(command, stdin=given, stdout=output, stderr=subprocess.STDOUT)
    try:
        said = until_it_leads(process, port, log)
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert 'ratchet_build_info{version="' in said


def until_it_leads(process: subprocess.Popen[bytes], port: int, log: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as page:
                said = page.read().decode()
        except OSError:
            said = ""
        if "ratchet_leader 1.0" in said:
            return str(said)
        time.sleep(0.1)
    pytest.fail(f"it does not lead: {log.read_text()[-3000:]}")


@needs_root
def test_an_image_cannot_be_written_to(operator_packages: Path, tmp_path: Path):
    (tmp_path / "root").mkdir()
    command = clean_root.command(
        operator_packages, tmp_path / "root", "sh", "-c", f"touch {operator_packages}/x; touch /x"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr.count("Read-only file system") + done.stderr.count("Permission denied") == 2


def test_chart_and_examples_are_in_the_wheel(operator_packages: Path, tmp_path: Path):
    ratchet = operator_packages / "bin/ratchet"
    listed = subprocess.run([ratchet, "examples"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert "sums" in listed.stdout.split()
    copied = subprocess.run(
        [ratchet, "examples", "sums", "--to", "my.yaml"], capture_output=True, text=True, cwd=tmp_path
    )
    assert copied.returncode == 0, copied.stderr
    again = subprocess.run(
        [ratchet, "examples", "sums", "--to", "my.yaml"], capture_output=True, text=True, cwd=tmp_path
    )
    assert again.returncode == os.EX_CANTCREAT
    assert "File exists" in again.stderr
    good = subprocess.run([ratchet, "validate", "my.yaml"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert good.returncode == 0, good.stderr
    packages = next((operator_packages / "lib").glob("python3*")) / "site-packages"
    chart = subprocess.run([ratchet, "chart"], capture_output=True, text=True, cwd=tmp_path, timeout=60).stdout.strip()
    assert Path(chart) == packages / "ratchet_cli/chart"
    assert (Path(chart) / "files/dashboards/fleet.json").is_file()


def test_examples_in_the_wheel_have_their_files(operator_packages: Path, tmp_path: Path):
    ratchet = operator_packages / "bin/ratchet"
    listed = subprocess.run([ratchet, "examples"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert {f"{path.relative_to(ROOT / 'examples').with_suffix('')}" for path in EXAMPLES} == set(names)
    command = [ratchet, "examples", "recipes/scaffold", "--to", "job.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    for file in ("data/sums.jsonl", "steps/steps.py"):
        assert (tmp_path / file).read_bytes() == (ROOT / "examples/recipes" / file).read_bytes()


@pytest.mark.soak  # all packages, and minutes of a cluster
@pytest.mark.timeout(1800)
def test_the_demo_runs_from_the_wheel(built: Path, tmp_path: Path):
    packages = clean_root.install(built, "local", tmp_path / "local")
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    variables = kept | {"PATH": f"{packages}/bin:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    run = partial(subprocess.run, capture_output=True, text=True, cwd=outside, env=variables)
    assert str(packages) in run(["ratchet", "chart"]).stdout, "the package, not the checkout"
    done = run(["ratchet", "demo", "--json", "demo.json"], timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = json.loads((outside / "demo.json").read_text())
    assert found["weightsSha256"] == found["undisturbedSha256"]
    copied = run(["ratchet", "examples", "methods/sgpo", "--to", "sgpo.yaml"])
    assert copied.returncode == 0, copied.stderr
    trained = run(["ratchet", "train", "sgpo.yaml", "--until-step", "2"], timeout=300)
    assert trained.returncode == 0, trained.stderr


@pytest.fixture(scope="module")
def trainer_packages(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clean_root.install(built, "trainer", tmp_path_factory.mktemp("trainer"))


@pytest.mark.soak  # half a gigabyte of packages
@pytest.mark.timeout(1500)
@needs_root
def test_a_trainer_trains_from_its_image_alone(trainer_packages: Path, tmp_path: Path):
    (tmp_path / "root").mkdir()
    command = clean_root.command(
        trainer_packages, tmp_path / "root", "sh", "-c",
        "ratchet examples minimal > /tmp/job.yaml && ratchet train /tmp/job.yaml --workdir /tmp/run --until-step 3",
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "step" in done.stdout
