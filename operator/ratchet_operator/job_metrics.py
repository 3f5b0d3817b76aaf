"""What the operator's metrics say of jobs: read off their statuses when Prometheus asks.

So the series of a job that is gone are gone with it, and a counter goes on after a restart of the operator: what it
shows is in status. Decides which entry of status is which metric; names and texts are the registry's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ratchet_api.base import read_tolerantly
from ratchet_api.metrics import OPERATOR
from ratchet_api.metrics.metric import Metric as Row
from ratchet_api.placements import Placement
from ratchet_api.tpu_topologies import ImpossibleShape
from ratchet_api.validate import chips
from ratchet_operator.decide.failure_budget import PROVISIONAL_SECONDS
from ratchet_operator.decide.phase_reason import phase_reason

log = logging.getLogger(__name__)

Raw = dict[str, Any]
Sample = tuple[str, tuple[str, ...], float]
"""Name, labels besides those of the job, value."""
FAMILIES = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
OF_JOBS: tuple[Row, ...] = tuple(row for row in OPERATOR if row.of_job)


@dataclass(frozen=True)
class Held:
    """The placement of the present attempt: what it is, and its chips."""

    name: str = ""
    accelerator: str = "cpu"
    topology: str = ""
    capacity: str = ""
    chips: int = 0


@dataclass(frozen=True)
class Seen:
    """What was last seen of a job, as far as metrics need it."""

    status: Raw
    created: str | None = None
    method: str = ""
    held: Held = field(default_factory=Held)
    workers: dict[str, Held] = field(default_factory=dict)
    """By name of the placement, what a worker of the fleet holds there."""


class Jobs(Collector):
    """All jobs that were seen and are not gone."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._jobs: dict[tuple[str, str], Seen] = {}
        self._highest: dict[tuple[str, str], dict[tuple[str, tuple[str, ...]], float]] = {}
        self._now = now

    def say(self, namespace: str, name: str, job: Raw) -> None:
        """Remembers the part of the job that is exported."""
        spec, status = job.get("spec") or {}, job.get("status") or {}
        created, name_of_present = (
            job["metadata"].get("creationTimestamp"),
            (status.get("attempt") or {}).get("placement"),
        )
        ladder = (spec.get("rollouts") or {}).get("placements") or ()
        held = _held(spec.get("placements"), name_of_present)
        seen = Seen(status, created, _method(spec, status), held, {p["name"]: _held(ladder, p["name"]) for p in ladder})
        before = self._jobs.get((namespace, name))
        if before is not None and before.created != seen.created:
            self._highest.pop((namespace, name), None)  # deleted and made anew: its counters begin again
        self._jobs[namespace, name] = seen

    def forget(self, namespace: str, name: str) -> None:
        self._jobs.pop((namespace, name), None)
        self._highest.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        families = {row.name: FAMILIES[row.kind](row.family, row.help, labels=row.all_labels) for row in OF_JOBS}
        now = self._now()
        for key, job in list(self._jobs.items()):  # jobs come and go meanwhile
            try:
                found = list(samples(job, now))
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                # A status that was written by another version, or by hand, hides its own job and no other one.
                log.warning("%s/%s: its status cannot be shown as metrics: %r", *key, error)
                continue
            for name, labels, value in found:
                families[name].add_metric([*key, *labels], self._never_less(key, name, labels, value))
        yield from families.values()

    def _never_less(self, key: tuple[str, str], name: str, labels: tuple[str, ...], value: float) -> float:
        """A counter as it was shown before, where it would fall: what runs on is counted by this machine's clock, what
        is booked by that of the API server."""
        if not name.endswith("_total"):
            return value
        shown = self._highest.setdefault(key, {})
        shown[name, labels] = max(value, shown.get((name, labels), value))
        return shown[name, labels]


def samples(job: Seen, now: float) -> Iterator[Sample]:
    """Every sample of a job at a time, in seconds since 1970."""
    status, held = job.status, job.held
    progress, attempt, counters = (status.get(part) or {} for part in ("progress", "attempt", "counters"))
    checkpoint, stage = status.get("checkpoint") or {}, (status.get("stage") or {}).get("name", "")
    phase, reason = phase_reason(status)
    yield "ratchet_phase", (phase, reason), 1
    yield "ratchet_info", (stage, job.method, held.name), 1
    for condition in status.get("conditions", ()):
        yield "ratchet_condition", (condition["type"], condition["status"], condition["reason"]), 1
    running = _running(status)
    if held.name:
        where = (held.accelerator, held.topology, held.capacity, held.name)
        yield "ratchet_chips", where, held.chips if running else 0
    for state in ("Ready", "Total"):
        yield "ratchet_pods", (state.lower(),), attempt.get(f"pods{state}", 0)
    yield from _chip_seconds(job, now)
    yield from _fleet(status)
    yield from _ended(status, now)
    for part, seconds in _last_recovery(status).items():
        if part != "total":
            yield "ratchet_recovery_duration_seconds", (part,), float(seconds)
    yield "ratchet_attempt", (), attempt.get("number", 0)
    yield "ratchet_steps_lost_total", (), counters.get("stepsLost", 0)
    for name, value in (
        ("ratchet_step", progress.get("step")),
        ("ratchet_target_steps", progress.get("targetStep")),
        ("ratchet_checkpoint_step", checkpoint.get("step")),
        ("ratchet_start_timestamp_seconds", _seconds(job.created)),
        ("ratchet_last_checkpoint_timestamp_seconds", _seconds(checkpoint.get("time"))),
        ("ratchet_last_step_timestamp_seconds", _seconds(progress.get("updatedAt"))),
    ):
        if value is not None:
            yield name, (), float(value)


