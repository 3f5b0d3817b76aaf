"""One valid manifest that uses every part of the spec, for tests to bend."""

from __future__ import annotations

import copy
from typing import Any

_FULL: dict[str, Any] = {
    "apiVersion": "ratchet.dev/v1alpha1",
    "kind": "RLTrainingJob",
    "metadata": {"name": "sums"},
    "spec": {
        "model": {
            "path": "/models/qwen",
            "claimName": "models",
            "chatTemplate": "{{ messages[-1].content }}",
            "systemPrompt": "Add.",
            "lora": {"rank": 4, "alpha": "8", "targets": ["q_proj", "v_proj"]},
        },
        "seed": 7,
        "image": "registry.example/trainer:1",
        "suspend": False,
        "datasets": [
            {"name": "sums", "reasoningGym": {"task": "chain_sum", "size": 100, "config": {"max_terms": 2}}},
            {"name": "file", "jsonl": {"path": "/data/a.jsonl", "claimName": "data", "question": "q", "answer": "a"}},
            {"name": "chosen", "fromStage": "choose"},
        ],
        "stages": [
            {
                "name": "warm-up",
                "sft": {
                    "dataset": "file",
                    "batchSize": 8,
                    "rowsPerPass": 4,
                    "optimizer": {"learningRate": "1e-3", "warmupUpdates": 5},
                },
                "advance": {"steps": 20, "minSteps": 5, "when": [{"metric": "loss", "atMost": "0.1", "window": 3}]},
            },
            {
                "name": "reason",
                "rl": {
                    "dataset": "sums",
                    "method": "grpo",
                    "promptsPerStep": 8,
                    "groupSize": 4,
                    "updatesPerStep": 2,
                    "rowsPerPass": 8,
                    "temperature": "1.0",
                    "objective": {
                        "surrogate": "ppo",
                        "aggregation": "token-mean",
                        "clipLow": "0.2",
                        "clipHigh": "0.28",
                        "dualClip": "3",
                        "importanceCap": "2",
                        "entropy": "1e-3",
                    },
                    "advantage": {"estimator": "mean-std", "delta": "1e-6", "cut": "mask"},
                    "selection": {
                        "kind": "learnability",
                        "candidates": 32,
                        "rollouts": 4,
                        "buffer": {"everySteps": 10, "size": 16, "share": "0.5"},
                    },
                    "rewards": [
                        {"name": "right", "of": "accuracy"},
                        {
                            "name": "prefix",
                            "weight": "0.5",
                            "cycle": {"on": 100, "off": 500},
                            "correctPrefix": {
                                "http": {"url": "http://judge", "secret": {"name": "judge", "key": "token"}},
                                "steps": "words",
                                "beta": "5",
                                "gamma": "0.5",
                                "scope": "wrongResponses",
                            },
                        },
                        {"name": "ends", "unfinished": {"value": "-1"}},
                    ],
                    "expansion": {
                        "kind": "dynamicSampling",
                        "maxRounds": 3,
                        "promptsPerRound": 8,
                        "surplus": "carry",
                    },
                    "kl": {"estimator": "k1", "in": "reward", "coefficient": "1e-3", "clamp": "10"},
                    "reference": {"kind": "frozen"},
                },
                "advance": {"steps": 40, "when": [{"metric": "accuracy", "atLeast": "0.9"}], "atLimit": "Fail"},
                "start": {"optimizer": "keep", "critic": "reset"},
            },
            {
                "name": "choose",
                "curate": {
                    "dataset": "sums",
                    "samples": 4,
                    "promptsPerStep": 8,
                    "keep": {"low": "0.1", "high": "0.9"},
                    "deduplicate": "none",
                    "contradictions": "Keep",
                    "refused": "Keep",
                    "hints": {"from": "solution", "steps": "sentences", "levels": 2},
                    "approval": "Manual",
                },
                "guards": [{"metric": "curate/accuracy", "atMost": "0", "action": "Fail"}],
            },
        ],
        "budgets": [{"stage": "reason", "generatedTokens": 100000, "chipHours": "8", "onExceeded": "Fail"}],
        "checkpoint": {
            "directory": "/checkpoints/sums",
            "claimName": "checkpoints",
            "everySteps": 5,
            "keep": 3,
            "existing": "Resume",
        },
        "placements": [
            {
                "name": "spot",
                "accelerator": "tpu-v6e-slice",
                "topology": "2x4",
                "chipsPerNode": 4,
                "slices": 1,
                "capacity": "Spot",
                "waitSeconds": 60,
                "zone": "us-east5-a",
                "nodeSelector": {"team": "a"},
                "tolerations": [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}],
            },
            {
                "name": "flexible",
                "accelerator": "tpu-v9-slice",
                "hosts": 2,
                "chipsPerNode": 4,
                "devicesPerChip": 2,
                "capacity": "FlexStart",
                "queuedProvisioning": True,
            },
            {
                "name": "reserved",
                "accelerator": "tpu-v6e-slice",
                "topology": "4x4",
                "capacity": "Reserved",
                "reservation": "winter",
            },
            {"name": "any", "accelerator": "tpu-v6e-slice", "topology": "4x4", "computeClass": "cheapest"},
            {"name": "laptop", "cpu": {"hosts": 2}},
        ],
        "restart": {"failureLimit": 2, "healthySteps": 10, "preemptionLimit": 100},
        "maintenance": {"leadSeconds": 7200},
        "podTemplate": {
            "labels": {"team": "a"},
            "annotations": {"note": "b"},
            "env": [{"name": "A", "value": "1"}],
            "envFrom": [
                {"prefix": "WANDB_", "secretRef": {"name": "wandb", "optional": True}},
                {"configMapRef": {"name": "proxies"}},
            ],
            "imagePullSecrets": [{"name": "registry"}],
            "volumes": [
                {"name": "shm", "mountPath": "/dev/shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
                {"name": "big", "mountPath": "/big", "ephemeral": {"storage": "2Ti", "storageClassName": "ssd"}},
                {"name": "ca", "mountPath": "/etc/company", "secret": {"secretName": "ca"}},
                {"name": "lists", "mountPath": "/lists", "configMap": {"name": "lists"}},
                {
                    "name": "shared",
                    "mountPath": "/shared",
                    "persistentVolumeClaim": {"claimName": "shared", "readOnly": True},
                },
            ],
            "resources": {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            "serviceAccountName": "trainer",
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "readOnlyRootFilesystem": False,
            "fsGroup": 2000,
            "terminationGracePeriodSeconds": 120,
            "priorityClassName": "training",
        },
        "jobSetTemplate": {
            "labels": {"kueue.x-k8s.io/queue-name": "research"},
            "annotations": {"kueue.x-k8s.io/podset-required-topology": "cloud.google.com/gke-nodepool"},
        },
    },
}


def full() -> dict[str, Any]:
    """A fresh copy of the manifest."""
    return copy.deepcopy(_FULL)


_FLEET: dict[str, Any] = {
    "workers": {"min": 1, "max": 8},
    "placements": [
        {"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "2x4", "chipsPerNode": 4, "capacity": "Spot"},
        {"name": "laptop", "cpu": {"hosts": 1}, "waitSeconds": 60},
    ],
    "waitSeconds": 600,
    "podTemplate": {
        "labels": {"team": "a"},
        "env": [{"name": "A", "value": "1"}],
        "resources": {"requests": {"cpu": "1"}},
        "priorityClassName": "sampling",
    },
}


def with_fleet(name: str = "sums") -> dict[str, Any]:
    """The same job with workers that sample for it, which no queue admits."""
    manifest = full()
    manifest["metadata"]["name"] = name
    manifest["spec"]["rollouts"] = copy.deepcopy(_FLEET)
    manifest["spec"]["jobSetTemplate"]["labels"] = {}
    rl = {"dataset": "sums", "promptsPerStep": 8, "groupSize": 4, "rollouts": {"lag": 1, "promptsPerCall": 4}}
    manifest["spec"]["stages"][1]["rl"] = rl
    return manifest


def paths(node: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in plain data, containers included."""
    own = [prefix] if prefix else []
    if isinstance(node, dict):
        return own + [p for key, value in node.items() for p in paths(value, (*prefix, key))]
    if isinstance(node, list):
        return own + [p for index, value in enumerate(node) for p in paths(value, (*prefix, index))]
    return own
