"""A trainer process whose TPU is held by another process for ever. Started by the tests as a program."""

from __future__ import annotations

import sys

from ratchet_trainer import app
from ratchet_trainer.process import accelerator

if __name__ == "__main__":
    accelerator.PATIENCE_SECONDS = accelerator.PAUSE_SECONDS = 0.2
    accelerator.device_files = lambda: ["/dev/vfio/0"]
    accelerator.is_held = lambda path: True
    sys.exit(app.main())
