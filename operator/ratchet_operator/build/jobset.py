"""The JobSet of one attempt, or of one worker: a gang of pods that never restarts by itself.

Decides the shape of the gang: one replicated job `s` with one Job a slice and one pod a host, no retry on any level.
Ratchet owns restarts: a JobSet's own would reuse names and could start one slice while another still writes. The pod
is `pod`'s.
"""

from __future__ import annotations

from typing import Any

from ratchet_api.protocol import REPLICATED_JOB
from ratchet_api.validate import placement_shape, processes
from ratchet_operator.build.names import owner
from ratchet_operator.build.new_attempt import NewAttempt
from ratchet_operator.build.nodes import AFFINITY_PODS, NODE_POOL, sliced
from ratchet_operator.build.pod import pod_template

EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"


def jobset(new: NewAttempt) -> dict[str, Any]:
    """JobSet NAME-aN of an attempt, or NAME-wI-aN of a worker."""
    job, spec, placement = new.job, new.spec, new.placement
    meta, shape = job["metadata"], placement_shape(placement)
    own, added = new.labels, spec.job_set_template
    huge = sliced(placement) and processes(placement) > AFFINITY_PODS
    annotations = {**added.annotations, **({EXCLUSIVE: NODE_POOL} if huge else {})}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": new.jobset,
            "namespace": meta["namespace"],
            "labels": {**added.labels, **own},
            **({"annotations": annotations} if annotations else {}),
            "ownerReferences": [owner(job)],
        },
        "spec": {
            "failurePolicy": {"maxRestarts": 0},
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "replicatedJobs": [
                {
                    "name": REPLICATED_JOB,
                    "replicas": placement.slices,
                    "template": {
                        "metadata": {"labels": own},
                        "spec": {
                            "completionMode": "Indexed",
                            "parallelism": shape.hosts,
                            "completions": shape.hosts,
                            "backoffLimit": 0,
                            # With podReplacementPolicy Failed a Job on a dead node would hang.
                            "podReplacementPolicy": "TerminatingOrFailed",
                            "template": pod_template(new),
                        },
                    },
                }
            ],
        },
    }
