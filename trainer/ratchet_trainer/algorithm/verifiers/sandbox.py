"""A process that has given up everything but computing: no files, network, processes or signals to others.

Decides what a locked process may still ask of the kernel. It needs no rights that a `restricted` pod lacks: a process
may always give up rights (PR_SET_NO_NEW_PRIVS), and then install a filter of system calls (seccomp), which the
runtime's default profile allows. The filter is a list of what is allowed, all of it about the process itself;
everything else fails with EPERM. In particular nothing can be opened, so what the program needs is loaded before.
Limits stand beside it: address space, processor time, and files of no size at all. gVisor and every kernel since 3.17
can do it.

`available()` tries all of it in a process of its own and says what does not hold.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050001  # REFUSE: errno EPERM
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
X32 = 0x40000000
"""Numbers from here on are a second set of system calls of x86_64."""

ALLOWED: dict[str, dict[str, int]] = {
    "x86_64": {
        **{"read": 0, "write": 1, "close": 3, "fstat": 5, "lseek": 8},
        **{"mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "mremap": 25, "madvise": 28},
        **{"rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "sigaltstack": 131, "setitimer": 38},
        **{"sched_yield": 24, "sched_getaffinity": 204, "futex": 202, "restart_syscall": 219, "rseq": 334},
        **{"getpid": 39, "getppid": 110, "gettid": 186, "getuid": 102, "geteuid": 107, "getgid": 104, "getegid": 108},
        **{"gettimeofday": 96, "clock_gettime": 228, "clock_getres": 229, "getrandom": 318},
        **{"exit": 60, "exit_group": 231},
    },
    "aarch64": {
        **{"read": 63, "write": 64, "close": 57, "fstat": 80, "lseek": 62},
        **{"mmap": 222, "mprotect": 226, "munmap": 215, "brk": 214, "mremap": 216, "madvise": 233},
        **{"rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "sigaltstack": 132, "setitimer": 103},
        **{"sched_yield": 124, "sched_getaffinity": 123, "futex": 98, "restart_syscall": 128, "rseq": 293},
        **{"getpid": 172, "getppid": 173, "gettid": 178, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177},
        **{"gettimeofday": 169, "clock_gettime": 113, "clock_getres": 114, "getrandom": 278},
        **{"exit": 93, "exit_group": 94},
    },
}
"""System calls that a locked process may make, by machine. Sources: the kernel's syscall tables."""
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


class NoSandbox(Exception):
    """This machine cannot lock a process; the message says why."""


def available() -> str | None:
    """Why programs cannot be locked up here, without a dot at the end; None if they can. Takes a tenth of a second."""
    command = [
        sys.executable,
        "-I",
        "-c",
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')",
        __file__,
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={"PATH": os.environ.get("PATH", "")}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the trial of the sandbox did not end: {error}"
    if done.returncode:
        return f"the trial of the sandbox ended with {done.returncode}: {done.stderr.strip()[-200:]}"
    return done.stdout.strip() or None


def lock(memory_bytes: int, cpu_seconds: int, sandboxed: bool = True) -> None:
    """Locks this process for good: `memory_bytes` more address space than it has now, `cpu_seconds` of processor time.

    Without `sandboxed` only the limits are set. Raises NoSandbox; the process may then be locked in part.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    _limit(resource.RLIMIT_AS, size + memory_bytes)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    if not sandboxed:
        return
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ALLOWED:
        raise NoSandbox(f"there is no list of system calls for {sys.platform} on {machine}")
    _limit(resource.RLIMIT_NPROC, 0)
    code = program(machine)
    instructions = ctypes.create_string_buffer(code)
    described = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise NoSandbox(f"the kernel does not let go of rights: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, described, 0, 0):
        raise NoSandbox(f"the kernel takes no filter of system calls (seccomp): {os.strerror(ctypes.get_errno())}")


def _limit(what: int, value: int) -> None:
    hard = resource.getrlimit(what)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def program(machine: str) -> bytes:
    """The filter for a machine in classic BPF, 8 bytes an instruction."""

    def step(code: int, k: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
        return struct.pack("<HBBI", code, jump_true, jump_false, k)

    steps = [step(LOAD, 4), step(JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0), step(RETURN, KILL), step(LOAD, 0)]
    if machine == "x86_64":
        steps += [step(JUMP_AT_LEAST, X32, 0, 1), step(RETURN, REFUSE)]
    for number in ALLOWED[machine].values():
        steps += [step(JUMP_EQUAL, number, 0, 1), step(RETURN, ALLOW)]
    return b"".join([*steps, step(RETURN, REFUSE)])


def leaks() -> list[str]:
    """What a locked process can still do and should not; tried, not looked up."""
    attempts = {
        "open files": lambda: os.close(os.open("/", os.O_RDONLY)),
        "open sockets": lambda: socket.socket().close(),
        "start processes": lambda: os.fork() or os._exit(0),
        "send signals": lambda: os.kill(os.getppid(), 0),
        "change limits of others": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
        "make sessions": os.setsid,
    }
    found = []
    for name, attempt in attempts.items():
        try:
            attempt()
            found.append(name)
        except OSError:
            pass
    return found


def _trial() -> None:
    try:
        lock(64 * 1024 * 1024, 10)
    except (NoSandbox, OSError) as error:
        print(error)
        return
    if found := leaks():
        print(f"a locked process can still {', '.join(found)}")


if __name__ == "__main__":
    _trial()
