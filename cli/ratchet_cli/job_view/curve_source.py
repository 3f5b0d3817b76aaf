"""Curves of a job, where its metric stream can be read from here: a local cluster's volume, a bucket.

Decides how much is read, and that nobody waits long for a picture. Only committed steps are in the stream.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ratchet_cli.kube import Kube, KubeError, Object

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

METRICS = {"reward": "train/reward", "accuracy": "train/accuracy", "entropy": "train/entropy", "loss": "train/loss"}
"""What is drawn -> its name in the stream."""
READ_MOST = 4 * 1024 * 1024
POINTS = 120
SECONDS = 4.0

Curves = dict[str, list[tuple[int, float]]]


class CurveSource:
    """Reads the curves of one job again and again; the way to its folder is found once."""

    def __init__(self, kube: Kube, job: Object):
        self._kube, self._job = kube, job
        self._place: Location | None = None
        self._lost = False
        self._late: threading.Thread | None = None

    def read(self, points: int = POINTS) -> Curves:
        """The curves; none where the stream is out of reach, or slower than a reader's patience."""
        if self._lost or (self._late is not None and self._late.is_alive()):
            return {}
        found: list[Curves] = []
        self._late = threading.Thread(target=lambda: found.append(self._read(points)), daemon=True)
        self._late.start()
        self._late.join(SECONDS)
        return found[0] if found else {}

    def _read(self, points: int) -> Curves:
        try:
            if self._place is None:
                from ratchet_cli.cluster_files import folder_of_job

                self._place = folder_of_job(self._kube, self._job)
            return curves(_tail(self._place), points)
        except KubeError:
            return {}
        except Exception:  # whatever a store, a missing extra or a damaged file says: it is a picture
            self._lost = True
            return {}


def _tail(place: Location) -> bytes:
    if not place.on_bucket:
        with open(place.local / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - READ_MOST))
            return file.read()
    from ratchet_trainer.storage.stream import Stream

    return Stream(place / "metrics.jsonl").read()[-READ_MOST:]


def curves(stream: bytes, points: int) -> Curves:
    """Curves of the metrics that people look at; each point is the mean of the steps that it stands for."""
    found: Curves = {}
    for line in stream.decode(errors="replace").split("\n")[:-1]:  # what is not a whole line is being written
        step, metrics = _step(line)
        if step is None:
            continue
        for name, key in METRICS.items():
            try:
                value = float(metrics[key])
            except (KeyError, TypeError, ValueError):
                continue
            if math.isfinite(value):
                found.setdefault(name, []).append((step, value))
    return {name: thinned(values, points) for name, values in found.items()}


def thinned(values: list[tuple[int, float]], points: int) -> list[tuple[int, float]]:
    """At most so many points: means of neighbors, at the last step of each group."""
    size = math.ceil(len(values) / points) if values else 1
    groups: Iterable[list[tuple[int, float]]] = (values[i : i + size] for i in range(0, len(values), size))
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _step(line: str) -> tuple[int | None, Any]:
    try:
        said = json.loads(line)
        step, metrics = said["step"], said["metrics"]
    except (ValueError, KeyError, TypeError):
        return None, {}  # cut off by the start of what was read
    return (step, metrics) if isinstance(step, int) and isinstance(metrics, dict) else (None, {})
