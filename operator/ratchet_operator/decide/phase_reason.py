"""Why a job is in its phase: the reason of the one condition that says so. For metrics, read off a status as it is."""

from __future__ import annotations

from typing import Any

from ratchet_api.status import PHASES

WAITING = ("Placed", "Running")
SAYS_WHY: dict[str, tuple[str, ...]] = {
    # phase -> conditions that may say why, the first that is not what one hopes for is taken
    "Pending": WAITING,
    "Placing": WAITING,
    "Recovering": WAITING,
    "Running": ("Progressing", "Running"),
    "AwaitingApproval": ("AwaitingApproval",),
    "Suspended": ("Suspended",),
    "Completed": ("Completed",),
    "Failed": ("Failed",),
}
assert set(SAYS_WHY) == set(PHASES)


def phase_reason(status: dict[str, Any]) -> tuple[str, str]:
    """Phase and reason of a job; Pending and no reason of one that has no status yet."""
    phase = status.get("phase") or "Pending"
    found = {condition["type"]: condition for condition in status.get("conditions", ())}
    if (found.get("Accepted") or {}).get("status") == "False":
        return phase, found["Accepted"]["reason"]
    chosen = [found[kind] for kind in SAYS_WHY.get(phase, ()) if kind in found]
    unmet = [condition for condition in chosen[:-1] if condition["status"] != "True"]
    return phase, (unmet or chosen[-1:] or [{"reason": ""}])[0]["reason"]
