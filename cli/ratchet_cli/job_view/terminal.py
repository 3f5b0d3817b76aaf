"""What the output can show: width, colors, characters.

Decides that a pipe gets whole lines without color, that nothing is laid out for fewer than 40 columns, and that an
output that cannot write block characters gets ASCII.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

NARROWEST = 40
UNLIMITED = 100_000


@dataclass(frozen=True)
class Glyphs:
    """Characters that are drawn with."""

    plain: bool
    dot: str
    yes: str
    no: str
    arrow: str
    blocks: str


BLOCKS = Glyphs(False, "·", "✓", "✗", "→", " ▁▂▃▄▅▆▇█")
ASCII = Glyphs(True, "-", "+", "x", "->", " .:-=+*%#")


def glyphs(file: TextIO | None = None) -> Glyphs:
    """Those that the output can write."""
    encoding = getattr(file or sys.stdout, "encoding", None) or "ascii"
    try:
        "".join((BLOCKS.dot, BLOCKS.yes, BLOCKS.no, BLOCKS.arrow, BLOCKS.blocks, "━╌│└─…")).encode(encoding)
    except (UnicodeError, LookupError):
        return ASCII
    return BLOCKS


def console(file: TextIO | None = None) -> Console:
    """A console for the output, its width that of the terminal; lines into a pipe are as long as they are."""
    from rich.console import Console

    out = file or sys.stdout
    _write_what_can_be_written(out)
    width = max(NARROWEST, shutil.get_terminal_size((80, 24)).columns) if is_terminal(out) else _columns() or UNLIMITED

    class Lines(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with 1; how a command ends is said in main.py
            raise BrokenPipeError

    return Lines(file=out, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def is_terminal(file: TextIO | None = None) -> bool:
    """Whether a person looks at the output."""
    out = file or sys.stdout
    return out.isatty()


def _columns() -> int | None:
    said = os.environ.get("COLUMNS", "")
    return max(NARROWEST, int(said)) if said.isdigit() and len(said) < 6 else None


def _write_what_can_be_written(out: TextIO) -> None:
    """A message may have characters that the output's encoding has not."""
    reconfigure = getattr(out, "reconfigure", None)
    if reconfigure is not None and (out.encoding or "").lower().replace("-", "") != "utf8":
        reconfigure(errors="replace")