def _chip_seconds(job: Seen, now: float) -> Iterator[Sample]:
    """Those that are booked, and of the attempt and the workers that run those since they were last booked."""
    status = job.status
    seconds = dict((status.get("counters") or {}).get("chipSeconds") or {})
    holders = [(status["attempt"]["runningTime"], job.held)] if job.held.name and _running(status) else []
    for worker in (status.get("rollouts") or {}).get("workers") or ():
        there = job.workers.get(worker.get("placement") or "")
        if there is not None and worker.get("runningTime") and not worker.get("endTime"):
            holders.append((worker["runningTime"], there))
    last = (status.get("stages") or [{}])[-1]
    booked = _seconds(last.get("endTime") or last.get("startTime")) or 0.0
    for since, held in holders:
        took = max(0.0, now - max(_seconds(since) or 0.0, booked)) * held.chips
        seconds[held.capacity] = seconds.get(held.capacity, 0) + took
    for capacity, value in seconds.items():
        yield "ratchet_chip_seconds_total", (capacity,), value


def _fleet(status: Raw) -> Iterator[Sample]:
    """Of a job that has, or had, workers that sample for it."""
    fleet = status.get("rollouts")
    if fleet is None:
        return
    for state in ("running", "desired"):
        yield "ratchet_rollout_workers", (state,), fleet.get(state, 0)
    yield "ratchet_rollout_restarts_total", (), fleet.get("restarts", 0)
    for name, value in (("waiting_calls", "waitingCalls"), ("results_per_second", "resultsPerSecond")):
        if value in fleet:
            yield f"ratchet_rollout_{name}", (), float(fleet[value])


def _ended(status: Raw, now: float) -> Iterator[Sample]:
    """Attempts by verdict and recoveries: those that status lists, and those that it listed before. An attempt counts
    once its verdict can no longer change, so that no count ever falls."""
    over = status.get("finishedTime") is not None
    earlier = (status.get("counters") or {}).get("earlierAttempts") or {}
    causes = dict(earlier.get("verdicts") or {})
    recoveries, seconds = earlier.get("recoveries", 0), earlier.get("recoveryMilliseconds", 0) / 1e3
    for record in status.get("attempts", ()):
        final = _seconds(record.get("finalTime"))
        if final is not None and (over or now > final + PROVISIONAL_SECONDS):
            causes[record["verdict"]] = causes.get(record["verdict"], 0) + 1
        if "total" in (record.get("recovery") or {}):
            recoveries, seconds = recoveries + 1, seconds + float(record["recovery"]["total"])
    for cause, count in causes.items():
        yield "ratchet_restarts_total", (cause,), count
    yield "ratchet_recoveries_total", (), recoveries
    yield "ratchet_recovery_seconds_total", (), seconds


def _last_recovery(status: Raw) -> dict[str, str]:
    found: Iterable[dict[str, str]] = (r.get("recovery") or {} for r in reversed(status.get("attempts", ())))
    return next((parts for parts in found if "total" in parts), {})


def _running(status: Raw) -> bool:
    """Whether the present attempt holds chips: from when all its pods ran to when the last one had ended."""
    attempt = status.get("attempt") or {}
    ended = any(
        record["number"] == attempt.get("number") and record.get("finalTime") for record in status.get("attempts", ())
    )
    return attempt.get("runningTime") is not None and not ended


def _held(ladder: Iterable[Raw] | None, name: str | None) -> Held:
    raw = next((p for p in ladder or () if p.get("name") == name), None)
    if name is None or raw is None:
        return Held()
    try:
        placement = read_tolerantly(Placement, raw)
        count = chips(placement)
    except (ImpossibleShape, ValueError):
        return Held(name)
    return Held(name, placement.accelerator or "cpu", placement.topology or "", placement.capacity_name, count)


def _method(spec: Raw, status: Raw) -> str:
    index = (status.get("stage") or {}).get("index", 0)
    stages = spec.get("stages") or []
    stage = stages[index] if index < len(stages) else {}
    kind = next((kind for kind in ("sft", "curate", "rl") if stage.get(kind) is not None), "")
    return (stage["rl"].get("method") or "rl") if kind == "rl" else kind


def _seconds(stamp: str | None) -> float | None:
    return datetime.fromisoformat(stamp).timestamp() if stamp else None
