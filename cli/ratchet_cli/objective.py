"""`ratchet objective check`: the project's losses against numbers made by other implementations.

Decides tolerance, print and exit code. The arithmetic is `ratchet_trainer/tools/objective_check.py`, in a process of
its own: JAX never gets into this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click

from ratchet_cli.manifests import fail
from ratchet_cli.new_file import NewFile


@click.group()
def objective() -> None:
    """Check the numbers of the objective: advantages, losses, gradients, KL."""


@objective.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-5,
    show_default=True,
    help="X allows a difference of X * (0.1 + largest value) in each array.",
)
@click.option("--json", "json_file", type=NewFile(), help="Write the differences here.")
def check(file: Path, tolerance: float, json_file: Path | None) -> None:
    """Recompute every array of a golden FILE (.npz, or .json) and print its largest difference.

    Exits 0 within tolerance, 1 beyond it, 65 for a file that does not hold such numbers, 66 when it cannot be read.
    """
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_trainer.tools.objective_check", str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    if done.returncode:
        known = done.returncode in (os.EX_DATAERR, os.EX_NOINPUT)
        fail(done.returncode if known else os.EX_SOFTWARE, f"{file}: {done.stderr.strip()[-2000:]}")
    arrays = json.loads(done.stdout)
    for found in arrays.values():
        found["allowed"] = tolerance * (0.1 + found["largest"])
    beyond = [name for name, found in arrays.items() if not found["difference"] <= found["allowed"]]
    if json_file:
        verdict = {"file": str(file), "tolerance": tolerance, "equal": not beyond, "arrays": arrays}
        json_file.write_text(json.dumps(verdict, indent=2) + "\n")
    for name, found in arrays.items():
        mark = "  BEYOND" if name in beyond else ""
        click.echo(f"{name:50} {found['difference']:.2e}  of {found['allowed']:.2e} allowed{mark}")
    click.echo(f"{len(arrays) - len(beyond)} of {len(arrays)} arrays within tolerance")
    sys.exit(1 if beyond else os.EX_OK)
