"""`ratchet train` and `ratchet trainer`: training without Kubernetes, and the process in the image.

Decides what is printed and which exit code (of sysexits) the shell gets. The work is done in `ratchet_trainer`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from ratchet_api.protocol import Exit
from ratchet_cli.beside import take_functions_beside, with_files_beside
from ratchet_cli.manifests import fail, read_job
from ratchet_cli.new_file import NewFile
from ratchet_cli.signals import handled
from ratchet_cli.train_printer import Printer
from ratchet_cli.train_summary import in_words, seen

DEFAULT_FOLDER = Path(".ratchet")

SYSEXITS = {
    # the trainer's code -> the shell's
    0: os.EX_OK,
    64: os.EX_DATAERR,
    65: os.EX_SOFTWARE,
    69: os.EX_TEMPFAIL,
    73: os.EX_TEMPFAIL,
    74: os.EX_IOERR,
    75: os.EX_TEMPFAIL,
    77: os.EX_DATAERR,
}

MODEL_HERE = click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder on this machine that the pods see as spec.model.path.",
)


@click.command()
def trainer() -> None:
    """Run one trainer process of an attempt. The operator starts it; its exit codes are the protocol's."""
    from ratchet_trainer.app import main

    main()


@click.command("rollout-worker")
def rollout_worker() -> None:
    """Run one process of a worker of the rollout fleet. The operator starts it, as it does trainers."""
    from ratchet_trainer.app import work

    work()


@click.command()
@click.argument("file")
@click.option("--workdir", type=click.Path(file_okay=False, path_type=Path), help="Folder; default .ratchet/NAME.")
@click.option(
    "--directory",
    metavar="PLACE",
    help="Where checkpoints are kept instead of the folder: a path, gs://BUCKET/PREFIX or s3://BUCKET/PREFIX. "
    "spec.checkpoint.directory does not count here.",
)
@click.option("--until-step", type=click.IntRange(min=1), help="Stop once this step is committed.")
@click.option(
    "--processes", type=click.IntRange(1, 64), help="Local processes; default slices x hosts of the manifest."
)
@click.option(
    "--devices",
    type=click.IntRange(1, 64),
    default=1,
    help="Devices that the CPUs of each process count as. Keep the number when you go on: bits depend on it.",
)
@MODEL_HERE
@click.option(
    "--approve",
    is_flag=True,
    help="Go on after stages whose end needs an approval; as if spec.approvals named them all.",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 64),
    help="Local workers of the fleet that samples (spec.rollouts); default its workers.min. 0: the trainer samples "
    "itself. Other than for where they sample, it changes nothing.",
)
@click.option("--json", "json_file", type=NewFile(), help="Write the result here.")
def train(
    file: str,
    workdir: Path | None,
    directory: str | None,
    until_step: int | None,
    processes: int | None,
    devices: int,
    model: Path | None,
    approve: bool,
    workers: int | None,
    json_file: Path | None,
) -> None:
    """Train a manifest on this machine; resumes what is in the folder.

    What pods get from claims and ConfigMaps is looked for in folders of these names beside the manifest.

    Exits 0 when done, 65 for a manifest or checkpoint that cannot be used, 74 when the folder cannot be written, 75
    when interrupted (run it again to go on) or when what comes after a stage needs an approval (go on with --approve),
    70 when the training itself failed.
    """
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.storage import BucketError
    from ratchet_trainer.tools.local import Folder, FolderInUse
    from ratchet_trainer.tools.local import train as run

    name, job, processes = job_of(file, processes, model)
    if workers == 0:
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"rollouts": None})})
    elif workers is not None and job.spec.rollouts is None:
        fail(os.EX_USAGE, f"--workers: {file} has no spec.rollouts; add it, or leave --workers out")
    place = place_of(directory)
    platform = os.environ.get("JAX_PLATFORMS") or "cpu"
    if devices > 1 and platform != "cpu":
        fail(os.EX_USAGE, f"--devices is for CPUs, and JAX_PLATFORMS is {platform}; leave out one of them")
    try:
        stop = threading.Event()
        with handled(lambda *_: stop.set(), signal.SIGTERM, signal.SIGINT):
            folder = Folder(workdir or DEFAULT_FOLDER / name, name, job, directory=place)
            with folder.locked():
                gang = f"{processes} process{'' if processes == 1 else 'es'}"
                gang += f" of {devices} devices" if devices > 1 else ""
                elsewhere = f", checkpoints in {folder.directory}" if str(folder.directory) != str(folder.path) else ""
                click.echo(f"{name}: {gang}, folder {folder.path}{elsewhere}", err=True)
                printer = Printer(folder.directory)
                code, message = run(
                    folder, processes, until_step, printer, stop, devices=devices, approve=approve, workers=workers
                )
                result = folder.result() | {"processes": processes}
                result |= seen(folder.directory, result, printer.learning)
    except FolderInUse as error:
        fail(os.EX_TEMPFAIL, str(error))
    except TrainerError as error:
        fail(SYSEXITS.get(error.exit, os.EX_SOFTWARE), str(error))
    except BucketError as error:  # names its place itself
        fail(os.EX_IOERR, str(error))
    except OSError as error:
        fail(os.EX_IOERR, f"{workdir or DEFAULT_FOLDER / name}: {error}")
    if json_file:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if code == 0 and result["step"] and "checkpoint" not in result:  # nothing was begun, as --until-step is reached
        fail(
            os.EX_DATAERR,
            f"{folder.directory}: step {result['step']} is there, but it is damaged or another job's; leave "
            "--until-step out to have it looked at, or name another directory",
        )
    if code == 0:
        click.echo(f"step {result['step']}, stage {result['stage']}, weights {result.get('weightsSha256', '-')}")
        for line in in_words(result):
            click.echo(line)
        sys.exit(os.EX_OK)
    if (boundary := message.get("unapproved")) is not None:
        stage = job.spec.stages[boundary["stage"]].name
        fail(
            os.EX_TEMPFAIL,
            f"stage {stage} ended at step {boundary['step']} ({boundary['rule']}); what comes next needs an approval: "
            f"look at `ratchet samples {file}`, then go on with the same command and --approve "
            f"(ratchet train {file} --approve)",
        )
    text = message.get("message") or f"{_meaning(code)}; the log is in {folder.local}"
    hint = "; run the same command again to go on" if SYSEXITS.get(code, os.EX_SOFTWARE) == os.EX_TEMPFAIL else ""
    fail(SYSEXITS.get(code, os.EX_SOFTWARE), f"stopped at step {result['step']}: {text}{hint}")


