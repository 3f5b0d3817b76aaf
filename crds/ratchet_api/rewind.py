"""Beginning a stage again: `spec.rewind`.

Decides what a manifest may say. What becomes of the job's status is `ratchet_operator/decide/rewind.py`'s, which
checkpoints count afterwards the journal's (`ratchet_trainer/checkpoints/journal.py`).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ratchet_api.base import ApiModel, Name, Whole, whole


class Rewind(ApiModel):
    """One order to begin a stage again from the end of the one before it."""

    id: Whole = whole("Number of the order; each new one is larger than the one before.", ge=1, le=1_000_000)
    stage: Name = Field(
        description="The stage that begins again. It and those after it may be changed in the same edit, whether the "
        "job runs or has Failed; the steps that were made of them count no more."
    )


REWIND: Any = Field(
    default=None,
    description="Begin a stage again, from the end of the one before it; absent: never. In a new job with the "
    "directory of another one (checkpoint.existing: Resume) the stage begins again before anything else is done.",
)
