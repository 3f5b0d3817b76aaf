"""What the objects of an attempt, or of a worker, are made of: the job, and what was decided for this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.placements import Placement
from ratchet_api.pod_template import PodTemplate
from ratchet_operator.build import names
from ratchet_operator.snapshot import Values


@dataclass(frozen=True)
class NewAttempt:
    """An attempt, or a worker of the rollout fleet, that is about to be created."""

    job: dict[str, Any]
    """The RLTrainingJob as the API server has it."""
    spec: Spec
    number: int
    """Of the attempt, or of the worker's JobSet."""
    placement: Placement
    image: str
    last_step: int
    """The newest committed step that status knows."""
    values: Values
    """What the operator's configuration prefers."""
    stay_until: int
    """Nodes are preferred that stay until then, in Unix seconds."""
    worker: int | None = None
    """Number of the worker; None: it is a trainer's attempt."""

    @property
    def jobset(self) -> str:
        """Name of its JobSet."""
        return names.jobset_name(self.job["metadata"]["name"], self.number, self.worker)

    @property
    def config_map(self) -> str:
        """Name of the ConfigMap with its job file."""
        return names.config_map_name(self.job["metadata"]["name"], self.number, self.worker)

    @property
    def labels(self) -> dict[str, str]:
        """Labels by which its objects are known."""
        return names.labels(self.job, self.number, self.worker)

    @property
    def template(self) -> PodTemplate:
        """What the manifest adds to its pods."""
        if self.worker is None:
            return self.spec.pod_template
        assert self.spec.rollouts is not None, "there are workers"
        return self.spec.rollouts.pod_template

    @property
    def priority_class(self) -> str:
        """Class of its pods; empty: the cluster's default. A worker's is low, so that whoever needs its chips more
        may take them: that costs no step."""
        given = self.template.priority_class_name
        return given or ("" if self.worker is None else self.values.worker_priority_class)

    @property
    def command(self) -> list[str]:
        return ["ratchet", "trainer" if self.worker is None else "rollout-worker"]
