"""What a tracker is asked, and the table of those that there are.

tracker = open_tracker("tensorBoard", settings, run)
known = tracker.open(records)      # how many of the committed records it has, from the first on
tracker.log(records[known:])       # durable in its sense on return
tracker.close()
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ratchet_trainer.storage import Location
from ratchet_trainer.trackers.lines import StepRecord


class TrackerLeft(Exception):
    """The tracker cannot be told of this run, and trying again would not help; the message has the way out."""


@dataclass(frozen=True)
class TrackedRun:
    """The run that is told of."""

    namespace: str
    name: str
    uid: str
    directory: Location  # of the checkpoints
    config: dict[str, Any]  # the job's spec as plain JSON


class Tracker(Protocol):
    """Methods raise TrackerLeft, or any other exception where trying again may help; then `open` comes first again."""

    def open(self, records: Sequence[StepRecord]) -> int:
        """Finds out how many of the records the tracker has, and makes it have no other ones."""

    def log(self, records: Sequence[StepRecord]) -> None:
        """Tells it of records that come after those that it has."""

    def close(self) -> None:
        """Ends the tracker's own part, if it has one."""


MAKERS = {
    # name in spec.trackers -> module with make(settings, run) -> Tracker
    "tensorBoard": "tensor_board",
    "wandb": "wandb_run",
    "mlflow": "mlflow_run",
    "trackio": "trackio_run",
}


def open_tracker(name: str, settings: Mapping[str, Any], run: TrackedRun) -> Tracker:
    """The tracker of that name. Raises TrackerLeft if its package is not there."""
    module = importlib.import_module(f"ratchet_trainer.trackers.{MAKERS[name]}")
    tracker: Tracker = module.make(settings, run)
    return tracker


def needed(package: str, install: str) -> Any:
    """The package, imported. Raises TrackerLeft."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise TrackerLeft(
            f"the package {install} cannot be used here ({error}); put it into the trainer's image: pip install "
            f"{install}; the next attempt makes up for the steps"
        ) from error
