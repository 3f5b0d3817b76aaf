"""What every object of Kubernetes that is looked at here has: conditions, and our label with the attempt's number."""

from __future__ import annotations

from ratchet_api.protocol import LABEL_ATTEMPT, LABEL_WORKER, LABEL_WORKER_ATTEMPT
from ratchet_api.protocol.documents import ATTEMPT_MAX
from ratchet_operator.snapshot import Raw


def condition(of: Raw, kind: str) -> Raw | None:
    """The condition of that type, if the object has it."""
    return next((c for c in of.get("status", {}).get("conditions") or () if c.get("type") == kind), None)


def attempt_number(of: Raw) -> int | None:
    """The attempt that an object belongs to; None when its label is no such number: a label is anybody's to write."""
    return _number(of, LABEL_ATTEMPT)


def worker(of: Raw) -> tuple[int, int] | None:
    """Number of the worker that an object belongs to, and of the JobSet that it has or is; None for what is none of a
    worker's."""
    number, attempt = _number(of, LABEL_WORKER), _number(of, LABEL_WORKER_ATTEMPT)
    return None if number is None or attempt is None else (number, attempt)


def _number(of: Raw, label: str) -> int | None:
    text = (of["metadata"].get("labels") or {}).get(label)
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(ATTEMPT_MAX)):
        return None
    return int(text) if int(text) <= ATTEMPT_MAX else None
