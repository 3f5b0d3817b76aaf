"""What a metric is: its name as Prometheus scrapes it, what it means, who exports it, and what else it is called.

Decides the form of the registry's rows. The rows are in `of_trainer` and `of_operator`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Owner = Literal["operator", "trainer", "every trainer process"]
GROUPS = {
    "job": "The job",
    "learning": "Is it learning?",
    "speed": "Is it fast?",
    "recovery": "What did preemptions cost?",
    "fleet": "Does the fleet keep up?",
    "operator": "The operator",
}

JOB_LABELS = ("job_namespace", "job_name")
"""Of every metric of a job. Not `namespace` and `job`: those are the scraper's own."""


@dataclass(frozen=True)
class Metric:
    """A row of the registry.

    name: as scraped, so a counter's ends with `_total`. labels: besides those of a job. source: the entry of a step's
    record that it shows (metrics.jsonl), NAME standing for a part that becomes a label. only: when it has values, where
    that is not always. known_as: what other trainers call it, for those who look for it.
    """

    name: str
    kind: Kind
    group: str
    help: str
    labels: tuple[str, ...] = ()
    owner: Owner = "trainer"
    of_job: bool = True
    source: str = ""
    only: str = ""
    known_as: Mapping[str, str] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """The name without the ending that the text format adds to counters."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name

    @property
    def all_labels(self) -> tuple[str, ...]:
        return (*JOB_LABELS, *self.labels) if self.of_job else self.labels

    @property
    def series(self) -> tuple[str, ...]:
        """The names that PromQL may use."""
        if self.kind == "histogram":
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)