def place_of(directory: str | None) -> Any:
    """What `--directory` names, None without it. Exits with 64 for what cannot be meant."""
    from ratchet_trainer.errors import ConfigurationInvalid
    from ratchet_trainer.storage import Location

    try:
        found = Location.parse(directory, "--directory") if directory is not None else None
    except ConfigurationInvalid as error:
        fail(os.EX_USAGE, str(error))
    return Location.parse(found.local.absolute()) if found is not None and not found.on_bucket else found


def _meaning(code: int) -> str:
    """An exit code in words, for a trainer that could not say more."""
    known = {int(e): e.name.replace("_", " ").lower() for e in Exit}
    return f"exit code {code} ({known.get(code, 'unknown')})"


def job_of(file: str, processes: int | None, model: Path | None = None) -> tuple[str, Any, int]:
    """Name, job and number of processes of a manifest. `model`: the folder that is spec.model.path here. Files of
    claims and ConfigMaps are those beside the manifest. Exits with 65 or 66 when it is not valid."""
    from ratchet_api.validate import processes as count

    data, job = read_job(file)
    if model is not None:
        if job.spec.model.path is None:
            fail(os.EX_USAGE, f"{file}: --model is for a model with a path, and this one is a preset; leave it out")
        here = job.spec.model.model_copy(update={"path": str(model.absolute())})
        job = job.model_copy(update={"spec": job.spec.model_copy(update={"model": here})})
    folder = Path(file).parent  # of standard input, "-", the present one
    take_functions_beside(job, folder)
    job = with_files_beside(job, folder)
    return data["metadata"]["name"], job, processes or count(job.spec.placements[0])
