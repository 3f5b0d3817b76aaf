"""The process from which a model's programs are forked: it has loaded what they may use, and knows no answers.

Decides what a program finds when it starts: the standard library without what reaches outside, standard input and
output, no files. The runner is forked from a worker before that has seen a case, so a program that searches its memory
finds no expected values. It waits for one program at a time, with limits on time and on what is printed.

Request: {program, setup, values, stdin, cpuSeconds, wallSeconds, memoryMiB, sandboxed}. Report: {finished, proven,
values, stdout, ended, why, cpuSeconds}; `ended` is ok | error | time | output | killed | locked.
"""

from __future__ import annotations

import builtins
import contextlib
import gc
import io
import json
import os
import secrets
import select
import signal
import sys
import time
import types
from collections.abc import Mapping
from typing import Any

from ratchet_trainer.algorithm.verifiers.frames import framed, read_frame, write_all
from ratchet_trainer.algorithm.verifiers.sandbox import NoSandbox, lock

OUTPUT_MAX = 1024 * 1024
REPORT_MAX = 1024 * 1024
PROOF = 32
"""Bytes that a program's process must hand back after the tests have passed."""

_LOADED = """
abc array ast base64 binascii bisect calendar cmath collections collections.abc colorsys contextlib copy csv dataclasses
datetime decimal difflib enum errno fractions functools gc getopt graphlib hashlib heapq html inspect io itertools json
keyword linecache locale math numbers operator os os.path pprint queue random re reprlib sched secrets shlex signal
statistics string struct sys textwrap threading time timeit token tokenize traceback types typing unicodedata unittest
uuid warnings weakref zlib _strptime _pydecimal
encodings.ascii encodings.latin_1 encodings.utf_16 encodings.utf_32 encodings.idna
"""
LOADED = tuple(_LOADED.split())
"""Modules that a program may import: all that are loaded before it is locked in."""
HIDDEN = ("ratchet_", "pydantic", "annotated_types", "ctypes", "_ctypes", "subprocess", "_posixsubprocess", "socket")
"""Beginnings of names of modules that it may not."""


def start() -> tuple[int, int]:
    """Forks the runner: descriptors to write requests to and to read reports from. It ends when the first is closed."""
    down_read, down_write = os.pipe()
    up_read, up_write = os.pipe()
    parent = os.getpid()
    if os.fork() == 0:
        with contextlib.suppress(BaseException):
            os.close(down_write)
            os.close(up_read)
            serve(down_read, up_write, parent)
        os._exit(0)
    os.close(down_read)
    os.close(up_write)
    return down_write, up_read


