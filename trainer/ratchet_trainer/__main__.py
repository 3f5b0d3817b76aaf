"""`python -m ratchet_trainer` is `ratchet trainer`, without the command line in between; with RATCHET_WORKER it is
`ratchet rollout-worker`."""

import os

from ratchet_api.protocol import ENV_WORKER
from ratchet_trainer.app import main, work

(work if os.environ.get(ENV_WORKER) else main)()
