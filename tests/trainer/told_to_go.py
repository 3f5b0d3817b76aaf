"""A trainer process that gets SIGTERM between two updates, when there is no time to finish the step.

Started by the tests as a program. TOLD_TO_GO="STEP:DONE": when so many mini-batches of that step are behind it. The
signal goes to the last process only.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from ratchet_trainer import app
from ratchet_trainer.process import shutdown

STEP, DONE = map(int, os.environ.get("TOLD_TO_GO", "0:0").split(":"))


def run(runtime) -> None:
    from ratchet_trainer import run as real

    learn = real.learn

    def learn_and_be_told(stage, group, state, pending, part):
        state, pending = learn(stage, group, state, pending, part)
        if (state.step + 1, pending.done) == (STEP, DONE) and runtime.process == runtime.processes - 1:
            os.kill(os.getpid(), signal.SIGTERM)
            while not runtime._watchdog.requested:
                time.sleep(0.001)
        return state, pending

    real.learn = learn_and_be_told
    real.run(runtime)


if __name__ == "__main__":
    shutdown.Watchdog.seconds_to_finish = lambda self: 0.0
    sys.exit(app.main(run))
