"""`ratchet approve`: lets what comes after a stage begin, by an entry in spec.approvals.

Decides what is refused before the cluster is asked to change anything.
"""

from __future__ import annotations

import difflib
import os
import sys
from typing import Any

import click

from ratchet_cli.ending import fail
from ratchet_cli.job_name import JOB
from ratchet_cli.kube import asked, cluster_options, jobs
from ratchet_cli.kube.parts import at, each, text


@click.command()
@click.argument("job", type=JOB)
@click.argument("stage", required=False)
@cluster_options
def approve(job: str, stage: str | None, namespace: str | None, context: str | None) -> None:
    """Approve the end of STAGE of JOB: the next stage may begin, or the job be completed.

    It may be said before the stage has ended. Without STAGE: the one whose end waits for it. Exits 0 when it is
    approved, 65 for a stage that the job does not have, 66 for a job that is not there, 69 when the cluster cannot be
    reached or refuses.
    """
    with asked(namespace, context) as kube:
        found = jobs.get(kube, job)
        name = text(found, "metadata", "name") or job
        stages = [s for entry in each(found, "spec", "stages") if (s := text(entry, "name"))]
        chosen = stage if stage is not None else _waiting(found)
        if chosen is None:
            fail(os.EX_DATAERR, f"job {name}: no stage waits for an approval; name one of {', '.join(stages)}")
        if chosen not in stages:
            close = difflib.get_close_matches(chosen, stages, n=1)
            meant = f"; did you mean {close[0]}?" if close else ""
            fail(os.EX_DATAERR, f"job {name} has no stage {chosen}; it has {', '.join(stages)}{meant}")
        if jobs.approved(found, chosen):
            click.echo(f"{chosen} is approved already")
            sys.exit(os.EX_OK)
        jobs.approve(kube, found, chosen)
    after = stages[stages.index(chosen) + 1 :][:1]
    click.echo(f"{chosen} is approved: " + (f"stage {after[0]} may begin" if after else "the job may be completed"))


def _waiting(found: dict[str, Any]) -> str | None:
    """The stage whose end waits for an approval, as status has it."""
    approved = {text(entry, "stage") for entry in each(found, "spec", "approvals")}
    ended = [s for s in each(found, "status", "stages") if at(s, "needsApproval") and at(s, "endStep") is not None]
    return next((name for s in ended if (name := text(s, "name")) and name not in approved), None)
