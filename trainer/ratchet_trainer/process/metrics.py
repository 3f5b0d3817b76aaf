"""The trainer's Prometheus metrics: where each value comes from. Names and texts are the registry's
(`ratchet_api.metrics`).

Values are read from what the step left when somebody scrapes, so a step pays nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from ratchet_api.metrics import TRAINER
from ratchet_trainer.process.progress import Progress
from ratchet_trainer.process.totals import STEP_SECONDS, Totals

Labelled = tuple[tuple[str, ...], float]
"""Labels besides those of the job, and the value."""
ROWS = {row.name: row for row in TRAINER}
HOLES = re.compile("NAME|K$")
SHOWN_ELSEWHERE = {"train/clip_fraction"}
"""Entries of a record that are the sum of others."""
PATTERNS = {
    # pattern of an entry of a step's record -> the metric that shows it
    re.compile(HOLES.sub(lambda hole: r"(\d+)" if hole[0] == "K" else "([^/]+)", row.source)): row.name
    for row in TRAINER
    if row.source
}


def exposition(progress: Progress, namespace: str, name: str, process: int, accept: str = "") -> tuple[bytes, str]:
    """All metrics in the format that the scraper's Accept header asks for, and its Content-Type. Only process 0 knows
    how the training goes; the others say what their host has."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(_Collector(progress, (namespace, name), process))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def of_worker(accept: str = "") -> tuple[bytes, str]:
    """What a worker of the rollout fleet says: nothing. How the job goes is said once, by its trainer, which counts
    what workers answer."""
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(CollectorRegistry()), content_type


def of_record(record: dict[str, float]) -> Iterator[tuple[str, Labelled]]:
    """Metric and labelled value of each entry of a step's record that is a number."""
    for entry, value in record.items():
        if not isinstance(value, (int, float)) or math.isnan(value) or entry in SHOWN_ELSEWHERE:
            continue
        found = next(((name, m) for pattern, name in PATTERNS.items() if (m := pattern.fullmatch(entry))), None)
        yield (found[0], (found[1].groups(), value)) if found else ("ratchet_step_metric", ((entry,), value))


class _Collector:
    def __init__(self, progress: Progress, job: tuple[str, str], process: int):
        self._progress, self._job, self._process = progress, job, process

    def collect(self) -> Iterator[Any]:
        values: dict[str, list[Labelled]] = {}
        for name, value in self._samples():
            values.setdefault(name, []).append(value)
        for name, labelled in values.items():
            yield self._family(name, labelled)
        if self._process == 0:
            yield self._step_durations(self._progress.totals)

    def _samples(self) -> Iterator[tuple[str, Labelled]]:
        if (peak := _peak_memory()) is not None:
            yield "ratchet_process_peak_memory_bytes", ((str(self._process),), peak)
        if self._process != 0:
            return
        progress = self._progress
        document, totals = progress.document, progress.totals
        yield from of_record(progress.record)
        exact = document["exactSince"]
        for name, value in (
            ("ratchet_tokens_per_second", document["tokensPerSecond"]),
            ("ratchet_gradient_norm", totals.gradient_norm),
            ("ratchet_exact_since_step", exact["step"] if exact else 0),
            ("ratchet_peak_flops_per_second", totals.peak_flops or None),
            ("ratchet_steps_total", totals.steps),
            ("ratchet_updates_skipped_total", totals.skipped),
            ("ratchet_generated_tokens_total", totals.generated),
            ("ratchet_trained_tokens_total", totals.trained),
            ("ratchet_model_flops_total", totals.flops),
        ):
            if value is not None:
                yield name, ((), value)
        for disposition, count in dict(totals.draws).items():  # the step goes on meanwhile
            yield "ratchet_draws_total", ((disposition,), count)
        for category, seconds in dict(progress.ledger.seconds).items():
            yield "ratchet_phase_seconds_total", ((category,), seconds)

    def _family(self, name: str, labelled: list[Labelled]) -> Any:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        row = ROWS[name]
        kinds: dict[str, Callable[..., Any]] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        family = kinds[row.kind](row.family, row.help, labels=row.all_labels)
        for labels, value in labelled:
            family.add_metric((*self._job, *labels), value)
        return family

    def _step_durations(self, totals: Totals) -> Any:
        from prometheus_client.core import HistogramMetricFamily

        row = ROWS["ratchet_step_duration_seconds"]
        family = HistogramMetricFamily(row.name, row.help, labels=row.all_labels)
        bounds = [*map(str, map(float, STEP_SECONDS)), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(totals.durations)), strict=True))
        family.add_metric(self._job, buckets=buckets, sum_value=totals.seconds)
        return family


def _peak_memory() -> int | None:
    """Bytes of host memory that this process had at most; None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(1024 * int(line.split()[1]) for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
