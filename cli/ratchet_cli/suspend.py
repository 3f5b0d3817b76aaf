"""`ratchet suspend` and `ratchet resume`: spec.suspend, and what it means.

Decides what is refused, and how long is waited for what was asked.
"""

from __future__ import annotations

import os
import sys
import time

import click

from ratchet_cli.ending import fail
from ratchet_cli.job_name import JOB
from ratchet_cli.kube import Kube, Object, asked, cluster_options, jobs
from ratchet_cli.kube.parts import at, text
from ratchet_cli.program import program

WAIT = click.option("--wait", is_flag=True, help="Wait until it is so.")
TIMEOUT = click.option(
    "--timeout", type=click.FloatRange(min=0), default=600.0, show_default=True, metavar="SECONDS",
    help="With --wait: how long; exit code 75 after that.",
)  # fmt: skip


@click.command()
@click.argument("job", type=JOB)
@cluster_options
@WAIT
@TIMEOUT
def suspend(job: str, namespace: str | None, context: str | None, wait: bool, timeout: float) -> None:
    """Let JOB rest: it commits its last step, its pods end, and their capacity is free for others.

    Exits 0, 65 for a job that is over, 66 for one that is not there, 69 when the cluster cannot be reached or refuses,
    75 when --wait took too long: what was asked for stays asked for.
    """
    with asked(namespace, context) as kube:
        found = _unfinished(kube, job)
        name = text(found, "metadata", "name") or job
        if at(found, "spec", "suspend") is True:
            click.echo(f"{name} is to be suspended already")
        else:
            found = jobs.suspend(kube, name, True)
            click.echo(
                f"{name} is being suspended: it commits its last step, then its pods end and their capacity is free. "
                f"It goes on from there with: {program()} resume {name} -n {kube.namespace}"
            )
        if wait:
            _until(kube, found, "Suspended=Suspended", timeout)


@click.command()
@click.argument("job", type=JOB)
@cluster_options
@WAIT
@TIMEOUT
def resume(job: str, namespace: str | None, context: str | None, wait: bool, timeout: float) -> None:
    """Let JOB go on from its last checkpoint, with the next attempt. With --wait: until all its pods run.

    Exits 0, 65 for a job that is over or rests for another reason, 66 for one that is not there, 69 when the cluster
    cannot be reached or refuses, 75 when --wait took too long: what was asked for stays asked for.
    """
    from ratchet_cli.job_view.read_job import checkpoint, conditions

    with asked(namespace, context) as kube:
        found = _unfinished(kube, job)
        name = text(found, "metadata", "name") or job
        rests = conditions(found).get("Suspended")
        if at(found, "spec", "suspend") is not True:
            if text(rests, "status") == "True" and text(rests, "reason") == "BudgetSpent":
                fail(os.EX_DATAERR, f"{name} rests for its budget: {text(rests, 'message')}")
            click.echo(f"{name} is not suspended")
        else:
            found = jobs.suspend(kube, name, False)
            from datetime import UTC, datetime

            saved = checkpoint(found, datetime.now(UTC))
            start = f"from step {saved.step}" if saved is not None else "from the beginning: no checkpoint was made yet"
            click.echo(f"{name} goes on {start}, as soon as there is room for it")
        if wait:
            _until(kube, found, "Running", timeout)


def _unfinished(kube: Kube, job: str) -> Object:
    from ratchet_cli.job_view.read_job import phase
    from ratchet_cli.job_view.until import END

    found = jobs.get(kube, job)
    if phase(found) in END:
        fail(os.EX_DATAERR, f"job {text(found, 'metadata', 'name')} is {phase(found)}: it is over")
    return found


def _until(kube: Kube, job: Object, wanted: str, timeout: float) -> None:
    """Waits, and says what it waits for whenever that changes. Exits with 75 after it, 65 where the job ends."""
    from ratchet_cli.job_view.follow import Follower
    from ratchet_cli.job_view.read_job import phase
    from ratchet_cli.job_view.until import cannot_come, parse

    until, deadline, said = parse(wanted), time.monotonic() + timeout, ""
    name, begin = text(job, "metadata", "name"), time.monotonic()
    with Follower(kube, job) as follower:
        while not until.met(job):
            if cannot_come(until, job):
                fail(os.EX_DATAERR, f"job {name} is {phase(job)}: it is over")
            if (now := _doing(job)) != said:
                said = now
                click.echo(f"  {time.monotonic() - begin:5.0f} s  {said}", err=True)
            state = None
            while state is None:
                if (left := deadline - time.monotonic()) <= 0:
                    fail(os.EX_TEMPFAIL, f"job {name}: not yet {until} after {timeout:.0f} s: {said}")
                state = follower.latest(min(1.0, left))
            job = state
    click.echo(f"{name} is {phase(job)} after {time.monotonic() - begin:.0f} s")
    sys.stdout.flush()


def _doing(job: Object) -> str:
    """Why it is not so yet, in the operator's words."""
    from ratchet_cli.job_view.read_job import conditions, phase

    known = conditions(job)
    for kind in ("Suspended", "AwaitingApproval", "Placed", "Running"):
        condition = known.get(kind)
        reason, message = text(condition, "reason"), text(condition, "message")
        if kind in ("Placed", "Running") and text(condition, "status") != "False":
            continue
        if reason not in (None, "NotSuspended", "NotRequired", "NotPlaced"):
            return f"{phase(job)}: {message or reason}"
    return phase(job)
