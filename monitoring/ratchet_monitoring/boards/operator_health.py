"""Operator: does the program that watches the jobs do its work?"""

from __future__ import annotations

from ratchet_monitoring.colors import ANSWERS, CODES, PASSES
from ratchet_monitoring.panel import GREEN, ORANGE, PLAIN, RED, YELLOW, Board, Panel, Query, Row, stat
from ratchet_monitoring.selectors import quantile

NEUTRAL = ((None, PLAIN),)
SEEN = 'container="operator"'


def _lines(title: str, bad: str, *queries: tuple[str, ...], **more: object) -> Panel:
    return Panel(title, bad, tuple(Query(*query) for query in queries), **more)  # type: ignore[arg-type]


def _rate(metric: str, by: str = "") -> str:
    return f"sum by ({by}) (rate({metric}[$__rate_interval]))" if by else f"sum(rate({metric}[$__rate_interval]))"


OPERATOR_HEALTH = Board(
    "ratchet-operator",
    "Ratchet / Operator",
    "The program that watches the jobs: does it see what happens, and is it quick?",
    of_job=False,
    rows=(
        Row("Now", (
            stat("Replicas that work", "0: nothing is recovered. 2: the Lease is broken; tell us.",
                 "sum(ratchet_leader)", bands=((None, RED), (1, GREEN), (2, RED))),
            stat("Replicas", "Fewer than the chart's replicaCount: no standby takes over.", "count(ratchet_leader)",
                 bands=((None, RED), (1, YELLOW), (2, GREEN))),
            stat("Version", "Two versions for long: an upgrade hangs.", "max by (version) (ratchet_build_info)",
                 legend="{{version}}", bands=NEUTRAL),
            stat("Jobs that wait for a pass", "Hundreds for minutes: the operator or the API server is too slow.",
                 "sum(ratchet_queue_depth)", bands=((None, GREEN), (50, YELLOW), (500, RED))),
            stat("Trainers followed", "Fewer than running jobs: their /progress cannot be reached.",
                 "sum(ratchet_progress_followed)", bands=NEUTRAL),
            stat("Changes of the holder", "Grows by itself: replicas are killed, or the API server is slow.",
                 "max(ratchet_lease_transitions)", bands=NEUTRAL),
        )),
        Row("Passes", (
            _lines("Passes by result", "bug: a fault of ours. refused: a right is missing. unreachable: no API server.",
                   (_rate("ratchet_reconcile_total", "result"), "{{result}}"), kind="stacked", unit="suffix:/s",
                   low=0.0, colors=PASSES),
            _lines("Seconds of a pass", "Above a second: recoveries begin late.",
                   (quantile(0.99, "ratchet_reconcile_duration_seconds"), "99 %"),
                   (quantile(0.5, "ratchet_reconcile_duration_seconds"), "median"), unit="s", low=0.0,
                   bands=((None, GREEN), (1, YELLOW), (10, RED))),
            _lines("Jobs that wait for a pass", "Does not come back to 0.", ("sum(ratchet_queue_depth)", "jobs"),
                   low=0.0, soft=(0.0, 5.0), decimals=0),
        )),
        Row("The API server", (
            _lines("Requests by code", "409 now and then is normal. 429, 5xx, none: the API server is in trouble.",
                   (_rate("ratchet_api_requests_total", "method, code"), "{{method}} {{code}}"), kind="stacked",
                   unit="reqps", low=0.0, colors=CODES),
            _lines("Seconds of a request, 95 %", "Above half a second: the API server is slow.",
                   (quantile(0.95, "ratchet_api_request_duration_seconds", by="method"), "{{method}}"), unit="s", low=0.0),
            _lines("Seconds since the last watch event", "Grows without end while jobs run: that watch is dead.",
                   ("time() - max by (resource) (ratchet_watch_last_event_timestamp_seconds)", "{{resource}}"), unit="s",
                   low=0.0),
        )),
        Row("What should stay at zero", (
            _lines("Troubles in this time", "Anything: events missed by watches, status fields that an old CRD drops, "
                   "events that could not be written, jumps of the clock.",
                   ("sum(increase(ratchet_resync_found_total[$__range]))", "missed by watches"),
                   ("sum(increase(ratchet_status_pruned_total[$__range]))", "status pruned"),
                   ("sum(increase(ratchet_events_dropped_total[$__range]))", "events dropped"),
                   ("sum(increase(ratchet_clock_jumps_total[$__range]))", "clock jumps"), kind="bars",
                   bands=((None, GREEN), (1, ORANGE))),
            _lines("Answers of trainers", "mismatch or invalid: a pod of another attempt or version answers. failed: it "
                   "cannot be reached.", (_rate("ratchet_progress_answers_total", "result"), "{{result}}"),
                   kind="stacked", unit="suffix:/s", low=0.0, colors=ANSWERS),
            _lines("Memory of the process", "Memory grows without end: a leak. See resources in the chart's values.",
                   (f"sum by (pod) (process_resident_memory_bytes{{{SEEN}}})", "{{pod}}"), unit="bytes", low=0.0),
        )),
    ),
)  # fmt: skip
