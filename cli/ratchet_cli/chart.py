"""`ratchet chart`: where the chart lies that comes with the program, in the checkout or inside the package."""

from __future__ import annotations

import os

import click

from ratchet_cli.manifests import fail


@click.command()
def chart() -> None:
    """Print the folder of the chart that comes with this version, for helm.

    For example: helm install ratchet "$(ratchet chart)" --namespace ratchet-system --create-namespace

    Exits 70 where the installation has none.
    """
    from ratchet_cluster.chart_folder import chart_folder

    try:
        click.echo(chart_folder())
    except FileNotFoundError as problem:
        fail(os.EX_SOFTWARE, str(problem))
