"""`ratchet samples JOB|FILE`: rollouts of a run, to be read by people.

Decides where a run's samples are looked for. What was kept is decided by the trainer (`step/samples.py`), how it looks
by `sample_view`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratchet_api.job import NAME_PATTERN
from ratchet_cli import sample_view
from ratchet_cli.cluster_files import NotHere, checkpoint_folder
from ratchet_cli.ending import unreadable
from ratchet_cli.kube import cluster_options
from ratchet_cli.manifests import fail, read_job

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

DEFAULT_FOLDER = Path(".ratchet")


@click.command()
@click.argument("job", metavar="JOB|FILE")
@click.option("--step", type=click.IntRange(min=0), help="Which step; default the newest whose rollouts are kept.")
@click.option("--wrong", is_flag=True, help="Only rollouts that the verifier called wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a rollout.")
@click.option("--workdir", type=click.Path(file_okay=False, path_type=Path), help="Folder of `ratchet train`.")
@cluster_options
def samples(
    job: str,
    step: int | None,
    wrong: bool,
    as_json: bool,
    workdir: Path | None,
    namespace: str | None,
    context: str | None,
) -> None:
    """Show what a run sampled: prompt, response, extracted and expected answer, each part of the reward.

    FILE is a manifest that `ratchet train` trained, or a folder of checkpoints, gs:// and s3:// too; JOB, the name of
    an RLTrainingJob in the cluster of the kubeconfig. What is kept is said by spec.samples of the manifest.

    Exit codes: 65 for a manifest with problems, 66 where nothing can be read, 69 where no cluster answers.
    """
    folder = folder_of(job, workdir, namespace, context)
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.step.samples import FOLDER, read, steps

    try:
        kept = steps(folder)
        if not kept:
            fail(os.EX_NOINPUT, f"{folder / FOLDER}: no samples; a run writes them after its first rl step")
        if step is not None and step not in kept:
            fail(os.EX_NOINPUT, f"{folder / FOLDER}: none of step {step}; there are those of steps {in_words(kept)}")
        found: list[Any] = read(folder, step)
    except (OSError, ValueError, TrainerError) as error:
        fail(os.EX_NOINPUT, f"{folder / FOLDER}: cannot be read: {unreadable(error)}")
    chosen = sample_view.wrong(found) if wrong else found
    if as_json:
        for line in chosen:
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    number = step if step is not None else kept[-1]
    stages = ", ".join(dict.fromkeys(line["stage"] for line in found))
    wrongs = len(sample_view.wrong(found))
    click.echo(f"step {number}, stage {stages}: {len(found)} rollouts kept, {wrongs} wrong")
    width = sample_view.columns()
    for line in chosen:
        click.echo()
        for text in sample_view.block(line, width):
            click.echo(text)


def folder_of(job: str, workdir: Path | None, namespace: str | None, context: str | None = None) -> Location:
    """The checkpoint directory of what the command names. Exits where there is none to be read from here."""
    from ratchet_trainer.errors import ConfigurationInvalid
    from ratchet_trainer.storage import Location
    from ratchet_trainer.tools.working_folder import checkpoints_in

    if "://" in job:
        try:
            return Location.parse(job)
        except ConfigurationInvalid as error:
            fail(os.EX_USAGE, str(error))
    place = Path(job)
    if place.is_dir():
        return checkpoints_in(place)
    if job == "-" or place.exists() or not re.fullmatch(NAME_PATTERN, job):
        manifest, _ = read_job(job)
        found = workdir or DEFAULT_FOLDER / manifest["metadata"]["name"]
        if not found.is_dir():
            fail(os.EX_NOINPUT, f"{found}: no such folder; run `ratchet train {job}` here, or say --workdir")
        return checkpoints_in(found)
    if workdir is not None:
        return checkpoints_in(workdir)
    try:
        return checkpoint_folder(job, namespace, context)
    except NotHere as error:
        fail(error.code, str(error))


def in_words(steps: list[int], most: int = 20) -> str:
    """Steps for people: all, or the first and the latest."""
    if len(steps) <= most:
        return ", ".join(map(str, steps))
    return ", ".join([*map(str, steps[:3]), "...", *map(str, steps[3 - most :])])
