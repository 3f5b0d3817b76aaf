"""The termination message: why this process left, for the operator to read from the pod's status.

Decides its form: JSON `{v, reason, message, step, boundary?, owner?}`, at most 4,096 bytes.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ratchet_api.protocol import TERMINATION_MESSAGE_LIMIT, V

log = logging.getLogger(__name__)


def message(reason: str, text: str, step: int, boundary: dict | None = None, owner: dict | None = None) -> bytes:
    """The message as bytes that fit; `text` is cut in the middle if it must be (its start and its end say the most)."""
    body: dict[str, Any] = {"v": V, "reason": reason, "message": text, "step": step}
    body |= {k: v for k, v in (("boundary", boundary), ("owner", owner)) if v is not None}
    while len(encoded := json.dumps(body, separators=(",", ":")).encode()) > TERMINATION_MESSAGE_LIMIT:
        excess = len(encoded) - TERMINATION_MESSAGE_LIMIT
        shown = body["message"]
        # A character may take up to twelve bytes once escaped, so cutting by bytes may cut too much but always ends.
        keep = max(0, len(shown) - excess - 5) // 2
        body["message"] = shown[:keep] + " ... " + shown[len(shown) - keep :] if keep else ""
    return encoded


def write(path: Path, content: bytes) -> None:
    """Writes the message. A file that cannot be written costs the evidence, not the exit code."""
    try:
        path.write_bytes(content)
    except OSError as error:
        log.warning("termination message not written to %s: %s", path, error)
