"""A sign that an attempt is ending: a verdict, what it rests on, and how long its members still have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ratchet_operator.decide.verdict import Verdict, strength

NOTICE_SECONDS = 15.0
"""What ordinary pods get when a GKE spot machine is taken."""
MAINTENANCE_SECONDS = 3600.0
"""What pods get of their terminationGracePeriodSeconds when GKE ends them for a maintenance."""
WHOLE_GRACE = math.inf
"""Window of an end that takes nothing away: the members have their pods' terminationGracePeriodSeconds."""


@dataclass(frozen=True)
class Sign:
    """One sign that an attempt is ending."""

    verdict: Verdict
    evidence: str
    window: float | None
    """Seconds in which all members can still commit one common last step; None: a member is lost, it is too late."""
    stamp: str | None = None
    """When it happened by its own account."""


def strongest(signs: list[Sign]) -> Sign:
    """The sign that gives the verdict."""
    return min(signs, key=lambda sign: strength(sign.verdict))
