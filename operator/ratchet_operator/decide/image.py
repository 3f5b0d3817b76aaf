"""Which image the trainers of a job run: decided once, pinned to its digest as soon as that is known.

An upgrade of the operator, or of a tag, never changes the bits of a job that has begun.
"""

from __future__ import annotations

from ratchet_api.job import Spec
from ratchet_api.status import Resolved
from ratchet_operator.decide.plan_builder import PlanBuilder


def resolve(builder: PlanBuilder, spec: Spec) -> str:
    """The image of the next attempt. `spec.image` can change it only while the job is suspended."""
    before = builder.status.resolved.image if builder.status.resolved else None
    default = spec.image or builder.observed.snapshot.values.image
    if before is None:
        builder.revise(resolved=Resolved(image=default))
        return default
    if spec.image is not None and before != spec.image and not before.startswith(spec.image + "@"):
        builder.revise(resolved=Resolved(image=spec.image))
        builder.event("Normal", "ImageChanged", f"the trainer's image is {spec.image} from now on; it was {before}")
        return spec.image
    return before or default


def pin(builder: PlanBuilder, image_id: str) -> None:
    """Replaces a tag by tag@digest once a pod has shown which image the tag meant."""
    image = builder.status.resolved.image if builder.status.resolved else None
    digest = image_id.rpartition("@")[2]
    if image is not None and "@" not in image and "@" in image_id and digest.startswith("sha256:"):
        builder.revise(resolved=Resolved(image=f"{image}@{digest}"))
