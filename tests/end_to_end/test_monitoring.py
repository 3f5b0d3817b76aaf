"""A real Prometheus watches a real run that loses a node: every panel of every dashboard has data, and every rule is
evaluated."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from watched import Watched, short_sums, until

from ratchet_cluster import operator_chart, pools
from ratchet_cluster.build import PROMETHEUS, ensure_binaries
from ratchet_cluster.cluster import Cluster
from ratchet_cluster.prometheus import Prometheus
from ratchet_monitoring.boards import BOARDS
from ratchet_monitoring.evaluate import Window, answers

RULES = operator_chart.chart() / "files/rules.yaml"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(tmp_path / "cluster")
    slices = [pools.make(name, "tpu-v6e-slice", "2x4", 4, spot=True) for name in ("pool-a", "pool-b")]
    workers = pools.make("pool-w", "tpu-v6e-slice", "2x2", 4, spot=True)
    try:
        yield one.up([*slices, workers], print, owner=os.getpid(), replace_after=3)
    finally:
        one.down(purge=True)


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    one = Prometheus.begin(tmp_path / "prometheus", cluster.kubeconfig, rules=RULES, seconds=0.5)
    try:
        yield one
    finally:
        one.stop()


def everything_that_panels_show(file: Path) -> Path:
    """The short example with a critic, a reference, an evaluation, and a fleet that samples ahead."""
    manifest = short_sums(
        file,
        evaluations=[
            {
                "name": "held-out",
                "dataset": "three-terms",
                "everySteps": 20,
                "items": 16,
                "samples": 4,
                "passAt": [1, 4],
            }
        ],
    )
    data = yaml.safe_load(manifest.read_text())
    ahead = data["spec"]["stages"][1]
    ahead["rl"] |= {"method": "ppo", "kl": {"coefficient": "0.01"}, "rollouts": {"lag": 1}}
    ahead["advance"] = {"steps": 40}
    newest = {**ahead, "name": "newest", "rl": {k: v for k, v in ahead["rl"].items() if k != "rollouts"}}
    data["spec"]["stages"].append(newest)
    worker = {"name": "workers", "accelerator": "tpu-v6e-slice", "topology": "2x2", "capacity": "Spot"}
    data["spec"]["rollouts"] = {"workers": {"min": 1, "max": 1}, "placements": [worker]}
    manifest.write_text(yaml.safe_dump(data))
    return manifest


@pytest.mark.timeout(900)
def test_every_panel_shows_something_and_every_rule_is_evaluated(
    cluster: Cluster, prometheus: Prometheus, tmp_path: Path
) -> None:
    operator_chart.install(cluster, "replicaCount=1")
    cluster.kubectl("apply", "--filename", str(everything_that_panels_show(tmp_path / "sums.yaml")))
    job = Watched(cluster)
    job.makes_step(1, 25)
    said_by_every_program_is_in_the_registry(prometheus)
    cluster.preempt(next(node["name"] for node in cluster.nodes() if node["pods"] and node["pool"]))
    until(lambda: job.status.get("phase") == "Completed", "the job is completed")
    until(lambda: prometheus.query("ratchet_restarts_total"), "the end is scraped")
    start = float(prometheus.query("min_over_time(timestamp(ratchet_attempt > 0)[30m:1s])")[0]["value"][1])
    end = float(prometheus.query("timestamp(ratchet_restarts_total)")[0]["value"][1])

    window = Window(start, end, step=1.0, job="sums", namespace="default")
    empty = {
        (name, answer.panel.title, answer.query.legend): answer.query.absent or answer.panel.without_data
        for name, board in BOARDS.items()
        for answer in answers(board, window, prometheus.query, prometheus.query_range)
        if not answer.series
    }
    assert [name for name in empty if empty[name] != "the peak is known of TPUs only"] in (
        [],
        [("fleet", "Why jobs do not run", "{{phase}}: {{reason}}")],  # it took less than a second
    )
    rules = prometheus.rules()
    assert len(rules) > 15
    assert {rule["health"] for rule in rules} == {"ok"}, [rule for rule in rules if rule["health"] != "ok"]


def said_by_every_program_is_in_the_registry(prometheus: Prometheus) -> None:
    """While the job runs: whoever declares a port for metrics serves it, no name comes from two programs, and promtool
    finds nothing wrong in what they say."""
    up = prometheus.query("up")
    assert sorted(series["metric"]["container"] for series in up) == ["operator", *["trainer"] * 3], "a worker's, too"
    assert {series["value"][1] for series in up} == {"1"}
    owners = prometheus.query('count by (__name__, container) ({__name__=~"ratchet_.*"})')
    names = [series["metric"]["__name__"] for series in owners]
    assert len(names) == len(set(names)), "one owner a name"
    promtool = ensure_binaries(recipe=PROMETHEUS) / "promtool"
    for series in up:
        with urllib.request.urlopen(f"http://{series['metric']['instance']}/metrics", timeout=10) as page:
            done = subprocess.run([promtool, "check", "metrics"], input=page.read(), capture_output=True, timeout=60)
        assert done.returncode == 0, json.dumps(done.stderr.decode())
