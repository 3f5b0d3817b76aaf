"""`ratchet prove`: the proof that kills cost time and nothing else.

Decides what is printed. When processes are killed and what is compared is decided in `ratchet_trainer/tools/prove.py`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from ratchet_cli.manifests import fail
from ratchet_cli.new_file import NewFile
from ratchet_cli.train import DEFAULT_FOLDER, MODEL_HERE, job_of, place_of
from ratchet_cli.train_printer import Printer


@click.command()
@click.argument("file")
@click.option("--kills", type=click.IntRange(0, 1000), default=5, show_default=True, help="How often it is killed.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides when, whom and how.")
@click.option("--workdir", type=click.Path(file_okay=False, path_type=Path), help="Default .ratchet/proof-NAME-SEED.")
@click.option(
    "--directory",
    metavar="PLACE",
    help="Keep the killed run's checkpoints in PLACE/proof-NAME-SEED, which is emptied first: a path, gs:// or s3://.",
)
@click.option(
    "--processes", type=click.IntRange(1, 64), help="Local processes; default slices x hosts of the manifest."
)
@MODEL_HERE
@click.option("--json", "json_file", type=NewFile(), help="Write the verdict here.")
def prove(
    file: str,
    kills: int,
    seed: int,
    workdir: Path | None,
    directory: str | None,
    processes: int | None,
    model: Path | None,
    json_file: Path | None,
) -> None:
    """Train undisturbed and killed, and compare every hash.

    Exits 0 when all are equal, 1 when one differs, 70 when a run did not come to its end.
    """
    from ratchet_trainer import storage
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.tools.local import remove
    from ratchet_trainer.tools.prove import HASHES, ProofFailed
    from ratchet_trainer.tools.prove import prove as run

    name, job, processes = job_of(file, processes, model)
    folder = (workdir or DEFAULT_FOLDER / f"proof-{name}-{seed}").absolute()
    for part in ("undisturbed", "killed"):
        remove(folder / part)
    where = None if (place := place_of(directory)) is None else place / f"proof-{name}-{seed}"
    if where is not None:
        try:
            storage.delete_tree(where)
        except (OSError, TrainerError) as error:
            fail(os.EX_IOERR, f"--directory: {error}")
    printer = Printer()
    try:
        verdict = run(
            folder,
            name,
            job,
            processes,
            kills,
            seed,
            say=lambda text: click.echo(text, err=True),
            listener=lambda _, document: printer(document),
            where=where,
        )
    except ProofFailed as error:
        fail(os.EX_SOFTWARE, f"no verdict: {error}", f"the logs are in {folder}/*/local")
    if json_file:
        json_file.write_text(json.dumps(verdict, indent=2) + "\n")
    for title in HASHES:
        calm, stormy = verdict[title]
        click.echo(f"{title:14} {calm}  {'equal' if calm == stormy else 'DIFFERENT: ' + str(stormy)}")
    click.echo(
        f"{verdict['kills']} kills: {verdict['stepsLost']} steps lost ({verdict['stepsLostWithNotice']} with notice), "
        f"median recovery {verdict['recoverySecondsMedian']} s, "
        f"{verdict['seconds'][1]} s instead of {verdict['seconds'][0]} s"
    )
    click.echo("PROVEN: equal to the undisturbed run, bit for bit" if verdict["equal"] else "NOT EQUAL")
    sys.exit(0 if verdict["equal"] else 1)
