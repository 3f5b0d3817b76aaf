"""`ratchet fit FILE...`: whether what a manifest trains fits the TPUs that it names, before anybody pays for them.

Decides arguments, print and exit code. The work is `ratchet_trainer/tools/fit.py`, in a process of its own: JAX and the
TPU compiler never get into this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from ratchet_api.job import Spec
from ratchet_cli.beside import CONFIG, MODELS
from ratchet_cli.fit_view import FitView
from ratchet_cli.manifests import fail, read_job

TOKENIZER = "tokenizer.json"


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--placement", "placements", multiple=True, help="Only this placement; may be given several times.")
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="config.json of the model, or a folder with it, where spec.model.path is not on this machine. Without it "
    f"{MODELS}/NAME/{CONFIG} beside the manifest is read, NAME being the last part of the path.",
)
@click.option("--advice/--no-advice", default=True, help="Look for a change with which a placement fits.")
@click.option(
    "--write-cache",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the compiled programs here, for cache/ in the job's checkpoint directory. No advice is looked for.",
)
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How it is printed."
)
def fit(
    files: tuple[str, ...],
    placements: tuple[str, ...],
    model: Path | None,
    advice: bool,
    write_cache: Path | None,
    output: str,
) -> None:
    """Compile every program of every stage for every placement with the real TPU compiler. No TPU is needed.

    Exit codes: 0 all fits, 1 something does not, 65 a manifest with problems, 66 a file that cannot be read, 69 no TPU
    compiler here, 73 a cache that cannot be written.
    """
    too_large, records = False, []
    requests: list[tuple[str, dict[str, Any]]] = []
    for file in files:  # all of them, before minutes go into the first
        _, job = read_job(file)
        unknown = sorted(set(placements) - {p.name for p in job.spec.placements})
        if unknown:
            names = ", ".join(p.name for p in job.spec.placements)
            fail(os.EX_USAGE, f"{file}: no placement {', '.join(unknown)}; there are {names}")
        spec, config = model_here(job.spec, file, model)
        request = {
            "spec": spec.manifest(),
            "config": str(config) if config else None,
            "placements": list(placements) or None,
            "advise": advice and write_cache is None,
            "cache": str(write_cache.absolute()) if write_cache else None,
        }
        requests.append((file, request))
    if model is not None and all(request["spec"]["model"].get("path") is None for _, request in requests):
        fail(os.EX_USAGE, f"{', '.join(files)}: --model is for a model with a path, and there is none; leave it out")
    if write_cache is not None:
        _require_folder(write_cache)
    try:
        for file, request in requests:
            view = FitView(file)
            for record in records_of(file, request):
                too_large |= record.get("fits") is False
                records.append({"file": file} | record)
                if output == "text":
                    for line in view.lines(record):
                        click.echo(line)
    finally:  # what is compiled is said, whatever stopped the rest
        if output == "json":
            click.echo(json.dumps(records, indent=2))
    sys.exit(1 if too_large else os.EX_OK)


def _require_folder(folder: Path) -> None:
    """Exits unless files can be written there: JAX only warns of a cache that it cannot write."""
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(folder)):
        text = "is no folder of this machine; name one, and copy what is in it into cache/ of the checkpoint directory"
        fail(os.EX_USAGE, f"--write-cache: {folder} {text}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        fail(os.EX_CANTCREAT, f"--write-cache: {folder}: {error.strerror}; name a folder that can be written")


def model_here(spec: Spec, file: str, given: Path | None) -> tuple[Spec, Path | None]:
    """The spec with the model's folder on this machine, or a config.json in its place. Exits with 66 without either."""
    if spec.model.path is None:
        return spec, None
    beside = (Path() if file == "-" else Path(file).parent) / MODELS / Path(spec.model.path).name
    places = (given,) if given else (Path(spec.model.path), beside)
    whole = next((place for place in places if _is_whole(place)), None)
    if whole is not None:
        moved = spec.model.model_copy(update={"path": str(whole.absolute())})
        return spec.model_copy(update={"model": moved}), None
    configs = [place / CONFIG if place.is_dir() else place for place in places]
    config = next((config for config in configs if config.is_file()), None)
    if config is None:
        fail(
            os.EX_NOINPUT,
            f"{file}: spec.model.path: {spec.model.path} is not on this machine"
            + (f" and {given} has no {CONFIG}" if given else "")
            + f"; give its {CONFIG} with --model, or put it at {beside / CONFIG}. Weights are not needed",
        )
    return spec, config.absolute()


def _is_whole(folder: Path) -> bool:
    """Whether a folder has all that a trainer reads, so that even the tokens which end a response are known."""
    return (folder / CONFIG).is_file() and (folder / TOKENIZER).is_file() and any(folder.glob("*.safetensors"))


def records_of(file: str, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the compiling process says, as it says it. Exits where it says that it cannot go on."""
    command, kept = [sys.executable, "-m", "ratchet_trainer.tools.fit"], False
    with (
        tempfile.NamedTemporaryFile("w+", prefix="ratchet-fit-", suffix=".log", errors="replace", delete=False) as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True) as child,
    ):
        assert child.stdin is not None and child.stdout is not None  # noqa: PT018
        try:
            with contextlib.suppress(BrokenPipeError):  # its end says why
                child.stdin.write(json.dumps(request))
                child.stdin.close()
            for line in child.stdout:
                record = json.loads(line)
                if "error" in record:
                    fail(child.wait() or os.EX_SOFTWARE, f"{file}: {record['error']}")
                yield record
            if child.wait():
                kept = True
                log.seek(0)
                ended = _ended(child.returncode, log.read())
                fail(os.EX_SOFTWARE, f"{file}: {ended}; all that it said is in {log.name}")
        finally:
            child.kill()
            if not kept:
                os.unlink(log.name)


def _ended(code: int, said: str) -> str:
    """How the compiling process ended, in one line."""
    way = "; it was killed, most often for its memory: name one placement with --placement" if code == -9 else ""
    last = (said.strip() or "nothing").splitlines()[-1][:300]
    return f"the compiling process ended with {code}: {last}{way}"
