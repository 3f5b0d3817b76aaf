"""The first touch of the devices: waiting for a TPU that is still held, and saying what is wrong with one that fails.

After a preemption a machine may be given to the next pod while the process before it still holds the chips
(`/dev/vfio/0: Device or resource busy`), and a slice may be half up. Both pass by themselves, or are the machine's
fault: so they are waited for, and then end the process with a code that is charged to the infrastructure, not the job.
Decides what is waited for and how long; what was found is compared in `start_check`.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ratchet_api.tpu_chips import OF_KIND
from ratchet_trainer.errors import AcceleratorUnavailable, ConfigurationInvalid

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 90.0
"""How long a TPU may be held or fail to start; a process that is killed lets go of its chips in seconds."""
PAUSE_SECONDS = 2.0

DEVICE_FILES = ("/dev/vfio/[0-9]*", "/dev/accel[0-9]*")
"""Files of chips, by generation. One of VFIO can be opened by one process at a time."""

NO_LIBRARY = ("libtpu.so: cannot open", "Failed to open libtpu", "Could not find libtpu")
"""How JAX says that there is no libtpu."""


def device_files(patterns: Sequence[str] = DEVICE_FILES) -> list[str]:
    """The chips of this machine, as files."""
    return sorted(path for pattern in patterns for path in glob.glob(pattern))


def peak_flops(devices: Iterable[Any]) -> float:
    """Peak of JAX devices together in bfloat16, a second; 0 where nobody publishes one."""
    chips = [OF_KIND.get(device.device_kind) for device in devices]
    return sum(chip.flops_per_second for chip in chips if chip is not None)


def devices(
    platform: str | None,
    connect: Callable[[], list[Any]],
    files: Sequence[str] = (),
    *,
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
    held: Callable[[str], bool] | None = None,
) -> list[Any]:
    """What `connect` (`jax.devices`) gives. On platform `tpu` it is tried for PATIENCE_SECONDS, once nobody holds the
    `files` any more.

    Raises ConfigurationInvalid without libtpu, AcceleratorUnavailable once patience is over; on another platform
    whatever `connect` raises.
    """
    if platform != "tpu":
        return connect()
    until, said = now() + PATIENCE_SECONDS, ""
    while True:
        busy = [path for path in files if (held or is_held)(path)]
        text = f"{', '.join(busy)} in use by another process" if busy else ""
        if not busy:
            try:
                return connect()
            except RuntimeError as error:
                text = str(error)
                if any(sign in text for sign in NO_LIBRARY):
                    raise ConfigurationInvalid(
                        "the placement asks for TPUs, but the image has no libtpu: take one that was built with this "
                        f"package's extra `tpu` (spec.image). JAX says: {text}"
                    ) from error
        if now() > until:
            raise AcceleratorUnavailable(
                f"the TPU did not start within {PATIENCE_SECONDS:.0f} s: {text}. Another attempt may get other "
                "machines; if it does not, look at the node's device plugin and at RLIMIT_MEMLOCK in this log"
            )
        if text != said:
            log.warning("the TPU is not ready, trying again for %.0f s: %s", until - now(), text)
            said = text
        pause(PAUSE_SECONDS)


def is_held(path: str) -> bool:
    """Whether another process has a chip open. What cannot be told (no right, no such file) is left to libtpu, as is
    what this process has open itself: a start that failed half-way may not have let go of its chips."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EBUSY and os.path.realpath(path) not in _open_here()
    return False


def _open_here() -> set[str]:
    """The files that this process has open."""
    found = set()
    for handle in glob.glob("/proc/self/fd/*"):
        with contextlib.suppress(OSError):  # closed meanwhile
            found.add(os.readlink(handle))
    return found
