"""`ratchet validate`: everything that is wrong with a manifest, before a cluster sees it."""

from __future__ import annotations

import json
import os
import sys

import click

from ratchet_api.validate import problems
from ratchet_cli.manifests import describe, read


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of {file, path, message}.")
def validate(files: tuple[str, ...], as_json: bool) -> None:
    """Say what is wrong in manifests, with paths and ways out. `-` reads standard input.

    Exits 0 when all are right, 65 when something is wrong, 66 when a file cannot be read.
    """
    found = [(document, problem) for file in files for document in read(file) for problem in problems(document.data)]
    if as_json:
        rows = [{"file": document.place(p.path), "path": p.path, "message": p.message} for document, p in found]
        click.echo(json.dumps(rows, indent=2))
    else:
        for document, problem in found:
            click.echo(describe(document, [problem])[0], err=True)
        if not found:
            click.echo(f"{', '.join(files)}: valid")
    sys.exit(os.EX_DATAERR if found else os.EX_OK)
