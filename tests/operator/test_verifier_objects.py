"""What verifiers of the user's own need is in the trainer's pod: code from ConfigMaps, secrets as variables."""

from __future__ import annotations

from typing import Any

from plan_story import Story

DATASETS: list[dict[str, Any]] = [
    {
        "name": "a",
        "jsonl": {"path": "/data/a.jsonl"},
        "verifier": "python",
        "python": {"entrypoint": "judge:verify", "configMap": "judge"},
    },
    {
        "name": "held-out",
        "jsonl": {"path": "/data/b.jsonl"},
        "verifier": "http",
        "http": {"url": "https://judge.example/", "secret": {"name": "judge-token", "key": "token"}},
    },
    {"name": "c", "jsonl": {"path": "/data/c.jsonl"}},
]
REWARDS = [
    {"name": "short", "weight": "1", "python": {"entrypoint": "short:of", "configMap": "rewards"}},
    {"name": "kind", "weight": "1", "python": {"entrypoint": "kind:of", "configMap": "judge"}},
    {"name": "own", "weight": "1", "python": {"entrypoint": "in.the.image:of"}},
    {"name": "right"},
    {"name": "prefix", "correctPrefix": {"python": {"entrypoint": "steps:check", "configMap": "steps"}}},
    {
        "name": "by-judge",
        "correctPrefix": {"http": {"url": "https://judge.example/", "secret": {"name": "steps-token", "key": "t"}}},
    },
]


def pod() -> dict[str, Any]:
    rl = {"dataset": "a", "promptsPerStep": 4, "groupSize": 4, "maxPromptTokens": 64, "maxResponseTokens": 8}
    stages = [{"name": "one", "rl": rl | {"rewards": REWARDS}, "advance": {"steps": 1}}]
    _, jobset = Story(datasets=DATASETS, stages=stages).decide().create
    return jobset["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]


def test_each_config_map_is_mounted_once_where_the_trainer_looks_for_it():
    spec = pod()
    volumes = {v["name"]: v["configMap"]["name"] for v in spec["volumes"] if v["name"].startswith("verifier-")}
    mounts = {m["mountPath"]: m for m in spec["containers"][0]["volumeMounts"] if m["name"] in volumes}
    assert {volumes[m["name"]]: path for path, m in mounts.items()} == {
        "judge": "/etc/ratchet/verifiers/judge",
        "rewards": "/etc/ratchet/verifiers/rewards",
        "steps": "/etc/ratchet/verifiers/steps",
    }
    assert all(m["readOnly"] for m in mounts.values())


def test_a_secret_reaches_the_trainer_as_a_variable_that_the_kubelet_fills():
    env = {e["name"]: e for e in pod()["containers"][0]["env"]}
    assert env["RATCHET_VERIFIER_SECRET_HELD_OUT"]["valueFrom"] == {
        "secretKeyRef": {"name": "judge-token", "key": "token"}
    }
    assert env["RATCHET_REWARD_SECRET_0_BY_JUDGE"]["valueFrom"] == {"secretKeyRef": {"name": "steps-token", "key": "t"}}
    assert len([name for name in env if name.startswith("RATCHET_REWARD_SECRET_")]) == 1
    assert not [name for name in env if name.startswith("RATCHET_VERIFIER_SECRET_") and not name.endswith("HELD_OUT")]
