"""A cluster of its own, with the chart installed, and a job on it as its user sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import yaml

from ratchet_cli.demo.watch import Leader
from ratchet_cluster.cluster import Cluster

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PATIENCE = 240.0
"""What is waited for comes within seconds; on a machine that is busy with other things it comes later."""


def until(what: Callable[[], T], about: str, seconds: float = PATIENCE) -> T:
    """The first true value of `what`; fails with the last one."""
    deadline = monotonic() + seconds
    while not (found := what()):
        assert monotonic() < deadline, f"not within {seconds:.0f} s: {about}; last: {found!r}"
        sleep(0.1)
    return found


def short_sums(file: Path, **more: Any) -> Path:
    """The example in two short stages, with more in its spec."""
    manifest = yaml.safe_load((ROOT / "examples/sums.yaml").read_text())
    spec = manifest["spec"]
    spec["stages"] = spec["stages"][:2]
    spec["stages"][0]["advance"] = {"steps": 20}
    spec["stages"][1]["advance"] = {"steps": 60}
    spec["stages"][1]["rl"] |= {"promptsPerStep": 8, "groupSize": 4}
    spec |= more
    file.write_text(yaml.safe_dump(manifest))
    return file


class Watched:
    """The job as its user sees it."""

    def __init__(self, cluster: Cluster, name: str = "sums") -> None:
        self.cluster, self.name = cluster, name
        self.leader = Leader(cluster, "default", name)

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.kubectl("get", "rltrainingjob", self.name, "-o", "json"))
        return found.get("status") or {}

    def placed(self, attempt: int, reason: str) -> str:
        """Waits until this attempt's condition Placed has that reason; its message."""

        def look() -> str | None:
            status = self.status
            if (status.get("attempt") or {}).get("number") != attempt:
                return None
            return next((c["message"] for c in status["conditions"] if c["reason"] == reason), None)

        return until(look, f"attempt {attempt} is {reason}")

    def makes_step(self, attempt: int, step: int) -> None:
        """Waits until the attempt has finished the step."""
        until(
            lambda: ((self.leader.progress(attempt) or {}).get("step") or 0) >= step,
            f"attempt {attempt} makes step {step}",
        )

    def pods(self) -> list[str]:
        return self.cluster.kubectl("get", "pods", "-l", f"ratchet.dev/job-name={self.name}", "-o", "name").split()

    def events(self) -> list[str]:
        """Reasons of the events on the job."""
        selector = f"involvedObject.name={self.name},involvedObject.kind=RLTrainingJob"
        found = json.loads(self.cluster.kubectl("get", "events", "--field-selector", selector, "-o", "json"))
        return [event["reason"] for event in found["items"]]
