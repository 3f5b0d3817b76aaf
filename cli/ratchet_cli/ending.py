"""How a command ends that cannot go on: lines on standard error and an exit code of sysexits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

import click

_RAISED = ContextVar("raised", default=False)


class Ending(SystemExit):
    """The end of a command: `code` for the shell, `lines` for people."""

    def __init__(self, code: int, lines: tuple[str, ...]):
        super().__init__(code)
        self.lines = lines


def fail(code: int, *lines: str) -> NoReturn:
    """Prints the lines to standard error and exits."""
    if not _RAISED.get():
        for line in lines:
            click.echo(line, err=True)
    raise Ending(code, lines)


def unreadable(error: Exception) -> str:
    """Why a file cannot be read, in words without numbers: `no such file or directory`, `it is not text in UTF-8`."""
    if isinstance(error, UnicodeDecodeError):
        return f"it is not text in UTF-8 (byte {error.start + 1})"
    words = error.strerror if isinstance(error, OSError) else None
    return words[:1].lower() + words[1:] if words else str(error)


@contextmanager
def endings_raised() -> Iterator[None]:
    """Inside, `fail` prints nothing: who calls a command's functions from Python catches `Ending`."""
    token = _RAISED.set(True)
    try:
        yield
    finally:
        _RAISED.reset(token)
