"""A trainer process whose devices may be others' than their number says, and that may be told to go in mid-generation.

Started by the tests as a program. DEVICE_ORDER="1,0": the order in which `jax.devices()` lie on the mesh, so it decides
which rows a process has. TOLD_TO_GO="N": after the N-th chunk that is decoded the last process gets SIGTERM. The
response position of every chunk that is decoded stands in DECODED, a file a process.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from ratchet_trainer import app

ORDER = [int(i) for i in os.environ["DEVICE_ORDER"].split(",")]
CHUNKS = int(os.environ.get("TOLD_TO_GO", "0"))
DECODED = Path(os.environ["DECODED"])


def run(runtime) -> None:
    from ratchet_trainer.rollout.engine import Engine
    from ratchet_trainer.run import run as whole_run

    chunks = 0
    log = open(DECODED.with_name(f"{DECODED.name}-{runtime.process}"), "w", buffering=1)  # noqa: SIM115
    begin = Engine._begin

    def watched(self, name, *arguments):
        going = begin(self, name, *arguments)
        advance = going.advance

        def advance_and_be_told() -> None:
            nonlocal chunks
            made = sum(chunk.shape[-1] for chunk in going._made)
            log.write(f"{made}\n")
            advance()
            chunks += 1
            if chunks == CHUNKS and runtime.process == runtime.processes - 1:
                os.kill(os.getpid(), signal.SIGTERM)
                while not runtime._watchdog.requested:
                    time.sleep(0.001)

        going.advance = advance_and_be_told
        return going

    Engine._begin = watched
    whole_run(runtime)


def lay_out_in_that_order() -> None:
    from ratchet_trainer.process import distributed

    grid = distributed.device_grid
    distributed.device_grid = lambda devices, wanted: grid([devices[i] for i in ORDER], wanted)


if __name__ == "__main__":
    lay_out_in_that_order()
    sys.exit(app.main(run))
