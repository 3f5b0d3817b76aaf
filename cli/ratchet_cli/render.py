"""`ratchet render FILE`: every Kubernetes object that a manifest would become, before anything is applied.

Asks the operator's own core for its first plan, so what is printed is what would be created. Nothing is contacted.
"""

from __future__ import annotations

import os

import click
import yaml

from ratchet_api.cluster_names import pod_templates
from ratchet_api.job import Spec
from ratchet_cli.manifests import fail, read_job
from ratchet_operator.decide import decide
from ratchet_operator.plan import Plan, Raw
from ratchet_operator.snapshot import Snapshot, Values

UID = "00000000-0000-0000-0000-000000000000"
NOW = "1970-01-01T00:00:00.000Z"


@click.command()
@click.argument("file")
@click.option("--namespace", "-n", default="default", show_default=True, help="Namespace, if the manifest names none.")
@click.option(
    "--image",
    default=lambda: os.environ.get("RATCHET_TRAINER_IMAGE", "ratchet-trainer"),
    show_default="RATCHET_TRAINER_IMAGE or ratchet-trainer",
    help="The operator's default trainer image, for a manifest that names none.",
)
def render(file: str, namespace: str, image: str) -> None:
    """Print every Kubernetes object that a manifest would become.

    FILE is a manifest, or - for standard input. The job's uid is not known before it is applied; zeros stand for it.
    Exit codes: 65 for a manifest with problems, 66 for a file that cannot be read.
    """
    manifest, job = read_job(file)
    metadata = {"namespace": namespace, **manifest["metadata"], "uid": UID, "generation": 1}
    asked = {**manifest, "metadata": metadata, "spec": job.spec.manifest()}
    asked["spec"]["suspend"] = False  # what would be created once it is resumed
    named = (template.service_account_name for _, template in pod_templates(job.spec))
    values = Values(image=image, service_accounts=tuple(filter(None, named)), allow_root=True)
    plan = decide(Snapshot(now=NOW, job=asked, values=values))
    if not plan.create:
        conditions = (plan.status or {}).get("conditions", [])
        refusal = next((c["message"] for c in conditions if c["type"] == "Accepted"), "nothing would be created")
        fail(os.EX_DATAERR, f"{file}: {refusal}")
    objects = [*plan.create, *_of_workers(asked, job.spec, plan, values)]
    click.echo(yaml.safe_dump_all(objects, sort_keys=False, width=120, allow_unicode=True), nl=False)


def _of_workers(asked: Raw, spec: Spec, plan: Plan, values: Values) -> tuple[Raw, ...]:
    """The objects of the first workers, which follow once the trainer runs in a stage that samples."""
    index = next((i for i, stage in enumerate(spec.stages) if stage.rl is not None), None)
    if spec.rollouts is None or index is None:
        return ()
    stage = {"name": spec.stages[index].name, "index": index, "startStep": 0}
    status = {**(plan.status or {}), "stage": stage, "rollouts": {"trainerWaits": True}}
    return decide(Snapshot(now=NOW, job={**asked, "status": status}, values=values)).create_last
