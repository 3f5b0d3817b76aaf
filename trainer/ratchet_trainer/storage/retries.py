"""Operations on the storage that are tried again, and what is said when it stays away.

Decides what counts as the storage failing, how long that is waited for, and the way out that is named.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from ratchet_trainer.errors import StorageUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

WAYS_OUT = {
    errno.ENOSPC: "free some space there or enlarge the volume",
    errno.EDQUOT: "free some space there or raise the quota",
    errno.EFBIG: "let larger files be written there",
    errno.EROFS: "mount it writable",
    errno.EACCES: "let the trainer's user write there",
    errno.EPERM: "let the trainer's user write there",
    errno.ENOENT: "it was removed or replaced while it was in use; is the volume still mounted?",
}
DETAILS = re.compile(r"\s*\[(?:os_error_code|source locations|tensorstore_spec|http_response_[a-z]+)=.*")
"""What TensorStore adds to its words."""
BACK_OFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 4.0)
"""Waits between the tries of an operation on the storage; after the last one it is StorageUnavailable."""


def with_retries(what: str, operation: Callable[[], T]) -> T:
    """Runs an operation on the storage, again after each of BACK_OFF_SECONDS. Raises StorageUnavailable."""
    for wait in (*BACK_OFF_SECONDS, None):
        try:
            return operation()
        except Exception as error:
            if not _storage_failed(error):
                raise
            if wait is None:
                raise StorageUnavailable(f"{what}: {short(str(error))}{_way_out(error)}") from error
            log.warning("%s failed, again in %.1f s: %s", what, wait, error)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def short(text: str) -> str:
    """The first line of what was said, without TensorStore's codes and the places in its source."""
    return DETAILS.sub("", text.partition("\n")[0])[:500]


def _way_out(error: Exception) -> str:
    # TensorStore's errors have the number in their text only.
    found = re.search(r"(?:OS error |os_error_code=')(\d+)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    return f"; {WAYS_OUT[number]}" if number in WAYS_OUT else ""


def _storage_failed(error: Exception) -> bool:
    # TensorStore reports what the file system said as ValueError or RuntimeError with the status and errno in the text.
    return isinstance(error, OSError) or (
        type(error) in (ValueError, RuntimeError)
        and any(w in str(error) for w in ("OS error", "os_error_code", "Error writing", "Error opening"))
    )
