"""What the objects of an attempt are made of: the job, and what was decided for this attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet_api.job import Spec
from ratchet_api.placements import Placement


@dataclass(frozen=True)
class NewAttempt:
    """An attempt that is about to be created."""

    job: dict[str, Any]
    """The RLTrainingJob as the API server has it."""
    spec: Spec
    number: int
    placement: Placement
    image: str
    last_step: int
    """The newest committed step that status knows."""
    node_folder: str
    """The nodes' folder for fast tiers; empty if there is none."""
    stay_until: int
    """Nodes are preferred that stay until then, in Unix seconds."""
