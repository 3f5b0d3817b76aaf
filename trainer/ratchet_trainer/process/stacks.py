"""What every thread is doing: for the termination message of a process that hangs."""

from __future__ import annotations

import sys
import threading
import traceback
from types import FrameType


def newest_frames(limit: int) -> str:
    """The newest frames of each thread, the main thread's first, in at most `limit` bytes: each thread gets its share,
    and what it leaves of it goes to the next."""
    frames = sys._current_frames()
    threads = sorted(threading.enumerate(), key=lambda t: t is not threading.main_thread())
    threads = [t for t in threads if t.ident in frames and t is not threading.current_thread()]
    shown: list[str] = []
    left = limit
    for i, thread in enumerate(threads):
        text = _of_thread(thread.name, frames[thread.ident or 0], left // (len(threads) - i))
        left -= len(text.encode())
        shown.append(text)
    return "".join(shown)


def _of_thread(name: str, frame: FrameType, limit: int) -> str:
    text = f"{name}:"
    for entry in reversed(traceback.extract_stack(frame)):
        line = f" {entry.name} ({entry.filename.rsplit('/', 1)[-1]}:{entry.lineno})"
        if len((text + line).encode()) + 1 > limit:
            break
        text += line
    return text[:limit] + "\n" if limit > len(name) else ""
