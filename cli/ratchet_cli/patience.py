"""A line for whoever waits at a terminal: what a command is doing that has not said anything for a while.

Decides how long is a while, and that scripts and pipes are told nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

import click

SECONDS = 2.0


@contextmanager
def patience(doing: str) -> Iterator[None]:
    """Says on standard error what is done, if it takes longer than SECONDS and somebody sits there."""
    if not sys.stderr.isatty():
        yield
        return
    timer = Timer(SECONDS, lambda: click.echo(f"{doing} ...", err=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
