"""`ratchet watch`: a job, or all jobs, live.

Decides what a terminal gets (a screen with curves), what a pipe gets (a line for each change), and when it is over.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime

import click

from ratchet_cli.ending import fail
from ratchet_cli.job_name import JOB
from ratchet_cli.kube import Kube, asked, cluster_options, jobs

TIMED_OUT = os.EX_TEMPFAIL


@click.command()
@click.argument("job", required=False, type=JOB)
@cluster_options
@click.option("-A", "--all-namespaces", is_flag=True, help="Jobs of all namespaces.")
@click.option(
    "--until", "wanted", metavar="CONDITION",
    help="End when it holds: Completed, Learning=False, Placed=WaitingForQuota, phase=Running, ...",
)  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="End after this time; exit code 75.")
@click.option("--interval", type=click.FloatRange(min=0.5), default=2.0, show_default=True, help="Seconds a refresh.")
def watch(
    job: str | None,
    namespace: str | None,
    context: str | None,
    all_namespaces: bool,
    wanted: str | None,
    timeout: float | None,
    interval: float,
) -> None:
    """JOB live, with curves; without JOB, the table of all jobs. q or Ctrl-C ends it.

    Into a pipe: a plain line for each change, until the job is over.

    Exits 0 when it ended as asked, 1 when the job is over and CONDITION cannot hold any more, 66 for a job that is
    not there, 69 when the cluster cannot be reached or refuses, 75 after --timeout.
    """
    from ratchet_cli.job_view.terminal import is_terminal
    from ratchet_cli.job_view.until import parse

    if job is None and wanted is not None:
        fail(os.EX_USAGE, "--until is for one job: name it")
    if job is not None and all_namespaces:
        fail(os.EX_USAGE, "a JOB is in one namespace: leave out -A, or JOB")
    try:
        until = parse(wanted) if wanted is not None else None
    except ValueError as error:
        fail(os.EX_USAGE, f"--until {error}")
    deadline = None if timeout is None else time.monotonic() + timeout
    live = is_terminal() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
    with asked(namespace, context) as kube:
        try:
            if job is not None:
                from ratchet_cli.watch_job import watch_job

                code = watch_job(kube, job, until, deadline, interval, live=live)
            else:
                code = _watch_all(kube, all_namespaces, deadline, interval, live=live)
        except KeyboardInterrupt:
            code = os.EX_OK  # the way to end it
    sys.exit(code)


def _watch_all(kube: Kube, all_namespaces: bool, deadline: float | None, interval: float, *, live: bool) -> int:
    from ratchet_cli.job_view.rows import STATUS
    from ratchet_cli.job_view.table_live import table_live

    if live:
        return table_live(kube, STATUS, all_namespaces, deadline, interval, key=lambda row: (row.namespace, row.name))
    from ratchet_cli.job_view.one_line import line
    from ratchet_cli.job_view.rows import row

    said: dict[tuple[str, str], str] = {}
    while True:
        now, here = datetime.now(UTC), set()
        for found in jobs.every(kube, all_namespaces=all_namespaces):
            one = row(found, now)
            key, text = (one.namespace, one.name), line(one, now, named=True)
            here.add(key)
            if said.get(key) != text.partition(" ")[2]:
                said[key] = text.partition(" ")[2]
                click.echo(text)
        for key in [key for key in said if key not in here]:
            del said[key]
            click.echo(f"{now:%Y-%m-%dT%H:%M:%SZ} {key[0]}/{key[1]} Deleted")
        if deadline is not None and time.monotonic() + interval >= deadline:
            return TIMED_OUT
        time.sleep(interval)
