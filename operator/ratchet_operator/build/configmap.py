"""The ConfigMap of an attempt: the file that the trainer reads at its start."""

from __future__ import annotations

import json
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.protocol import JOB_FILE
from ratchet_api.protocol.documents import JobFile
from ratchet_operator.build.names import config_map_name, labels, owner

KEY = JOB_FILE.rsplit("/", 1)[-1]


def config_map(
    job: dict[str, Any], spec: Spec, number: int, may_enter: int, worker: int | None = None
) -> dict[str, Any]:
    """ConfigMap NAME-aN-job, or NAME-wI-aN-job, with the document `JobFile`; it belongs to the job."""
    meta = job["metadata"]
    content = JobFile(
        namespace=meta["namespace"],
        name=meta["name"],
        job_uid=meta["uid"],
        spec=spec.manifest(),
        may_enter=may_enter,
    )
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_map_name(meta["name"], number, worker),
            "namespace": meta["namespace"],
            "labels": labels(job, number, worker),
            "ownerReferences": [owner(job)],
        },
        "immutable": True,
        "data": {KEY: json.dumps(content.plain(), ensure_ascii=False, sort_keys=True)},
    }
