"""What every object of Kubernetes that is looked at here has: conditions, and our label with the attempt's number."""

from __future__ import annotations

from ratchet_api.protocol import LABEL_ATTEMPT
from ratchet_api.protocol.documents import ATTEMPT_MAX
from ratchet_operator.snapshot import Raw


def condition(of: Raw, kind: str) -> Raw | None:
    """The condition of that type, if the object has it."""
    return next((c for c in of.get("status", {}).get("conditions") or () if c.get("type") == kind), None)


def attempt_number(of: Raw) -> int | None:
    """The attempt that an object belongs to; None when its label is no such number: a label is anybody's to write."""
    text = (of["metadata"].get("labels") or {}).get(LABEL_ATTEMPT)
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(ATTEMPT_MAX)):
        return None
    return int(text) if int(text) <= ATTEMPT_MAX else None
