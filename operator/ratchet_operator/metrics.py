"""The operator's own metrics, and the exposition that Prometheus scrapes.

Names and texts are the registry's (`ratchet_api.metrics`); what is said of jobs is `job_metrics`.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    exposition,
)

from ratchet_api.metrics import BY_NAME
from ratchet_operator.job_metrics import Jobs

disable_created_metrics()  # a series more for every counter, which nothing here reads
REGISTRY = CollectorRegistry()
KINDS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


def _registered(name: str) -> Any:
    row = BY_NAME[name]
    buckets = {"buckets": row.buckets} if row.kind == "histogram" else {}
    return KINDS[row.kind](row.family, row.help, row.all_labels, registry=REGISTRY, **buckets)


RECONCILES: Counter = _registered("ratchet_reconcile_total")
RECONCILE_SECONDS: Histogram = _registered("ratchet_reconcile_duration_seconds")
QUEUE_DEPTH: Gauge = _registered("ratchet_queue_depth")
API_REQUESTS: Counter = _registered("ratchet_api_requests_total")
API_REQUEST_SECONDS: Histogram = _registered("ratchet_api_request_duration_seconds")
WATCH_LAST_EVENT: Gauge = _registered("ratchet_watch_last_event_timestamp_seconds")
RESYNC_FOUND: Counter = _registered("ratchet_resync_found_total")
STATUS_PRUNED: Counter = _registered("ratchet_status_pruned_total")
EVENTS_DROPPED: Counter = _registered("ratchet_events_dropped_total")
PROGRESS_ANSWERS: Counter = _registered("ratchet_progress_answers_total")
PROGRESS_FOLLOWED: Gauge = _registered("ratchet_progress_followed")
LEADER: Gauge = _registered("ratchet_leader")
LEASE_TRANSITIONS: Gauge = _registered("ratchet_lease_transitions")
CLOCK_JUMPS: Counter = _registered("ratchet_clock_jumps_total")
for _result in ("done", "conflict", "refused", "unreachable", "fenced", "bug"):
    RECONCILES.labels(_result)  # from 0 on, so that `increase` sees the first one, too
_registered("ratchet_build_info").labels(metadata.version("ratchet-rl")).set(1)
ProcessCollector(registry=REGISTRY)

JOBS = Jobs()
REGISTRY.register(JOBS)


def text(accept: str = "") -> tuple[bytes, str]:
    """The exposition in the format that the scraper's Accept header asks for, and its Content-Type."""
    encode, content_type = exposition.choose_encoder(accept)
    return encode(REGISTRY), content_type
