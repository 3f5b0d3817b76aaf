"""What a package imports is declared in the extra that installs it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGES = {
    # package -> extras that it may use beyond the base
    "crds/ratchet_api": (),
    "operator/ratchet_operator": ("operator",),
    "trainer/ratchet_trainer": ("trainer", "real"),  # what fetches a model is imported there alone
    "cluster/ratchet_cluster": ("operator", "trainer", "local"),
    "cli/ratchet_cli": ("operator", "trainer", "local"),
}


def name_of(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match.group()).lower()


def imported(package: Path) -> dict[str, str]:
    """Top-level module -> a file that imports it; standard library and own packages left out."""
    found = {}
    for path in package.rglob("*.py"):
        if (path.parent / "requirements.txt").exists():  # runs in an environment of its own
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.split(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {m: f for m, f in found.items() if m not in sys.stdlib_module_names and not m.startswith("ratchet_")}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_is_declared(package):
    declared = list(PROJECT["dependencies"])
    for extra in PACKAGES[package]:
        declared += PROJECT["optional-dependencies"][extra]
    names = {name_of(requirement) for requirement in declared}
    installed = packages_distributions()
    missing = {
        f"{module} ({file})"
        for module, file in imported(ROOT / package).items()
        if not {re.sub(r"[-_.]+", "-", d).lower() for d in installed.get(module, [module])} & names
    }
    assert not missing, f"declare them in pyproject.toml: {sorted(missing)}"


def test_the_images_install_by_the_constraints():
    runs = [
        line
        for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
        if " install --constraint" in line
    ]
    assert len(runs) == 3
    assert all("--constraint /constraints.txt" in run for run in runs)
