"""`ratchet crd`: what follows from the API types, on standard output."""

from __future__ import annotations

import json

import click

from ratchet_api import crd as made
from ratchet_api import reference_page


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["yaml", "json", "json-schema", "markdown"]),
    default="yaml",
    help="CRD as YAML or JSON; JSON schema of manifests for editors; API reference as Markdown.",
)
def crd(form: str) -> None:
    """Print the CustomResourceDefinition, the JSON schema or the API reference.

    Install it: ratchet crd | kubectl apply --server-side -f -
    """
    text = {
        "yaml": made.crd_yaml,
        "json": lambda: json.dumps(made.crd(), indent=2) + "\n",
        "json-schema": lambda: json.dumps(made.json_schema(), indent=2) + "\n",
        "markdown": reference_page.reference,
    }[form]()
    click.echo(text, nl=False)
