"""`ratchet status`: all jobs of a namespace in a table, or one job on one screen.

Decides how the answer is printed: for people, or as a document for scripts.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ratchet_cli.ending import fail
from ratchet_cli.job_name import JOB
from ratchet_cli.kube import asked, cluster_options, jobs

if TYPE_CHECKING:
    from ratchet_cli.job_view.rows import JobRow

JOB_VERSION, LIST_VERSION = "ratchet.dev/job-status/v1", "ratchet.dev/job-list/v1"
"""Of the documents, whose schemas are in ratchet_cli/schemas: a field may be added, none changes its meaning."""


@click.command()
@click.argument("job", required=False, type=JOB)
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
@click.option("-l", "--selector", help="Only jobs with these labels, as kubectl has it.")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Print a document instead.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the document here, too.")
def status(
    job: str | None,
    namespace: str | None,
    context: str | None,
    all_namespaces: bool,
    selector: str | None,
    output: str | None,
    file: Path | None,
) -> None:
    """What JOB does, where, how fast, whether it learns, and why it waits; without JOB, all jobs in a table.

    Exits 0, 66 for a job or a namespace that is not there, 69 when the cluster cannot be reached or refuses. What may
    not be read (events, pods) is named, the rest is shown.
    """
    if job is not None and (all_namespaces or selector):
        fail(os.EX_USAGE, "a JOB is in one namespace: leave out -A and -l, or JOB")
    if job is not None:
        _one(job, namespace, context, output, file)
    else:
        _all(namespace, context, all_namespaces, selector, output, file)


def _one(job: str, namespace: str | None, context: str | None, output: str | None, file: Path | None) -> None:
    from ratchet_cli.job_view.document import plain
    from ratchet_cli.job_view.gather import gather

    with asked(namespace, context) as kube:
        view = gather(kube, job)
    document = {"version": JOB_VERSION, **plain(view)}
    if not _documented(document, output, file):
        from ratchet_cli.job_view.screen import lines
        from ratchet_cli.job_view.terminal import console, glyphs

        screen = console()
        for line in lines(view, screen, glyphs()):
            screen.print(line, soft_wrap=True)


def _all(
    namespace: str | None,
    context: str | None,
    all_namespaces: bool,
    selector: str | None,
    output: str | None,
    file: Path | None,
) -> None:
    from ratchet_cli.job_view.document import plain
    from ratchet_cli.job_view.rows import row

    with asked(namespace, context) as kube:
        now, where = datetime.now(UTC), kube.namespace
        found = jobs.every(kube, all_namespaces=all_namespaces, selector=selector)
        rows = sorted((row(job, now) for job in found), key=lambda r: (r.namespace, r.name))
    if _documented({"version": LIST_VERSION, "jobs": [plain(r) for r in rows]}, output, file):
        return
    if not rows:
        place = "in no namespace" if all_namespaces else f"in namespace {where}"
        click.echo(f"no jobs {place}" + ("" if all_namespaces else "; -A looks into all of them"), err=True)
        return
    print_table(rows, namespaces=all_namespaces)


def print_table(rows: Sequence[JobRow], *, namespaces: bool) -> None:
    """The table of jobs, and for people how many there are of each phase."""
    from rich.text import Text

    from ratchet_cli.job_view.columns import table
    from ratchet_cli.job_view.rows import STATUS, cells
    from ratchet_cli.job_view.terminal import console, is_terminal

    screen = console()
    lines = table(*cells(STATUS, rows, namespaces=namespaces), screen.width)
    screen.print(Text("\n").join(lines), soft_wrap=True)  # at once: line by line takes twice as long
    if is_terminal() and len(rows) > 1:
        phases = Counter(row.phase for row in rows)
        summary = ", ".join(f"{n} {phase}" for phase, n in phases.most_common())
        screen.print(f"{len(rows)} jobs: {summary}", style="dim")


def _documented(document: dict[str, Any], output: str | None, file: Path | None) -> bool:
    """Prints and writes the document as asked; whether it was printed."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    if file is not None:
        try:
            file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            fail(os.EX_CANTCREAT, f"{file}: cannot be written: {error.strerror}")
    if output == "json":
        click.echo(text)
    elif output == "yaml":
        import yaml

        yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=True)
    return output is not None
