"""What a process keeps of memory that it no longer needs.

Decides how glibc's allocator treats the large blocks of a trainer. By itself it raises the size from which a block is
given back at once up to 32 MiB, and keeps what compilers and initial values needed for ever: half a gigabyte beside a
model of 100 million parameters (`bench/memory.py`). A small model is left alone: to map its blocks anew made its
updates one and a half to two times as long. Elsewhere than on glibc nothing happens.
"""

from __future__ import annotations

import contextlib
import ctypes

BLOCK = 4 << 20
"""Bytes from which a block is mapped by itself, and goes back to the system when it is freed."""
LARGE = 64 << 20
"""Bytes of parameters from which a model counts as large."""
KEPT = 16 << 20
"""Most bytes that stay at the end of the heap for later."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def tune_allocator(parameter_bytes: int) -> None:
    """Sets the allocator up for a model; to be called before anything large is allocated."""
    if parameter_bytes < LARGE:
        return
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(_MMAP_THRESHOLD, BLOCK)
        libc.mallopt(_TRIM_THRESHOLD, KEPT)


def trim() -> None:
    """Gives back what is free now: after compiling, and after values that were needed once."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
