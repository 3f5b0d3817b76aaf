"""The registry of metrics: names as Prometheus wants them, one owner each, and the page that is made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ratchet_api.metrics import GROUPS, METRICS, OPERATOR, TRAINER, Metric
from ratchet_api.metrics.reference_page import page
from ratchet_api.stage_metrics import RL_METRICS

ROOT = Path(__file__).parents[2]
UNITS = ("_seconds", "_bytes", "_ratio", "_tokens", "_steps", "_mean", "_total", "_info", "_per_second")


def test_every_name_has_one_owner():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_rules_of_prometheus(metric: Metric):
    assert re.fullmatch(r"ratchet_[a-z][a-z0-9_]*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert metric.group in GROUPS
    assert metric.help.endswith(".")
    assert not {"job", "namespace", "instance", "pod", "le", "quantile"} & set(metric.all_labels)
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)
    if metric.kind == "histogram":
        assert metric.name.endswith("_seconds")
    if "milli" in metric.help or "minutes" in metric.help:
        pytest.fail("base units only")


def test_series_of_a_job_say_whose_they_are():
    assert all(metric.of_job for metric in TRAINER)
    assert {metric.group for metric in OPERATOR if not metric.of_job} == {"operator"}


def test_what_every_rl_stage_reports_is_a_metric_of_its_own():
    shown = {metric.source.replace("NAME", "low") for metric in TRAINER}
    always = {name for name in RL_METRICS if name.split("/")[1] not in METHOD_SPECIFIC}
    assert always <= shown


METHOD_SPECIFIC = {
    "clip_fraction", "clip_fraction_high", "scored_rollouts", "active_items", "exhausted", "rounds", "dropped_right",
    "dropped_wrong", "surplus", "hinted", "unhelped", "hint_rollouts",
}  # fmt: skip
"""Shown by `ratchet_step_metric`, or as a label of another."""


def test_the_page_is_the_one_made_from_the_registry():
    assert (ROOT / "docs/metrics.md").read_text() == page(), "run: make generate"
