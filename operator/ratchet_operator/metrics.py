"""Every metric that the operator exports, with its help text.

Counters and histograms of the operator itself are plain prometheus_client objects. What is said of a job is read off
its status when Prometheus asks, so the series of a job that is gone are gone with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Raw = dict[str, Any]

disable_created_metrics()  # a series more for every counter, which nothing here reads
REGISTRY = CollectorRegistry()

RECONCILES = Counter(
    "ratchet_reconcile",
    "Passes over a job, by result: done, conflict (somebody wrote in between), refused, unreachable, fenced, bug.",
    ["result"],
    registry=REGISTRY,
)
RECONCILE_SECONDS = Histogram(
    "ratchet_reconcile_duration_seconds",
    "Time that one pass over a job took.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
    registry=REGISTRY,
)
QUEUE_DEPTH = Gauge("ratchet_queue_depth", "Jobs that wait for a pass.", registry=REGISTRY)
API_REQUESTS = Counter(
    "ratchet_api_requests",
    "Requests to the API server (without watches), by method and HTTP code; code none: no answer.",
    ["method", "code"],
    registry=REGISTRY,
)
WATCH_LAST_EVENT = Gauge(
    "ratchet_watch_last_event_timestamp_seconds",
    "When the last watch event of a resource came, by this machine's clock.",
    ["resource"],
    registry=REGISTRY,
)
RESYNC_FOUND = Counter(
    "ratchet_resync_found",
    "Jobs in which the periodic list found a change that no watch event had told of.",
    registry=REGISTRY,
)
STATUS_PRUNED = Counter(
    "ratchet_status_pruned",
    "Status writes that came back without a field that was sent: the CRD is older than the operator.",
    registry=REGISTRY,
)
EVENTS_DROPPED = Counter(
    "ratchet_events_dropped", "Events on jobs that could not be written or were too many.", registry=REGISTRY
)
PROGRESS_ANSWERS = Counter(
    "ratchet_progress_answers",
    "Answers of trainers' /progress, by result: new, same, mismatch (identity of another attempt), invalid, failed.",
    ["result"],
    registry=REGISTRY,
)
PROGRESS_FOLLOWED = Gauge("ratchet_progress_followed", "Trainers whose /progress is being polled.", registry=REGISTRY)
LEADER = Gauge("ratchet_leader", "1 while this replica holds the Lease, else 0.", registry=REGISTRY)
CLOCK_JUMPS = Counter(
    "ratchet_clock_jumps", "Jumps of the API server's clock of more than 5 s; none starts an action.", registry=REGISTRY
)
Gauge("ratchet_build_info", "Version of the operator.", ["version"], registry=REGISTRY).labels(
    metadata.version("ratchet-rl")
).set(1)
ProcessCollector(registry=REGISTRY)

JOB = ["job_namespace", "job_name"]


class Jobs(Collector):
    """What the statuses of all jobs say, as metrics."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str], Raw] = {}

    def say(self, namespace: str, name: str, job: Raw) -> None:
        """Remembers the part of the job that is exported."""
        status = job.get("status") or {}
        self._jobs[namespace, name] = {
            "phase": status.get("phase") or "Pending",
            "stage": (status.get("stage") or {}).get("name", ""),
            "conditions": [(c["type"], c["status"]) for c in status.get("conditions", ())],
            "learning": next((c["reason"] for c in status.get("conditions", ()) if c["type"] == "Learning"), None),
            "progress": status.get("progress") or {},
            "checkpoint": (status.get("checkpoint") or {}).get("time"),
            "attempt": (status.get("attempt") or {}).get("number", 0),
            "counters": status.get("counters") or {},
            "restarts": _restarts(status, self._jobs.get((namespace, name))),
            "recovery": next(
                (
                    r["recovery"]["total"]
                    for r in reversed(status.get("attempts", ()))
                    if "total" in (r.get("recovery") or {})
                ),
                None,
            ),
        }

    def forget(self, namespace: str, name: str) -> None:
        self._jobs.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "ratchet_info", "The job, its phase and stage in words; always 1.", labels=[*JOB, "phase", "stage"]
        )
        condition = GaugeMetricFamily(
            "ratchet_condition", "1 for the status that a condition has now.", labels=[*JOB, "type", "status"]
        )
        learning = GaugeMetricFamily(
            "ratchet_learning", "1 for the reason that the condition Learning has now.", labels=[*JOB, "reason"]
        )
        gauges = {
            name: GaugeMetricFamily(name, text, labels=JOB)
            for name, text in (
                ("ratchet_step", "Last finished step, as status knows it."),
                ("ratchet_target_steps", "Step at which the present stage ends at the latest."),
                ("ratchet_attempt", "Number of the attempt."),
                ("ratchet_steps_lost", "Steps executed again so far."),
                ("ratchet_recovery_duration_seconds", "Sign of loss to end of first new step, last recovery."),
                ("ratchet_last_checkpoint_timestamp_seconds", "When the newest checkpoint was reported."),
                ("ratchet_last_step_timestamp_seconds", "When progress was last written to status."),
            )
        }  # fmt: skip
        restarts = CounterMetricFamily(
            "ratchet_restarts",
            "Attempts that ended, by verdict, as far as the operator saw them.",
            labels=[*JOB, "cause"],
        )
        for key, job in self._jobs.items():
            info.add_metric([*key, job["phase"], job["stage"]], 1)
            for kind, status in job["conditions"]:
                condition.add_metric([*key, kind, status], 1)
            if job["learning"] is not None:
                learning.add_metric([*key, job["learning"]], 1)
            values = {
                "ratchet_step": job["progress"].get("step"),
                "ratchet_target_steps": job["progress"].get("targetStep"),
                "ratchet_attempt": job["attempt"],
                "ratchet_steps_lost": job["counters"].get("stepsLost", 0),
                "ratchet_recovery_duration_seconds": job["recovery"],
                "ratchet_last_checkpoint_timestamp_seconds": _seconds(job["checkpoint"]),
                "ratchet_last_step_timestamp_seconds": _seconds(job["progress"].get("updatedAt")),
            }
            for name, value in values.items():
                if value is not None:
                    gauges[name].add_metric(key, float(value))
            for cause, (_, count) in job["restarts"].items():
                restarts.add_metric([*key, cause], count)
        yield from (info, condition, learning, *gauges.values(), restarts)


def _restarts(status: Raw, before: Raw | None) -> dict[str, tuple[int, int]]:
    """cause -> (highest attempt counted, count). Status keeps the last attempts only; the count goes on by number."""
    counted = dict(before["restarts"]) if before else {}
    for record in status.get("attempts", ()):
        newest, count = counted.get(record["verdict"], (0, 0))
        if record["number"] > newest:
            counted[record["verdict"]] = (record["number"], count + 1)
    return counted


def _seconds(stamp: str | None) -> float | None:
    return datetime.fromisoformat(stamp).timestamp() if stamp else None


JOBS = Jobs()
REGISTRY.register(JOBS)


def text() -> bytes:
    """The exposition that Prometheus scrapes."""
    return generate_latest(REGISTRY)
