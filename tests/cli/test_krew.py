"""The kubectl plugin for Krew: its manifest is a template until a release fills it, and the launcher runs."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("krew", ROOT / "release/krew.py")
assert _spec is not None
assert _spec.loader is not None
krew = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(krew)

TEMPLATE = (ROOT / "release/krew.yaml").read_text()
URL = "https://example.org/owner/repository/releases/download/v1.2.3"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    file = tmp_path / "ratchet_rl-1.2.3-py3-none-any.whl"
    file.write_bytes(b"as if it were one")
    return file


def test_the_checkout_has_the_template_alone():
    """Whoever fills it by hand would invent what only a release knows."""
    filled = [line for line in TEMPLATE.splitlines() if line.strip().startswith(("version:", "uri:", "sha256:"))]
    assert len(filled) == 3
    assert all(line.endswith(krew.PLACEHOLDER) for line in filled)
    assert list(krew.faults(TEMPLATE)) == ["FILLED-AT-RELEASE is left in it; `make release` fills it"]
    done = subprocess.run(
        [sys.executable, ROOT / "release/krew.py", "--check", ROOT / "release/krew.yaml"], check=False
    )
    assert done.returncode == 1


def test_a_release_names_the_archive_that_was_made(wheel, tmp_path):
    command = [sys.executable, str(ROOT / "release/krew.py"), str(wheel), "1.2.3", URL, str(tmp_path / "out")]
    subprocess.run(command, check=True)
    manifest = (tmp_path / "out/krew.yaml").read_text()
    packed = (tmp_path / "out/kubectl-ratchet-1.2.3.tar.gz").read_bytes()
    assert list(krew.faults(manifest)) == []
    said = yaml.safe_load(manifest)["spec"]
    (platform,) = said["platforms"]
    assert platform["sha256"] == hashlib.sha256(packed).hexdigest()
    assert platform["uri"] == f"{URL}/kubectl-ratchet-1.2.3.tar.gz"
    assert (said["version"], said["homepage"]) == ("v1.2.3", "https://example.org/owner/repository")
    subprocess.run(command, check=True)
    assert (tmp_path / "out/kubectl-ratchet-1.2.3.tar.gz").read_bytes() == packed, "the same bytes again"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("v1.2.3\n", "1.2\n", "version 1.2 is none"),
        ("0" * 64, "0" * 63, "is no digest"),
        ("uri: https://", "uri: http://", "is no https address"),
        ("homepage: https://", "homepage: ", "homepage is no https address"),
        ("0" * 64, "FILLED-AT-RELEASE", "is left in it"),
    ],
)
def test_a_manifest_that_is_no_release_s_is_refused(old, new, words):
    whole = krew.filled(TEMPLATE, "1.2.3", URL, "0" * 64, "kubectl-ratchet-1.2.3.tar.gz")
    assert list(krew.faults(whole)) == []
    assert old in whole
    assert words in " ".join(krew.faults(whole.replace(old, new)))


def test_what_cannot_be_packed_writes_nothing(wheel, tmp_path):
    for arguments in ([str(tmp_path / "other.whl"), "1.2.3", URL], [str(wheel), "1.2.3", "ftp://x"]):
        command = [sys.executable, str(ROOT / "release/krew.py"), *arguments, str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("krew: ")
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "out").exists()


@pytest.fixture
def installed(wheel, tmp_path) -> Path:
    """The plugin as Krew installs it: unpacked into its store, called by a link."""
    store = tmp_path / "store/ratchet/v1.2.3"
    with tarfile.open(fileobj=io.BytesIO(krew.archive(wheel))) as archive:
        archive.extractall(store, filter="data")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl-ratchet").symlink_to(store / "kubectl-ratchet")
    return tmp_path / "bin/kubectl-ratchet"


def test_the_plugin_runs_the_program_that_is_there(installed, tmp_path):
    (tmp_path / "path").mkdir()
    program = tmp_path / "path/ratchet"
    program.write_text('#!/bin/sh\necho "ratchet $*"\n')
    program.chmod(0o755)
    env = {"PATH": f"{tmp_path}/path:/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([installed, "status", "a b"], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "ratchet status a b\n"


def test_a_plugin_that_cannot_install_its_program_says_why(installed, wheel, tmp_path):
    (tmp_path / "path").mkdir()
    for name in ("sh", "readlink", "dirname", "basename", "ls", "head", "rm", "mkdir"):
        (tmp_path / "path" / name).symlink_to(f"/bin/{name}" if os.path.exists(f"/bin/{name}") else f"/usr/bin/{name}")
    env = {"PATH": f"{tmp_path}/path", "HOME": str(tmp_path)}
    done = subprocess.run([installed], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == os.EX_UNAVAILABLE
    assert "needs Python 3.11 or newer" in done.stderr
    (tmp_path / "path/python3").symlink_to(sys.executable)
    broken = subprocess.run([installed], env=env, capture_output=True, text=True, check=False)
    assert broken.returncode == os.EX_UNAVAILABLE
    assert "could not be installed" in broken.stderr, "the wheel of this test is none"
    (tmp_path / "store/ratchet/v1.2.3" / wheel.name).unlink()
    gone = subprocess.run([installed], env=env, capture_output=True, text=True, check=False)
    assert gone.returncode == os.EX_OSFILE
    assert "kubectl krew install ratchet" in gone.stderr
