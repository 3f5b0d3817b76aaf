"""Pure: from a Snapshot to a Plan, one concept a file; `lifecycle` is where to begin reading."""

from ratchet_operator.decide.lifecycle import decide

__all__ = ["decide"]
