"""`ratchet init [FILE]`: three questions, a manifest that fits.

Decides what is asked, and that nothing is overwritten. What an answer means is decided in `answers`, what is written in
`writing`; it is validated before it is written.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click
import yaml

from ratchet_api.validate import problems
from ratchet_cli.init import answers, writing
from ratchet_cli.init.answers import LAPTOP, SUMS, TINY, Unfit
from ratchet_cli.init.lengths import longest
from ratchet_cli.manifests import fail

T = TypeVar("T")

QUESTIONS = {
    "model": ("Which model: tiny (built in, for trying), or a folder, gs:// or s3:// of one", TINY),
    "data": ("What to learn: sums, a task of reasoning-gym, or a .jsonl or .parquet file", SUMS),
    "where": ("Where: laptop, or a TPU slice on GKE such as v5e-2x2 or v6e-2x4", LAPTOP),
}


@click.command()
@click.argument("file", default="job.yaml", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--model", "model", help="tiny, or a folder, gs:// or s3:// of a model.")
@click.option("--data", "data", help="sums, a task of reasoning-gym, or a .jsonl or .parquet file.")
@click.option("--where", "where", help="laptop, or a TPU slice as TYPE-TOPOLOGY: v6e-2x4.")
@click.option("--name", help="Name of the job; default that of the file.")
@click.option("--question", default="question", show_default=True, help="Key of the prompt in a file.")
@click.option("--answer", default="answer", show_default=True, help="Key of the expected answer in a file.")
@click.option("--checkpoints", metavar="PLACE", help="gs:// or s3:// for checkpoints; default the claim `checkpoints`.")
def init(
    file: Path,
    model: str | None,
    data: str | None,
    where: str | None,
    name: str | None,
    question: str,
    answer: str,
    checkpoints: str | None,
) -> None:
    """Write a commented manifest that can be trained, from three answers: model, data, place.

    Answers are asked for unless they are given. A FILE that is there is left alone.

    Exits 64 where an answer cannot be meant, 73 where FILE exists or cannot be written.
    """
    if file.exists() or file.is_symlink():
        fail(os.EX_CANTCREAT, f"{file}: is there already, and is left alone; name another file")
    given = {"model": model, "data": data, "where": where}
    missing = [f"--{key}" for key, value in given.items() if value is None]
    if missing and not sys.stdin.isatty():
        fail(os.EX_USAGE, f"nobody can be asked here; say {', '.join(missing)} (for example {_example(missing)})")
    if checkpoints is not None and not checkpoints.startswith(("gs://", "s3://")):
        fail(os.EX_USAGE, f"--checkpoints {checkpoints}: write gs://BUCKET/NAME or s3://BUCKET/NAME")
    chosen_model = _answered("model", model, answers.model)
    chosen_data = _answered("data", data, answers.data)
    chosen_place = _answered("where", where, answers.place)
    try:
        lengths = longest(chosen_data, question, answer)
    except Unfit as unfit:
        fail(os.EX_USAGE, str(unfit))
    job = answers.name_of(name or file.stem)
    text = writing.manifest(
        str(file), job, chosen_model, chosen_data, chosen_place, lengths, question, answer, checkpoints
    )
    if found := problems(yaml.safe_load(text)):
        fail(os.EX_USAGE, "these answers make no valid manifest:", *map(str, found))
    try:
        with open(file, "x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        fail(os.EX_CANTCREAT, f"{file}: {error.strerror}; name a file that can be written")
    then = f"ratchet train {file}" if chosen_place.accelerator is None else f"ratchet doctor {file}"
    click.echo(f"{file}: written; next: {then}")


def _answered(key: str, given: str | None, meant: Callable[[str], T]) -> T:
    """What an answer means; asks for it, again while it cannot be meant. Exits with 64 for one that was given."""
    while True:
        said = given if given is not None else click.prompt(QUESTIONS[key][0], default=QUESTIONS[key][1], err=True)
        try:
            return meant(said.strip())
        except Unfit as unfit:
            if given is not None:
                fail(os.EX_USAGE, f"--{key} {unfit}")
            click.echo(str(unfit), err=True)


def _example(missing: list[str]) -> str:
    return " ".join(f"{flag} {QUESTIONS[flag.removeprefix('--')][1]}" for flag in missing)
