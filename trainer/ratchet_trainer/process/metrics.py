"""The trainer's Prometheus metrics: every name, its help text, and where its value comes from.

Decides names and labels; values are read from the progress document when somebody scrapes, so a step pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ratchet_trainer.process.progress import Progress

LABELS = ("job_namespace", "job_name")

GAUGES = {
    # name -> help, metric of the step's record
    "ratchet_reward_mean": ("Mean reward of the last step's rollouts.", "train/reward"),
    "ratchet_accuracy_ratio": ("Share of the last step's first rollouts that were right.", "train/accuracy"),
    "ratchet_loss": ("Loss of the last step.", "train/loss"),
    "ratchet_entropy_mean": ("Mean entropy of the policy at the sampled tokens, in nats.", "train/entropy"),
    "ratchet_unsolved_ratio": ("Share of the last step's groups in which no rollout was right.", "train/unsolved"),
    "ratchet_solved_ratio": ("Share of the last step's groups in which every rollout was right.", "train/solved"),
    "ratchet_response_tokens_mean": ("Mean length of the last step's responses, in tokens.", "train/response_tokens"),
    "ratchet_kl_mean": ("Mean drift of the policy from its reference at a token, in nats.", "train/kl"),
    "ratchet_value_loss": ("Loss of the critic in the last step.", "train/value_loss"),
    "ratchet_logprob_mismatch_mean": (
        "Mean distance of the sampler's log-probability of a token from the trainer's, same weights.",
        "train/logprob_mismatch",
    ),
    "ratchet_sampler_importance_ratio_mean": (
        "Mean of the trainer's probability of a token over the sampler's, same weights; far from 1 is a fault.",
        "train/importance_ratio",
    ),
}


def exposition(progress: Progress, namespace: str, name: str) -> bytes:
    """All metrics in the text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(progress, (namespace, name)))
    return generate_latest(registry)


class _Collector:
    def __init__(self, progress: Progress, labels: tuple[str, str]):
        self._progress, self._labels = progress, labels

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        document, record = self._progress.document, self._progress.record

        def gauge(metric: str, text: str, value: Any) -> Iterator[Any]:
            if isinstance(value, (int, float)):
                family = GaugeMetricFamily(metric, text, labels=LABELS)
                family.add_metric(self._labels, value)
                yield family

        yield from gauge("ratchet_step", "Steps done.", document["step"])
        yield from gauge("ratchet_target_steps", "Step at which the stage ends at the latest.", document["targetStep"])
        yield from gauge("ratchet_attempt", "Number of this attempt.", document["attempt"])
        yield from gauge(
            "ratchet_tokens_per_second", "Tokens generated a second, last step.", document["tokensPerSecond"]
        )
        for metric, (text, key) in GAUGES.items():
            yield from gauge(metric, text, record.get(key))
        if "train/clip_fraction" in record:
            family = GaugeMetricFamily(
                "ratchet_clip_ratio",
                "Share of the last step's trained tokens whose ratio was clipped, by side.",
                labels=(*LABELS, "side"),
            )
            for side in ("low", "high"):
                family.add_metric((*self._labels, side), record[f"train/clip_fraction_{side}"])
            yield family
        if document["checkpoint"]:
            yield from gauge("ratchet_checkpoint_step", "Last committed step.", document["checkpoint"]["step"])
            written = datetime.fromisoformat(document["checkpoint"]["time"]).timestamp()
            yield from gauge("ratchet_last_checkpoint_timestamp_seconds", "When it was committed.", written)
        exact = document["exactSince"]
        yield from gauge(
            "ratchet_exact_since_step",
            "First step from which the run is exact on its present topology and versions; 0 means from the start.",
            exact["step"] if exact else 0,
        )
        phases = CounterMetricFamily(
            "ratchet_phase_seconds_total",
            "Seconds of this attempt in each category of the ledger.",
            labels=(*LABELS, "phase"),
        )
        for category, value in self._progress.ledger.seconds.items():
            phases.add_metric((*self._labels, category), value)
        yield phases
        steps = CounterMetricFamily("ratchet_steps_total", "Steps done by this attempt.", labels=LABELS)
        steps.add_metric(self._labels, self._progress.steps)
        yield steps
        skipped = CounterMetricFamily(
            "ratchet_updates_skipped_total",
            "Optimizer calls of this attempt left out: no group could teach anything, or the loss was no number.",
            labels=LABELS,
        )
        skipped.add_metric(self._labels, self._progress.skipped)
        yield skipped
