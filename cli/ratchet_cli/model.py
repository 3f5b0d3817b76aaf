"""`ratchet model`: what a model folder is worth, before anything is trained."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from ratchet_cli.manifests import fail

TOLERANCE = 2e-4


@click.group()
def model() -> None:
    """Look at a model in Hugging Face layout."""


@model.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--tolerance", type=float, default=TOLERANCE, show_default=True, help="Largest difference of a logit.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
def check(folder: Path, tolerance: float, json_file: Path | None) -> None:
    """Compare what FOLDER computes here with its `expected.npz`, made by another implementation.

    The file holds input_ids and logits; left_padded_ids, left_padded_mask and left_padded_logits; greedy_ids. Exits 0
    when all agree, 1 when one lies beyond the tolerance, 65 when the folder cannot be used.
    """
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from ratchet_trainer.errors import ConfigurationInvalid
    from ratchet_trainer.model import check as numbers

    try:
        found = numbers.check(folder)
    except ConfigurationInvalid as error:
        fail(os.EX_DATAERR, str(error))
    good = {name: value <= (0.0 if name == "greedy_ids" else tolerance) for name, value in found.items()}
    for name, value in found.items():
        what = "of the tokens differ" if name == "greedy_ids" else "largest difference"
        click.echo(f"{name:20} {value:10.3g}  {what}  {'' if good[name] else 'TOO MUCH'}".rstrip())
    if json_file:
        json_file.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(0 if all(good.values()) else 1)
