"""A script in a process whose CPU counts as four devices."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ratchet_trainer.checkpoints.identity import flags_with_devices


def run_on_four_devices(script: str, cache: Path) -> str:
    """What it printed; fails with its standard error. `cache`: for compiled programs, as each device compiles the
    same."""
    more = {
        "XLA_FLAGS": flags_with_devices(os.environ["XLA_FLAGS"], 4),
        "JAX_PLATFORMS": "cpu",
        "NPROC": "4",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | more)
    assert done.returncode == 0, done.stderr
    return done.stdout
