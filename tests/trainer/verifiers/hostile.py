"""Verifiers of users that misbehave in every way that the pool must survive. The response says how."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from typing import Any


def verify(case: Any) -> Any:
    how = case.response
    if how == "hang":
        while True:
            time.sleep(1)
    if how == "spin":
        while True:
            pass
    if how == "exit":
        os._exit(7)
    if how == "sys.exit":
        sys.exit(3)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "raise":
        raise ValueError("no such luck")
    if how == "raise oddly":
        raise Odd
    if how == "gigabyte":
        block = "x" * 1_000_000
        for _ in range(1000):
            print(block)
            print(block, file=sys.stderr)
        return 1.0
    if how == "memory":
        return len(bytearray(64 * 1024**3))
    if how == "fork":
        for _ in range(3):
            if os.fork() == 0:
                time.sleep(1000)
        return 1.0
    if how == "fork and come back":
        os.fork()
        return 1.0
    if how == "fork and die":
        if os.fork() == 0:
            time.sleep(1000)
        os._exit(1)
    if how == "close all":
        os.closerange(3, 100)
        return 1.0
    if how == "write into all":
        for descriptor in range(3, 4096):
            with contextlib.suppress(OSError):
                os.write(descriptor, b"\xff" * 100)
        return 1.0
    return {
        "nan": float("nan"),
        "infinite": float("inf"),
        "none": None,
        "text": "very good",
        "list": [1.0],
        "nan part": {"score": 1.0, "parts": {"style": float("nan")}},
        "half accuracy": {"score": 0.5, "accuracy": 0.5},
        "misspelled": {"scores": 1.0},
        "huge": {"score": 1.0, "parts": {f"{n:01000}": 1.0 for n in range(2000)}},
        "parts": {"score": 0.5, "accuracy": 1.0, "parts": {"style": 0.25}},
        "true": True,
    }.get(how, float(case.extracted == case.item["answer"]))


def where(case: Any) -> Any:
    return {"score": 1.0, "parts": {"pid": os.getpid(), "jax": "jax" in sys.modules, "session": os.getsid(0)}}


def slow_first(case: Any) -> float:
    time.sleep(0.2 if case.item["index"] == 0 else 0.0)
    return float(case.item["index"])


def flaky(case: Any) -> float:
    """Dies where the file that the response names is not there yet, and makes it."""
    if not os.path.exists(case.response):
        open(case.response, "w").close()
        os._exit(1)
    return 1.0


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")
