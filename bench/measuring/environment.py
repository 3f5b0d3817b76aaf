"""An environment of its own for a peer: its packages, in the user's cache folder, installed once.

It has the Python that this one has, and so, unless the peer forbids it, the same release of JAX.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from ratchet_cluster.build import cache_folder


class NotInstalled(Exception):
    """The peer cannot be had here, and why."""


def python_with(requirement: str, module: str, *beside: str, size: str = "2 GB") -> Path:
    """The Python of an environment that has `requirement` (a name and a version) and what stands `beside` it, and can
    import its `module`. `size`: what it takes on disk. Raises NotInstalled."""
    version = "{}.{}".format(*sys.version_info)
    folder = cache_folder() / f"bench-{requirement.replace('==', '-')}-python{version}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    print(f"installing {requirement} into {folder} (a few minutes, {size})", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    pip = str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement, *beside
    try:
        for command in (sys.executable, "-m", "venv", str(folder)), pip, (str(python), "-c", f"import {module}"):
            subprocess.run(command, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise NotInstalled(
            f"{requirement} cannot be installed: {error.stderr.strip().rpartition(chr(10))[2]}"
        ) from error
    except OSError as error:
        raise NotInstalled(f"{requirement} cannot be installed: {error}") from error
    ready.touch()
    return python
