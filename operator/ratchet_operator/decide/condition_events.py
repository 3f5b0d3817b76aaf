"""Which changes of conditions are worth an event: those that somebody may have to act on, and the ends of these."""

from __future__ import annotations

from typing import Literal

from ratchet_api.status import Condition
from ratchet_operator.decide import preflight
from ratchet_operator.plan import Event

TOLD: dict[tuple[str, str], tuple[Literal["Normal", "Warning"], str]] = {
    ("Accepted", "False"): ("Warning", "NotAccepted"),
    ("Suspended", "True"): ("Normal", "Suspended"),
    ("Progressing", "False"): ("Warning", "Stalled"),
    ("Progressing", "Unknown"): ("Warning", "NoAnswer"),
    ("AwaitingApproval", "True"): ("Normal", "ApprovalNeeded"),
}
"""Changes of conditions that are worth an event: (type, new status) -> (type of event, reason)."""

EACH_TIME = {
    ("Suspended", "BudgetSpent"),
    ("RolloutsAvailable", "WorkersFail"),
    *(("Placed", reason) for reason in ("PodsRefused", "WaitingForWorkers", *preflight.REASONS)),
}
"""Types and reasons that are worth an event whenever they come up, whatever the status of the condition was."""


def event(old: Condition | None, new: Condition) -> Event | None:
    """The event that a change of a condition is worth; None for most."""
    if new.type == "Learning":
        return _learning_event(old, new)
    if (new.type, new.reason) in EACH_TIME and (old is None or old.reason != new.reason):
        return Event("Warning", new.reason, new.message[:1000])
    told = TOLD.get((new.type, new.status))
    if told is None or told[1] not in (new.reason, f"Not{new.type}") or (old is not None and old.status == new.status):
        return None
    return Event(told[0], told[1], new.message[:1000])


def _learning_event(old: Condition | None, new: Condition) -> Event | None:
    """A warning for each new reason why nothing is learned, and a word when it is over."""
    if new.status == "False" and (old is None or old.reason != new.reason):
        return Event("Warning", new.reason, new.message)
    if new.status == "True" and old is not None and old.status == "False":
        return Event("Normal", new.reason, new.message or "the model learns again")
    return None
