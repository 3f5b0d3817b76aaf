"""The termination message: why this process left, for the operator to read from the pod's status.

Its form is `ratchet_api.protocol.documents.TerminationMessage`; here it is written.
"""

from __future__ import annotations

import logging
from pathlib import Path

from ratchet_api.protocol.documents import termination_message as message

log = logging.getLogger(__name__)

__all__ = ["message", "write"]


def write(path: Path, content: bytes) -> None:
    """Writes the message. A file that cannot be written costs the evidence, not the exit code."""
    try:
        path.write_bytes(content)
    except OSError as error:
        log.warning("termination message not written to %s: %s", path, error)
