"""An image without Docker: what the Dockerfile installs, in a root that holds nothing else, for a user without rights.

The root has the virtual environment of one target, the Python that made it, the system's libraries, a loopback network,
/proc, /dev and an empty /tmp; all but /tmp is read-only. It stands in for a container, which also has other libraries.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
USER = 10001
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ssl", "/etc/ld.so.cache", "/etc/localtime")
ENVIRONMENT = {"HOME": "/tmp", "TZ": "UTC", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}


def wheel(folder: Path) -> Path:
    """The built wheel. Packages come from the index, so this takes a moment."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=280, env=os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")})
    (found,) = folder.glob("ratchet_rl-*.whl")
    return found


def install(built: Path, extra: str, folder: Path) -> Path:
    """A virtual environment with the wheel and one extra, by the constraints, as the Dockerfile makes it."""
    place = folder / "opt"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    command = [
        sys.executable, "-m", "pip", "--python", str(place / "bin/python"), "install", "--quiet", "--no-compile",
        "--constraint", str(ROOT / "constraints.txt"), f"{built}[{extra}]",
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=1200)
    return place


def command(environment: Path, root: Path, *arguments: str, **variables: str) -> list[str]:
    """The command line that runs `arguments` in the root; `environment` is seen where it lies. `root`: an empty
    folder."""
    python = Path(os.path.realpath(sys.executable)).parents[1]
    seen = [Path(place) for place in SYSTEM if os.path.exists(place)] + [environment, python]
    lines = [
        f"mount -t tmpfs none {root}",
        f"mkdir -p {root}/proc {root}/dev {root}/tmp",
        f"mount -t tmpfs -o mode=1777 none {root}/tmp",
    ]
    for place in seen:
        inside = f"{root}{place}"
        made = f"mkdir -p {inside}" if place.is_dir() else f"mkdir -p {os.path.dirname(inside)} && touch {inside}"
        lines += [made, f"mount --rbind {place} {inside}"]
    lines += [
        f"mount --rbind /proc {root}/proc",
        f"mount --rbind /dev {root}/dev",
        *(f"mount -o remount,bind,ro {root}{place}" for place in (environment, python)),
        f"mount -o remount,ro {root}",
        f'exec chroot --userspec={USER}:{USER} {root} /usr/bin/env -i -C /tmp "$@"',
    ]
    settings = ENVIRONMENT | {"PATH": f"{environment}/bin:/usr/bin:/bin"} | variables
    pairs = [f"{name}={value}" for name, value in settings.items()]
    return ["unshare", "--mount", "sh", "-ec", "\n".join(lines), "sh", *pairs, *arguments]
