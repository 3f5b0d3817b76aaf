"""What is done about maintenance that is announced: `spec.maintenance`.

Decides what a manifest may say of it. How nodes announce it is read in `ratchet_operator/decide/observed_node.py`, what
follows from it is in `ratchet_operator/decide/maintenance.py`.
"""

from __future__ import annotations

from pydantic import Field

from ratchet_api.base import ApiModel, Whole, whole


class Maintenance(ApiModel):
    """What is done before machines go at a time that is known beforehand."""

    lead_seconds: Whole = whole(
        "Seconds before an announced maintenance, or the known end of a machine, from which on the machine counts as "
        "going: a checkpoint is asked for, and a new attempt takes other nodes where there are some.",
        ge=60,
        le=604_800,
        default=3600,
    )


MAINTENANCE = Field(default=Maintenance(), description="What is done before maintenance that is announced.")
