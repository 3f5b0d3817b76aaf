"""One job watched: live on a screen, or line by line."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime

import click

from ratchet_cli.job_view import read_job
from ratchet_cli.job_view.curve_source import CurveSource
from ratchet_cli.job_view.follow import Follower
from ratchet_cli.job_view.until import END, Until, cannot_come
from ratchet_cli.kube import Kube, NotFound, Object, jobs

TIMED_OUT, NOT_MET = os.EX_TEMPFAIL, 1


def watch_job(
    kube: Kube, name: str, until: Until | None, deadline: float | None, interval: float, *, live: bool
) -> int:
    """Watches until it is over; the exit code. Raises KubeError."""
    found = jobs.get(kube, name)
    way = _live if live else _lines
    with Follower(kube, found) as follower:
        code, last = way(kube, found, follower, until, deadline, interval)
    if code == TIMED_OUT:
        said = f"{until} does not hold" if until else "it goes on"
        click.echo(f"time is up: {said}; job {name} is {read_job.phase(last)}", err=True)
    elif code == NOT_MET:
        click.echo(f"job {name} is {read_job.phase(last)}: {until} will not come", err=True)
    elif live:
        click.echo(f"job {name} is {read_job.phase(last)}", err=True)
    return code


def _over(job: Object, until: Until | None, *, live: bool) -> int | None:
    """The exit code, once it is over. Without a condition to wait for a screen stays until it is closed."""
    if until is not None:
        return os.EX_OK if until.met(job) else NOT_MET if cannot_come(until, job) else None
    return os.EX_OK if not live and read_job.phase(job) in END else None


def _lines(
    kube: Kube, job: Object, follower: Follower, until: Until | None, deadline: float | None, interval: float
) -> tuple[int, Object]:
    from ratchet_cli.job_view.one_line import line
    from ratchet_cli.job_view.rows import row

    said = ""
    while True:
        now = datetime.now(UTC)
        text = line(row(job, now), now, named=False)
        if text.partition(" ")[2] != said:
            said = text.partition(" ")[2]
            click.echo(text)
            sys.stdout.flush()
        if (code := _over(job, until, live=False)) is not None:
            return code, job
        state = None
        while state is None:
            if deadline is not None and time.monotonic() >= deadline:
                return TIMED_OUT, job
            wait = 1.0 if deadline is None else min(1.0, deadline - time.monotonic())
            try:
                state = follower.next(wait)
            except NotFound as error:
                click.echo(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} Deleted")
                raise error from None
        job = state


def _live(
    kube: Kube, job: Object, follower: Follower, until: Until | None, deadline: float | None, interval: float
) -> tuple[int, Object]:
    from rich.console import Console

    from ratchet_cli.job_view import live
    from ratchet_cli.job_view.gather import of_job
    from ratchet_cli.job_view.terminal import glyphs

    shapes, curve = glyphs(), CurveSource(kube, job)
    latest, ended = job, _over(job, until, live=True)
    if ended is not None:
        return ended, job
    view = of_job(kube, latest, curve)
    gone: list[NotFound] = []

    def refresh() -> bool:
        nonlocal latest, view, ended
        try:
            while (state := follower.next(0.0)) is not None:
                latest = state
                ended = _over(latest, until, live=True)
                if ended is not None:
                    return True
        except NotFound as error:
            gone.append(error)
            return True
        if deadline is not None and time.monotonic() >= deadline:
            ended = TIMED_OUT
            return True
        view = of_job(kube, latest, curve)
        return False

    def foot() -> str:
        if follower.trouble:
            return f"no news: {follower.trouble}"
        waited = f"   until {until}" if until else ""
        return f"q ends{waited}   {datetime.now():%H:%M:%S}"

    console = Console(highlight=False, markup=False, emoji=False)
    live.run(console, lambda screen: live.job(view, screen, shapes, foot()), refresh, interval)
    if gone:
        raise gone[0]
    return ended if ended is not None else os.EX_OK, latest
