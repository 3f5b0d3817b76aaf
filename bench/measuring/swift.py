"""Imported first, this starts a program again in the environment in which trainers run, where that is missing."""

import os
import sys

from ratchet_api.exact_environment import performance_environment

AGAIN = "RATCHET_BENCH_AGAIN"
"""Set once it has been started again: what is missing then is taken away every time."""

if (missing := performance_environment(os.environ)) and AGAIN not in os.environ:
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | missing | {AGAIN: "1"})
