"""Jobs on a real API server whose statuses are written by the test: what an operator would say, and what none would."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from ratchet_cluster.cluster import Cluster

MANIFEST = """
apiVersion: ratchet.dev/v1alpha1
kind: RLTrainingJob
metadata: {name: sums}
spec:
  model: {preset: tiny}
  datasets:
  - name: sums
    reasoningGym: {task: basic_arithmetic, size: 500}
  stages:
  - name: warm-up
    sft: {dataset: sums}
    advance: {steps: 10, approval: Manual}
  - name: reason
    rl: {dataset: sums, method: grpo}
    advance: {steps: 40}
  checkpoint: {directory: /checkpoints/sums, claimName: checkpoints}
  placements:
  - {name: spot, accelerator: tpu-v6e-slice, topology: 4x4, slices: 2, capacity: Spot}
"""


def ago(seconds: float) -> str:
    """A time as Kubernetes writes it."""
    return f"{datetime.now(UTC) - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": ago(60)}


def running() -> dict[str, Any]:
    """Status of a job in its second stage and its second attempt."""
    return {
        "phase": "Running",
        "conditions": [
            condition("Accepted", "True", "Accepted"),
            condition("Placed", "True", "AllPodsScheduled"),
            condition("Running", "True", "AllPodsRunning"),
            condition("Progressing", "True", "Training"),
            condition("Learning", "True", "Learning"),
            condition("Suspended", "False", "NotSuspended"),
            condition("AwaitingApproval", "False", "NotRequired"),
            condition("Completed", "False", "NotCompleted"),
            condition("Failed", "False", "NotFailed"),
        ],
        "stage": {"name": "reason", "index": 1, "startStep": 10},
        "stages": [
            {"name": "warm-up", "index": 0, "startStep": 0, "endStep": 10, "needsApproval": True},
            {"name": "reason", "index": 1, "startStep": 10, "startTime": ago(600)},
        ],
        "progress": {
            "step": 30, "targetStep": 50, "text": "30/50", "phase": "generate", "reward": "0.4", "accuracy": "0.25",
            "tokensPerSecond": "2764", "estimatedCompletionTime": ago(-120), "updatedAt": ago(2),
        },
        "checkpoint": {"step": 20, "time": ago(20), "path": "steps/20"},
        "attempt": {
            "number": 2, "jobSet": "sums-a2", "placement": "spot", "startStep": 10, "startTime": ago(110),
            "runningTime": ago(102), "podsReady": 8, "podsTotal": 8,
        },
        "attempts": [
            {
                "number": 1, "verdict": "NodeLost", "chargedTo": "preemptions", "evidence": "node a no longer exists",
                "placement": "spot", "startStep": 0, "endStep": 13, "stepsLost": 3, "startTime": ago(900),
                "endTime": ago(120), "finalTime": ago(115), "recovery": {"total": "27.5"},
            }
        ],
        "counters": {"attempts": 2, "preemptions": 1, "failures": 0, "stepsLost": 3},
    }  # fmt: skip


def job(name: str = "sums", **spec: Any) -> dict[str, Any]:
    """A manifest."""
    found: dict[str, Any] = copy.deepcopy(yaml.safe_load(MANIFEST))
    found["metadata"]["name"] = name
    found["spec"] |= spec
    return found


def create(
    server: Cluster, namespace: str, name: str = "sums", status: dict[str, Any] | None = None, **spec: Any
) -> None:
    """Creates the job, and writes its status."""
    server.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(job(name, **spec)))
    if status is not None:
        write(server, namespace, name, status)


def write(server: Cluster, namespace: str, name: str, status: dict[str, Any]) -> None:
    """Writes the status, as the operator does."""
    body = json.dumps({"status": status})
    server.kubectl("patch", "rlj", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", body)
