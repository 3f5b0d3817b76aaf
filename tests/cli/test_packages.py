"""The frame holds: who may import whom, and a folder called `operator` that does not hide the standard library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_folder_operator_does_not_hide_the_module():
    assert not (ROOT / "operator/__init__.py").exists()
    code = "import collections, operator; assert operator.add(1, 2) == 3"
    environment = {"PYTHONPATH": ".", "PATH": ""}
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_contracts_between_packages_are_kept():
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_constraints_name_no_registry():
    text = (ROOT / "constraints.txt").read_text()
    assert "http" not in text.replace("aiohttp", "").replace("httpx", "").replace("httpcore", "")
    assert all("==" in line for line in text.splitlines() if line and not line.startswith("#"))
