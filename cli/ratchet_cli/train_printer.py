"""What `ratchet train` prints while it trains: progress, a sample at the start, and whether the stage learns.

Decides when a line is worth printing. Everything goes to standard error; how a rollout looks is decided by
`sample_view`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from ratchet_cli import sample_view

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

WRONG = 2
"""Wrong rollouts that are shown when a stage does not learn."""
INDENT = "    "


class Printer:
    """Prints progress: one line for each new stage and phase of the start, then one every two seconds. `learning` is
    the last that was said of the condition Learning. `folder`: of the run; without one, progress alone is printed."""

    def __init__(self, folder: Location | None = None) -> None:
        self._folder = folder
        self._last: tuple[Any, ...] = ()
        self._printed = 0.0
        self._line = ""
        self._sampled = False
        self.learning: dict[str, str] = {}

    def __call__(self, document: dict[str, Any]) -> None:
        self._progress(document)
        if self._folder is None:
            return
        if not self._sampled and document["stage"]:
            self._sampled = _first_sample(self._folder, document["startStep"] or 0)
        if (learning := document.get("learning")) is not None and learning != self.learning:
            before, self.learning = self.learning, learning
            _changed(self._folder, before, learning, document["step"])

    def _progress(self, document: dict[str, Any]) -> None:
        stage = (document["stage"] or {}).get("name")
        key = (document["attempt"], stage, document["phase"] in ("start", "restore", "compile"), document["step"])
        if key == self._last or (key[:3] == self._last[:3] and time.monotonic() - self._printed < 2.0):
            return
        self._last, self._printed = key, time.monotonic()
        if not stage:
            click.echo(f"  attempt {document['attempt']}: {document['phase']}", err=True)
            return
        numbers = [
            f"{title} {document[name]:{form}}"
            for title, name, form in (
                ("reward", "reward", ".3f"),
                ("accuracy", "accuracy", ".3f"),
                ("tok/s", "tokensPerSecond", ".0f"),
            )
            if isinstance(document[name], (int, float))
        ]
        target = "" if document["targetStep"] is None else f"/{document['targetStep']}"
        line = "  ".join([f"  step {document['step']}{target}  {stage}", *numbers])
        if line != self._line:
            self._line = line
            click.echo(line, err=True)


def _first_sample(folder: Location, start: int) -> bool:
    """Shows a rollout of the first step that kept some after step `start`; whether there was one."""
    step = next((step for step in _steps(folder) if step > start), None)
    if step is None or not (found := _read(folder, step)):
        return False
    click.echo(f"  a sample of step {step}; `ratchet samples` shows more:", err=True)
    _show(found[:1])
    return True


def _changed(folder: Location, before: Mapping[str, str], learning: Mapping[str, str], step: int) -> None:
    """Says what became of Learning, if that is news."""
    known = (before.get("status"), before.get("reason")) == (learning["status"], learning["reason"])
    words = sample_view.printable(learning["message"], one_line=True)
    if learning["status"] == "False" and not known:
        _say(f"NOT LEARNING: {learning['reason']}: {words}")
        _show(sample_view.wrong(_read(folder, step))[:WRONG])
    elif learning["status"] == "True" and before.get("status") == "False":
        _say(f"learning again: {words}")
    elif learning["reason"] == "NotYetKnown" and "expected answers" in words and not known:
        _say(f"warning: {words.partition('; ')[2]}")


def _say(text: str) -> None:
    for i, line in enumerate(sample_view.wrapped(text, sample_view.columns() - len(INDENT))):
        click.echo(f"{INDENT if i else '  '}{line}", err=True)


def _show(samples: Sequence[Mapping[str, Any]]) -> None:
    for sample in samples:
        for line in sample_view.block(sample, sample_view.columns() - len(INDENT), short=True):
            click.echo(f"{INDENT}{line}", err=True)


def _steps(folder: Location) -> list[int]:
    """Steps of which something was kept; none where that cannot be read."""
    from ratchet_trainer.step.samples import steps

    try:
        return steps(folder)
    except OSError:
        return []


def _read(folder: Location, step: int) -> list[dict[str, Any]]:
    """What was kept of a step; nothing where that cannot be read: a look at samples never disturbs a run."""
    from ratchet_trainer.step.samples import read

    try:
        return read(folder, step)
    except (OSError, ValueError):
        return []
