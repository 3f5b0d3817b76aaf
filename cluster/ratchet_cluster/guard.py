"""Takes a cluster down when the process that it was started for has gone, however that ended.

Run as `python -m ratchet_cluster.guard FOLDER PID` by `cluster.py`. It only waits; the rest is loaded when needed.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys


def main() -> None:
    """Entry point of the process."""
    folder, owner = sys.argv[1], int(sys.argv[2])
    with contextlib.suppress(ProcessLookupError):  # it may have gone already
        select.select([os.pidfd_open(owner)], [], [])
    from ratchet_cluster.cluster import Cluster

    Cluster(folder).down()


if __name__ == "__main__":
    main()
