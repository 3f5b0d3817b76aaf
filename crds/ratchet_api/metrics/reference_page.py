"""docs/metrics.md, made from the registry: `python -m ratchet_api.metrics.reference_page`."""

from __future__ import annotations

from ratchet_api.metrics import GROUPS, METRICS, Metric

TRAINERS = ("TRL", "verl", "NeMo-RL", "Tunix")
HEAD = """# Metrics

Made from `ratchet_api.metrics` by `make generate`; do not edit.

The operator exports what is known of every job, also while nothing of it runs; trainers export how the training goes.
Both speak the Prometheus text format and OpenMetrics. Scrape the port named `metrics` of the operator's pods and of
trainer pods (8491, all of them); with the chart: `metrics.serviceMonitor` and `metrics.podMonitor`.

- Every metric of a job has the labels `job_namespace` and `job_name`; `namespace`, `pod` and `job` are the scraper's.
- Each name is exported by one program. The operator's counters of a job are kept in its status and never fall. A
  trainer's begin at 0 with each attempt, in a series of its own pod: sum what `rate` or `increase` says.
- When a job is deleted its series end.
- `ratchet_phase` and `ratchet_condition` have a series for what holds now, with the
  [reason](conditions.md).

The dashboards in `helm/ratchet/files/dashboards` and the rules in `helm/ratchet/files/rules.yaml` use these names and
no others.
"""
ELSEWHERE = """
## What other trainers call it

For those who know a metric by another name. Definitions differ in detail, as each project's own pages say.

"""


def page() -> str:
    """The whole page, Markdown."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        parts.append(f"\n## {title}\n\n| metric | type | labels | from | what |\n|---|---|---|---|---|\n")
        parts += [_row(metric) for metric in METRICS if metric.group == group]
    parts.append(f"{ELSEWHERE}| metric | {' | '.join(TRAINERS)} |\n|---{'|---' * len(TRAINERS)}|\n")
    for metric in METRICS:
        if metric.known_as:
            names = [f"`{metric.known_as[t]}`" if t in metric.known_as else "-" for t in TRAINERS]
            parts.append(f"| `{metric.name}` | {' | '.join(names)} |\n")
    return "".join(parts)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
    source = f" Entry `{metric.source}` of a step's record." if metric.source else ""
    only = f" Only where: {metric.only}." if metric.only else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.owner} | {metric.help}{source}{only} |\n"


if __name__ == "__main__":
    print(page(), end="")
