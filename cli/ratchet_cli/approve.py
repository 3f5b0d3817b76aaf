"""`ratchet approve`: lets what comes after a stage begin, by an entry in spec.approvals.

Decides what is refused before the cluster is asked to change anything. kubectl is asked, so the kubeconfig counts as
everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import click

from ratchet_api.approvals import json_patch
from ratchet_api.job import GROUP, PLURAL
from ratchet_cli.cluster_files import NotHere, get, kubectl
from ratchet_cli.manifests import fail


@click.command()
@click.argument("job")
@click.argument("stage")
@click.option("-n", "--namespace", help="Namespace of the job; default: the kubeconfig's.")
def approve(job: str, stage: str, namespace: str | None) -> None:
    """Approve the end of STAGE of JOB: the next stage may begin, or the job be completed.

    It may be said before the stage has ended. Exits 0 when it is approved, 65 for a stage that the job does not have,
    66 for a job that is not there, 69 when the cluster cannot be reached or refuses.
    """
    what, scope = f"{PLURAL}.{GROUP}/{job}", ["--namespace", namespace] if namespace else []
    try:
        found = get(what, scope, f"job {job}:")
        program = kubectl(f"job {job}:")
    except NotHere as error:
        fail(error.code, str(error))
    stages = [s["name"] for s in found["spec"]["stages"]]
    if stage not in stages:
        fail(os.EX_DATAERR, f"job {job} has no stage {stage}; it has {', '.join(stages)}")
    if any(a["stage"] == stage for a in found["spec"].get("approvals") or ()):
        click.echo(f"{stage} is approved already")
        sys.exit(os.EX_OK)
    patch = json.dumps(json_patch(found["spec"], stage))
    done = subprocess.run(
        [program, "patch", what, *scope, "--type=json", "--patch", patch], capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        fail(os.EX_UNAVAILABLE, f"job {job}: {(done.stderr.strip().splitlines() or ['kubectl failed'])[-1]}")
    after = stages[stages.index(stage) + 1 :][:1]
    click.echo(f"{stage} is approved: " + (f"stage {after[0]} may begin" if after else "the job may be completed"))