def serve(read: int, write: int, parent: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    for name in LOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    json.loads("[1]")
    time.strptime("2000", "%Y")
    while (frame := read_frame(read)) is not None:
        write_all(write, framed(json.dumps(run(json.loads(frame))).encode()))


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Runs one program in a child and says how it went."""
    stdin = os.memfd_create("stdin")
    write_all(stdin, (request["stdin"] or "").encode("utf-8", "replace"))
    os.lseek(stdin, 0, os.SEEK_SET)
    out_read, out_write = os.pipe()
    report_read, report_write = os.pipe()
    proof_read, proof_write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _child(request, stdin, out_write, report_write, proof_read)
        os._exit(1)
    for descriptor in (stdin, out_write, report_write, proof_read):
        os.close(descriptor)
    proof = secrets.token_hex(PROOF // 2).encode()
    write_all(proof_write, proof)
    heard = {out_read: bytearray(), report_read: bytearray()}
    ended = _listen(heard, out_read, time.monotonic() + request["wallSeconds"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    for descriptor in (out_read, report_read, proof_write):
        os.close(descriptor)
    said = _said(bytes(heard[report_read]))
    cpu = used.ru_utime + used.ru_stime
    if ended == "ok" and not said.get("finished"):
        # The kernel ends a program by whole ticks, and counts what is reported here exactly: on a busy machine half.
        by_limit = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
        late = by_limit and cpu >= 0.5 * request["cpuSeconds"]
        ended = "time" if late else "locked" if said.get("locked") else "killed" if os.WIFSIGNALED(status) else "error"
    return {
        "finished": ended == "ok" and said.get("finished") is True,
        "proven": said.get("proof") == proof.decode(),
        "values": said.get("values"),
        "stdout": bytes(heard[out_read]).decode("utf-8", "replace"),
        "ended": ended,
        "why": said.get("locked") or "",
        "cpuSeconds": cpu,
    }


def _listen(heard: dict[int, bytearray], out: int, end: float) -> str:
    """Reads until both pipes are closed: ok; or time or output, when there is too much of it."""
    pending = set(heard)
    while pending:
        left = end - time.monotonic()
        if left <= 0:
            return "time"
        for descriptor in select.select(list(pending), [], [], left)[0]:
            part = os.read(descriptor, 1 << 16)
            if not part:
                pending.discard(descriptor)
            heard[descriptor] += part
            if len(heard[descriptor]) > (OUTPUT_MAX if descriptor == out else REPORT_MAX):
                return "output"
    return "ok"


def _said(report: bytes) -> dict[str, Any]:
    try:
        said = json.loads(report)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _child(request: Mapping[str, Any], *descriptors: int) -> None:
    """Becomes the program. Descriptors 0, 1, 3 and 4 are stdin, stdout, report and proof; all others are closed."""
    high = [os.dup2(d, 100 + n, inheritable=False) for n, d in enumerate(descriptors)]
    for place, descriptor in zip((0, 1, 3, 4), high, strict=True):
        os.dup2(descriptor, place)
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        with contextlib.suppress(OSError):
            if descriptor > 4:
                os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    setattr(sys, "__stdin__", sys.stdin)  # noqa: B010
    setattr(sys, "__stdout__", sys.stdout)  # noqa: B010
    for name in [n for n in sys.modules if n.startswith(HIDDEN) or n in ("__main__", "_socket")]:
        del sys.modules[name]
    sys.path, sys.argv, sys.path_importer_cache = [], ["program.py"], {}
    sys.meta_path = [finder for finder in sys.meta_path if "Path" not in repr(finder)]
    time.sleep = lambda seconds: None  # a program that only waits costs nothing
    os.environ.clear()
    say, loads = _writer(), _reader()
    try:
        lock(request["memoryMiB"] * 1024 * 1024, max(1, int(request["cpuSeconds"] + 0.999)), request["sandboxed"])
    except (NoSandbox, OSError, ValueError) as error:
        say({"locked": str(error)})
        os._exit(1)
    main = types.ModuleType("__main__")  # a module of its own: data classes and enums look themselves up in it
    main.__dict__["__builtins__"] = builtins
    sys.modules["__main__"], space = main, main.__dict__
    gc.collect()
    try:
        exec(compile(request["program"], "program.py", "exec"), space)
    except SystemExit as error:
        if request["stdin"] is None or error.code not in (None, 0):
            os._exit(1)
    if request["setup"]:
        exec(compile(request["setup"], "tests.py", "exec"), space)
    values = [repr(plain(eval(value, space))) for value in request["values"]]
    sys.stdout.flush()
    say({"finished": True, "values": values, "proof": loads()})
    os._exit(0)


def _writer() -> Any:
    write, dumps = os.write, json.dumps

    def say(message: dict[str, Any]) -> None:
        data = dumps(message).encode()
        while data:
            data = data[write(3, data) :]

    return say


def _reader() -> Any:
    read = os.read
    return lambda: read(4, PROOF).decode()


def plain(value: Any) -> Any:
    """A value without the classes that stand for the built-in ones (Counter, deque, named tuples)."""
    if isinstance(value, dict):
        return {plain(key): plain(inner) for key, inner in value.items()}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return kind(plain(inner) for inner in value)
    return list(value) if type(value).__name__ == "deque" else value
