"""Metrics and samples of runs: a job in a cluster, a run on this machine, a folder, a bucket.

Decides what a source may be and in which form the rows come. Only committed steps are read.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ratchet.errors import NothingToRead, RatchetError, endings_as

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

CURVES = ("train/reward", "train/accuracy", "train/loss")
"""Which metric is drawn: the first of these that there is."""


class HasFolder(Protocol):
    """What runs and jobs have in common."""

    def place(self) -> Location: ...


Source: TypeAlias = HasFolder | str | os.PathLike[str]


def metrics(source: Source) -> Any:
    """A row for each committed step: `step`, `stage`, and every metric by its name.

    A pandas DataFrame where pandas is installed, else a list of dicts. `source`: a job or a run, a folder of
    `ratchet train` or of checkpoints, gs://BUCKET/PREFIX, s3://BUCKET/PREFIX, a manifest that was trained here, or the
    name of a job in the cluster. Raises NothingToRead, or the errors of finding it.
    """
    return framed(list(rows(source)))


def samples(source: Source, step: int | None = None, *, wrong: bool = False) -> Any:
    """Rollouts that a run has kept, of one step (default: the newest that has some), in the same form as `metrics`:
    `prompt`, `response`, `expected`, `reward`, `accuracy` and what else `ratchet samples --json` shows. With `wrong`
    those alone that the verifier called wrong. Raises NothingToRead, or the errors of finding the source."""
    from ratchet_cli.samples import in_words
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.step.samples import FOLDER, read, steps

    folder = place_of(source)
    try:
        kept = steps(folder)
        if not kept or (step is not None and step not in kept):
            there = (
                f"there are those of steps {in_words(kept)}" if kept else "a run writes them after its first rl step"
            )
            raise NothingToRead(f"{folder / FOLDER}: no samples{'' if step is None else f' of step {step}'}; {there}")
        found = read(folder, step)
    except (OSError, ValueError, TrainerError) as error:
        raise NothingToRead(f"{folder / FOLDER}: cannot be read: {error}") from error
    return framed([line for line in found if not wrong or line["accuracy"] == 0.0])


def rows(source: Source) -> Iterator[dict[str, Any]]:
    """The rows of `metrics`, as dicts. Raises NothingToRead."""
    from ratchet_trainer.checkpoints.checkpoint import stream_of
    from ratchet_trainer.errors import TrainerError

    folder = place_of(source)
    try:
        data = stream_of(folder).read()
        lines = [json.loads(line) for line in data.split(b"\n")[:-1] if line.strip()]
    except (OSError, ValueError, TrainerError) as error:
        raise NothingToRead(f"{folder / 'metrics.jsonl'}: cannot be read: {error}") from error
    if not lines:
        raise NothingToRead(f"{folder / 'metrics.jsonl'}: no metrics yet; the first step is not committed")
    for line in lines:
        yield {
            "step": line["step"],
            "stage": line["stage"],
            **{name: float(value) for name, value in line["metrics"].items()},
        }


def main_curve(found: Sequence[dict[str, Any]]) -> tuple[str, list[tuple[int, float]]]:
    """The metric that says most of a run, and its (step, value)."""
    name = next((name for name in CURVES if any(name in row for row in found)), CURVES[0])
    return name, [(row["step"], row[name]) for row in found if name in row]


def framed(found: list[dict[str, Any]]) -> Any:
    """A DataFrame where pandas is installed, else the rows themselves."""
    if importlib.util.find_spec("pandas") is None:
        return found
    import pandas

    return pandas.DataFrame(found)


def place_of(source: Source) -> Location:
    """The checkpoint directory of a source. Raises RatchetError."""
    needs_trainer()
    if not isinstance(source, (str, os.PathLike)):
        return source.place()
    from ratchet_cli.samples import folder_of

    with endings_as(NothingToRead):
        return folder_of(os.fspath(source), None, None)


def needs_trainer() -> None:
    """Raises RatchetError where the trainer's packages are not installed."""
    if importlib.util.find_spec("numpy") is None or importlib.util.find_spec("tensorstore") is None:
        raise RatchetError(
            'files of runs are read, and runs trained, with packages that are not installed: pip install "ratchet-rl'
            '[trainer]"'
        )


def absolute(folder: str | os.PathLike[str] | None, name: str) -> Path:
    """The working folder of a run on this machine; by default that of `ratchet train`."""
    return (Path(folder) if folder is not None else Path(".ratchet") / name).absolute()
