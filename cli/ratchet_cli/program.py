"""How this program was called, for commands that it prints."""

from __future__ import annotations

import sys
from pathlib import Path


def program() -> str:
    """`ratchet`, or `kubectl ratchet` where it runs as kubectl's plugin."""
    return "kubectl ratchet" if Path(sys.argv[0]).name.startswith("kubectl-ratchet") else "ratchet"
