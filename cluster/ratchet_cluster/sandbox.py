"""A pod's own view of the file system and its own host name, for a process that is about to be executed.

Decides how paths that the pod mounts come to be where the pod wants them without touching the machine: private mount,
UTS and, where not root, user namespaces. A mount point that does not exist on the machine needs a root that can hold
it: a small tmpfs that mirrors the real one (every entry bound back) plus the missing folders. What is mounted:
`volumes.py`. Where namespaces are forbidden: `paths.py`.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUTS, NEWUSER = 0x00020000, 0x04000000, 0x10000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = (
    32,
    1024,
    2048,
    4096,
    16384,
    1 << 18,
    1 << 21,
)
_ST_RELATIME = 4096
_PR_SET_PDEATHSIG = 1

ROOT, USER, NONE = "root", "user namespaces", "none"
FORCE = "RATCHET_CLUSTER_ISOLATION"  # set to "none" to have pods run without namespaces


@dataclass(frozen=True)
class Mount:
    """`source` on the machine appears at `target` in the pod."""

    source: str
    target: str
    read_only: bool = False


def ability() -> str:
    """The farthest that this user may separate pods here: `ROOT`, `USER` or `NONE`."""
    if os.environ.get(FORCE) == NONE:
        return NONE
    return next((way for way in (ROOT, USER) if possible(way)), NONE)


@functools.cache
def possible(way: str) -> bool:
    """Whether this user may use namespaces in this way; found by trying in a child process."""
    pid = os.fork()
    if pid == 0:
        try:
            _separate(way, "ratchet-probe")
            _mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def entrance(way: str, mounts: Sequence[Mount], scratch: Path, hostname: str, workdir: str) -> Callable[[], None]:
    """A function for the child between fork and exec. `scratch` is an empty folder for the mirrored root.

    The process is killed when the one that started it dies. What goes wrong is written to standard error, which is the
    container's log.
    """
    plan = _plan([mount.target for mount in mounts]) if way != NONE else None

    def enter() -> None:
        try:
            if plan is not None:
                _separate(way, hostname)
                _arrange(mounts, plan, str(scratch))
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # last: a change of credentials would clear it
            os.chdir(workdir)
        except OSError as error:
            os.write(2, f"the container could not be set up: {error}\n".encode())
            raise

    return enter


def kept(mounts: Sequence[Mount], places: Sequence[Path]) -> list[Mount]:
    """Mounts that bring back those of `places` which `mounts` would cover, such as a checkout below /tmp."""
    covered = [mount.target.rstrip("/") + "/" for mount in mounts]
    needed = [str(place) for place in places if any(f"{place}/".startswith(target) for target in covered)]
    return [Mount(place, place) for place in needed if not any(mount.target == place for mount in mounts)]


@dataclass(frozen=True)
class _Plan:
    """Folders of the machine that have to be mirrored so that missing mount points below them can be made."""

    mirrored: frozenset[str]


def _plan(targets: Sequence[str]) -> _Plan:
    mirrored = {"/"}
    for target in targets:
        place = os.path.realpath(target)
        if os.path.exists(place):
            continue
        while not os.path.isdir(place):
            place = os.path.dirname(place)
        while True:
            mirrored.add(place)
            if place == "/":
                break
            place = os.path.dirname(place)
    return _Plan(frozenset(mirrored))


def _separate(way: str, hostname: str) -> None:
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(NEWNS | NEWUTS | (NEWUSER if way == USER else 0)):
        _raise("unshare")
    if way == USER:  # the same ids inside as outside: files keep their owner, and exec drops the capabilities again
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(descriptor, text.encode())
            os.close(descriptor)
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    own = hostname.encode()[:63]
    if _libc.sethostname(own, len(own)):
        _raise("sethostname")


def _arrange(mounts: Sequence[Mount], plan: _Plan, scratch: str) -> None:
    _mount("tmpfs", scratch, "tmpfs", MS_NOSUID, "mode=755")
    _mirror("/", scratch, plan.mirrored)
    for mount in sorted(mounts, key=lambda one: one.target.count("/")):
        _bind(mount, scratch)  # sources are still seen where they are: nothing covers the old root
    os.chroot(scratch)


def _mirror(folder: str, root: str, mirrored: frozenset[str]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            place = root + entry.path
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.path in mirrored:
                os.mkdir(place)
                _mirror(entry.path, root, mirrored)
            else:
                _make(place, entry.is_dir())
                _mount(entry.path, place, None, MS_BIND | MS_REC)


def _bind(mount: Mount, root: str) -> None:
    target = root + os.path.realpath(mount.target)
    if not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        _make(target, os.path.isdir(mount.source))
    _mount(mount.source, target, None, MS_BIND | MS_REC)
    if mount.read_only:
        _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _locked_flags(target))


def _locked_flags(path: str) -> int:
    """Flags that a user namespace may not take away when it remounts."""
    held = os.statvfs(path).f_flag
    flags = held & (MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME)
    return flags | (MS_RELATIME if held & _ST_RELATIME else 0)


def _make(place: str, folder: bool) -> None:
    if folder:
        os.mkdir(place)
    else:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind, data)]
    if _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3]):
        _raise(f"mount of {source or kind or 'flags'} at {target}")


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
