"""Keys of a terminal while something else draws on it: q ends.

Decides that the terminal is as it was afterwards, however the command ends.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterator


class Keys:
    """What was typed; nothing where standard input is no terminal."""

    def __init__(self, descriptor: int | None):
        self._descriptor = descriptor

    def quit(self, seconds: float) -> bool:
        """Waits so long for a key; whether q, Q or Escape was pressed."""
        if self._descriptor is None:
            _sleep(seconds)
            return False
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, seconds))
        if not ready:
            return False
        typed = os.read(self._descriptor, 64)
        if not typed:  # the terminal is gone
            self._descriptor = None
            return True
        return typed in (b"q", b"Q", b"\x1b") or b"q" in typed.lower().split(b"\x1b")[0]


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """Keys one by one, not shown, for the time of the context. Ctrl-C stays an interrupt."""
    try:
        import termios
        import tty

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except Exception:  # no terminal, or none of a kind that can be set
        yield Keys(None)
        return
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> None:
    import time

    time.sleep(max(0.0, seconds))
