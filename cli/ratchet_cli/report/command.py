"""`ratchet report JOB|FILE`: one HTML file about a run, and a redacted bundle for bug reports.

Decides what is written where and the exit codes. What there is of a run is found by `sources`, what is said of it is
decided in `page` and `bundle`.
"""

from __future__ import annotations

import math
import os
import platform
from importlib import metadata
from pathlib import Path

import click

from ratchet_cli.doctor.command import as_json, examine
from ratchet_cli.kube import cluster_options
from ratchet_cli.manifests import fail
from ratchet_cli.new_file import NewFile
from ratchet_cli.patience import patience
from ratchet_cli.report.bundle import bundle_of
from ratchet_cli.report.page import Facts, facts_of, page
from ratchet_cli.report.sources import gather


class Price(click.ParamType[tuple[str, float]]):
    """`CAPACITY=AMOUNT`, what an hour of one chip costs."""

    name = "CAPACITY=AMOUNT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        kind, _, amount = str(value).partition("=")
        try:
            price = float(amount)
        except ValueError:
            price = math.nan
        if not kind or not math.isfinite(price) or price < 0:
            self.fail(f"{value!r} is no price of a capacity; write for example Spot=1.20", param, ctx)
        return kind, price


@click.command()
@click.argument("job", metavar="JOB|FILE")
@click.option("-o", "--output", type=NewFile(), help="The page; default report-NAME.html.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--workdir", type=click.Path(file_okay=False, path_type=Path), help="Folder of `ratchet train`.")
@cluster_options
@click.option(
    "--price", "prices", type=Price(), multiple=True,
    help="What an hour of one chip costs, by capacity: Spot=1.20; may be repeated. Without it no money is named.",
)  # fmt: skip
@click.option("--bundle", type=NewFile(), help="Write a redacted zip for a bug report, too.")
@click.option(
    "--with-samples", is_flag=True, help="Put samples and logs of trainers, which can hold prompts, into the bundle."
)
@click.option("--unit", default="", help="Of the prices, for the page: USD.")
def report(
    job: str,
    output: Path | None,
    force: bool,
    workdir: Path | None,
    namespace: str | None,
    context: str | None,
    prices: tuple[tuple[str, float], ...],
    bundle: Path | None,
    with_samples: bool,
    unit: str,
) -> None:
    """Write one HTML file, without network, about a run: did it learn, what happened, where every second went.

    FILE is a manifest that `ratchet train` trained, or a folder of checkpoints, gs:// and s3:// too; JOB, the name of
    an RLTrainingJob in the cluster of the kubeconfig. What cannot be had is said in the page, in its place.

    Exit codes: 65 for a manifest with problems, 66 where nothing can be read, 69 where no cluster answers, 73 where the
    file exists or cannot be written.
    """
    with patience(f"reading what there is of {job}"):
        sources = gather(job, workdir, namespace, context)
    known = versions()
    facts = facts_of(sources, dict(prices), unit, known)
    file = output or Path(f"report-{sources.name}.html")
    for wanted in (file, bundle):
        if wanted is not None:
            refuse_existing(wanted, force)
    with patience("drawing the page"):
        made = page(facts).encode()
    write(file, made)
    click.echo(f"{file}: {len(made) / 1000:,.0f} kB; {facts.verdict.words}")
    tell_missing(facts)
    if bundle is not None:
        with patience("asking the cluster what belongs into the bundle"):
            packed = bundle_of(
                sources,
                lambda clean: page(facts_of(clean, dict(prices), unit, known)),
                known,
                as_json(examine(None, sources.namespace, context, local=sources.job is None)),
                texts=with_samples,
            )
        data = packed.zipped()
        write(bundle, data)
        click.echo(f"{bundle}: {len(packed.files) + 1} files, {len(data) / 1000:,.0f} kB; look before you share it")
        for line in packed.left_out():
            click.echo(f"  left out: {line}", err=True)


def tell_missing(facts: Facts) -> None:
    """What the page could not have, to standard error."""
    for note in facts.sources.missing.values():
        click.echo(f"  not in it: {note}", err=True)


def refuse_existing(file: Path, force: bool) -> None:
    """Exits with 73 where a file would be lost."""
    if file.exists() and not force:
        fail(os.EX_CANTCREAT, f"{file}: is there already; name another file with -o, or replace it with --force")


def write(file: Path, data: bytes) -> None:
    """Whole or not at all. Exits with 73."""
    beside = file.with_name(f".{file.name}.tmp")
    try:
        beside.write_bytes(data)
        os.replace(beside, file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        fail(os.EX_CANTCREAT, f"{file}: {error.strerror}; name a file that can be written")


def versions() -> dict[str, str]:
    """Of this program and of what it stands on, as far as they are installed."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in ("ratchet-rl", "jax", "jaxlib", "kopf", "kubernetes"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
