"""`ratchet logs`: what the trainer said, across attempts.

Decides which attempts and which process are shown, and what is said of logs that are gone with their pods.
"""

from __future__ import annotations

import os
import re

import click

from ratchet_cli.ending import fail
from ratchet_cli.job_name import JOB
from ratchet_cli.kube import asked, cluster_options, jobs

DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")


class Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or 5m, 2h30m as kubectl has them."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Whole seconds."""
        if isinstance(value, int):
            return value
        match = DURATION.fullmatch(str(value).strip())
        if match is None or not any(match.groups()):
            self.fail(f"{value!r} is no duration; write 30s, 5m or 2h", param, ctx)
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if not 0 < total < 10**9:
            self.fail(f"{value!r} is no span of time that a log can cover", param, ctx)
        return total


@click.command()
@click.argument("job", type=JOB)
@cluster_options
@click.option(
    "--attempt",
    type=click.IntRange(min=1),
    help="Only this attempt; default: all whose pods are there, else the last one.",
)
@click.option("--process", type=click.IntRange(min=0), default=0, show_default=True, help="Which one; 0 is the leader.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, in later attempts, too.")
@click.option("--since", type=Duration(), help="Only what was said in the last 30s, 5m, 2h.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many last lines of each attempt.")
@click.option("--timestamps", is_flag=True, help="Each line with the time at which it was written.")
def logs(
    job: str,
    namespace: str | None,
    context: str | None,
    attempt: int | None,
    process: int,
    follow: bool,
    since: int | None,
    tail: int | None,
    timestamps: bool,
) -> None:
    """The trainer's log of JOB, attempt by attempt, each under a line that says how it began and ended.

    A log goes with its pod, and a pod with its node. Of an attempt whose pods are gone, --attempt shows the end of the
    log that the trainer kept beside the checkpoints, where those can be read from this machine; so it does where no
    pods are left. --since, --timestamps and --follow are for pods.

    Exits 0, 65 for an attempt or a process that the job does not have, 66 for a job that is not there or has no log,
    69 when the cluster cannot be reached or refuses.
    """
    from ratchet_cli.log_reader import LogReader, Wanted

    wanted = Wanted(process, since, tail, timestamps)
    with asked(namespace, context) as kube:
        reader = LogReader(kube, jobs.get(kube, job), wanted)
        if problem := reader.problem(attempt):
            fail(os.EX_DATAERR, problem)
        shown = reader.show(attempt, follow=follow)
    if not shown:
        fail(os.EX_NOINPUT, *reader.nothing(attempt))
