"""The type of `--json`: a file that is written when all the work is done, so it is tried before the work begins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class NewFile(click.Path):
    """A file that can be written. What it holds stays as it is."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        file = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            there = file.exists()
            with open(file, "ab"):
                pass
            if not there:
                file.unlink()
        except OSError as error:
            self.fail(f"{file}: {error.strerror}; name a file that can be written", param, ctx)
        return file
