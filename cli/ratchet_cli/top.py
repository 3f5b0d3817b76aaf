"""`ratchet top`: who uses the chips, and to what end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ratchet_cli.kube import asked, cluster_options, jobs

if TYPE_CHECKING:
    from ratchet_cli.job_view.rows import JobRow

SORTS = ("chips", "tokens", "goodput", "restarts", "age")


@click.command()
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
@click.option("--sort", type=click.Choice(SORTS), default="chips", show_default=True, help="What comes first.")
@click.option("--interval", type=click.FloatRange(min=0.5), default=2.0, show_default=True, help="Seconds a refresh.")
@click.option("--once", is_flag=True, help="Print the table once, as into a pipe.")
def top(
    namespace: str | None, context: str | None, all_namespaces: bool, sort: str, interval: float, once: bool
) -> None:
    """Jobs by chips used, tokens a second, goodput or restarts; refreshes itself in a terminal, q ends it.

    GOODPUT is the share of time that was not lost to recoveries and repeated steps, as far as status tells: of the
    last 20 attempts. Exits 0, 66 for a namespace that is not there, 69 when the cluster cannot be reached or refuses.
    """
    import os

    from ratchet_cli.job_view.columns import table
    from ratchet_cli.job_view.rows import SORTS as BY
    from ratchet_cli.job_view.rows import TOP, cells, row
    from ratchet_cli.job_view.terminal import console, is_terminal

    def key(one: JobRow) -> tuple[float, str, str]:
        return BY[sort](one), one.namespace, one.name

    live = not once and is_terminal() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
    with asked(namespace, context) as kube:
        if live:
            from ratchet_cli.job_view.table_live import table_live

            try:
                sys.exit(table_live(kube, TOP, all_namespaces, None, interval, key=key, head=summary))
            except KeyboardInterrupt:
                sys.exit(0)
        now = datetime.now(UTC)
        rows = sorted((row(job, now) for job in jobs.every(kube, all_namespaces=all_namespaces)), key=key)
    screen = console()
    if is_terminal():
        screen.print(summary(rows), style="bold")
    for line in table(*cells(TOP, rows, namespaces=all_namespaces), screen.width):
        screen.print(line, soft_wrap=True)


def summary(rows: Sequence[JobRow]) -> str:
    """Totals of all jobs."""
    from ratchet_cli.job_view.words import count, short

    running = [row for row in rows if row.phase == "Running"]
    tokens = sum(row.tokens_per_second or 0.0 for row in running)
    chips = sum(row.chips_used for row in rows)
    return f"{count(len(rows), 'job')}, {len(running)} running, {count(chips, 'chip')} used, {short(tokens)} tokens/s"
