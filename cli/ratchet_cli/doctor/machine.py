"""What `ratchet demo` and `ratchet train` need of this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata

from ratchet_cli import shipped
from ratchet_cli.doctor.check import Check, error, ok, warning

AREA = "this machine"
OLDEST_PYTHON = (3, 11)
FREE_GB = 4
"""Of the disk with the user's cache: the control plane's sources, build cache and programs."""
PARTS = (
    # module, distribution, what needs it, extra
    ("jax", "jax", "`ratchet train` and the demo", "trainer"),
    ("tensorstore", "tensorstore", "checkpoints", "trainer"),
    ("reasoning_gym", "reasoning-gym", "the examples' data", "trainer"),
    ("kopf", "kopf", "the operator in the demo", "operator"),
    ("kubernetes", "kubernetes", "the operator in the demo", "operator"),
    ("cryptography", "cryptography", "the local cluster's certificates", "local"),
)


def checks() -> list[Check]:
    """All of them."""
    return [_python(), *_packages(), _control_plane(), *_git(), _disk(), *_system()]


def tools() -> list[Check]:
    """kubectl and helm, which a cluster is asked with."""
    return [
        _tool("kubectl", ("version", "--client", "-o", "yaml"), "gitVersion:", "error"),
        _tool("helm", ("version", "--short"), "", "warning"),
    ]


def _tool(name: str, arguments: tuple[str, ...], sign: str, otherwise: str) -> Check:
    program = shutil.which(name)
    way = f'install {name}, or eval "$(ratchet cluster env)", which brings the one of the local cluster'
    if program is None:
        return Check("tools", otherwise, name, "there is none on PATH", way)
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return Check("tools", otherwise, name, f"{program} does not run: {problem}", way)
    lines = [line for line in done.stdout.splitlines() if sign in line]
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check("tools", otherwise, name, f"{program} does not say its version: {said}", way)
    return ok("tools", name, f"{lines[0].replace(sign, '').strip()} ({program})")


def _python() -> Check:
    if sys.version_info < OLDEST_PYTHON:
        wanted = ".".join(map(str, OLDEST_PYTHON))
        return error(AREA, "Python", f"it is {platform.python_version()}", f"install Python {wanted} or newer")
    return ok(AREA, "Python", platform.python_version())


def _packages() -> list[Check]:
    found = []
    for module, name, what, extra in PARTS:
        if importlib.util.find_spec(module) is None:
            found.append(error(AREA, name, f"not installed; needed for {what}", f"pip install 'ratchet-rl[{extra}]'"))
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "version not known"
        found.append(ok(AREA, name, version))
    return found


def _control_plane() -> Check:
    """Compiled already, or is there a Go that can compile it?"""
    from ratchet_cluster import build

    about = "local control plane"
    try:
        _, version = build.find_go()
    except build.BuildError as problem:
        return error(AREA, about, "there is no Go that could compile it", _way(str(problem)))
    if build.is_built():
        return ok(AREA, about, f"compiled ({version})")
    said = f"not compiled yet ({version} is there): the first demo takes minutes longer"
    return warning(AREA, about, said, "ratchet cluster build")


def _way(said: str) -> str:
    _, either, way = said.partition("Either ")
    return way if either else said


def _git() -> list[Check]:
    """What updates a checkout; an installed package needs none."""
    if not shipped.in_checkout():
        return []
    program = shutil.which("git")
    if program is None:
        return [warning(AREA, "git", "there is none on PATH; a checkout cannot be updated", "apt-get install git")]
    done = subprocess.run([program, "--version"], capture_output=True, text=True, errors="replace", timeout=30)
    return [ok(AREA, "git", done.stdout.strip().removeprefix("git version ") or "version not known")]


def _disk() -> Check:
    from ratchet_cluster.build import cache_folder

    place = cache_folder()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    if free < FREE_GB:
        return warning(AREA, "disk", f"{free:.1f} GB free in {place}", f"make room: {FREE_GB} GB are needed to compile")
    return ok(AREA, "disk", f"{free:.0f} GB free in {place}")


def _system() -> list[Check]:
    if platform.system() != "Linux":
        said = f"it is {platform.system()}; node agents of the demo need Linux"
        return [warning(AREA, "system", said, "ratchet train works here; run the demo on Linux")]
    return [ok(AREA, "system", f"Linux {platform.machine()}, {os.cpu_count()} processors")]
