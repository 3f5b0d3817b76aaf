"""The program of `small_run`, whose trackers never end by themselves."""

import runpy
import sys
from pathlib import Path

from ratchet_trainer.process import tracking

tracking.FOLLOWER = (sys.executable, "-c", "import time; time.sleep(1000)")
runpy.run_path(str(Path(__file__).with_name("small_run.py")), run_name="__main__")
