"""YAML of the documentation as whole manifests: a fragment is put where its keys belong, into a manifest that is valid.

A page may show `rewards:` alone, or two stages. What is left out is taken from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ratchet_api.datasets import Dataset
from ratchet_api.job import Model, Spec
from ratchet_api.stages import Rl, Stage

HEAD = {"apiVersion": "ratchet.dev/v1alpha1", "kind": "RLTrainingJob", "metadata": {"name": "sums"}}
LINES = ("lines", "chat", "problems")
"""Data sets that pages speak of after they have shown them."""


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(root: Path) -> Iterator[Block]:
    """All fenced blocks of README, CONTRIBUTING and docs/."""
    for file in [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]:
        text = file.read_text(encoding="utf-8")
        for found in re.finditer(r"^( *)```(\w*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(str(file.relative_to(root)), line, found[2], found[3])


def base() -> dict[str, Any]:
    """A valid manifest with what fragments refer to."""
    gym = {"task": "chain_sum", "size": 20000, "config": {"max_terms": 2, "max_digits": 1}}
    files = [{"name": name, "jsonl": {"path": f"/data/{name}.jsonl", "claimName": "data"}} for name in LINES]
    spec = {
        "model": {"path": "/models/qwen3", "claimName": "models"},
        "datasets": [{"name": "sums", "reasoningGym": gym}, *files],
        "stages": [
            {"name": "warm-up", "sft": {"dataset": "lines"}, "advance": {"steps": 150}},
            {"name": "reason", "rl": {"dataset": "sums", "method": "grpo"}, "advance": {"steps": 400}},
        ],
        "evaluations": [{"name": "held-out", "dataset": "sums"}],
        "checkpoint": {"directory": "/checkpoints/sums", "claimName": "checkpoints"},
        "placements": [{"name": "spot", "accelerator": "tpu-v6e-slice", "topology": "4x4", "capacity": "Spot"}],
    }
    return {**HEAD, "spec": spec}


def whole(fragment: dict[str, Any]) -> dict[str, Any]:
    """The manifest that a fragment is part of. Raises LookupError for keys that belong nowhere together."""
    if "apiVersion" in fragment:
        return fragment if "spec" in fragment else base() | fragment
    manifest = base()
    spec = manifest["spec"]
    inside = fragment.get("spec", fragment)
    keys = set(inside)
    if keys <= _fields(Spec):
        _into_spec(spec, inside)
    elif keys <= _fields(Stage):
        stage = spec["stages"][1]
        if "dataset" not in inside.get("rl", {"dataset": ""}):
            del stage["rl"]["dataset"]
        stage |= inside | {"rl": stage["rl"] | inside.get("rl", {})}
    elif keys <= _fields(Rl):
        spec["stages"][1]["rl"] |= inside
    elif keys <= _fields(Dataset):
        spec["datasets"][1] |= inside
    elif keys <= _fields(Model):
        spec["model"] |= inside
    else:
        raise LookupError(f"{sorted(keys)} are not all fields of one object")
    return manifest


def _into_spec(spec: dict[str, Any], inside: dict[str, Any]) -> None:
    named = {dataset["name"]: dataset for dataset in [*spec["datasets"], *inside.get("datasets", [])]}
    spec |= inside | {"datasets": list(named.values())}
    if "stages" in inside:
        spec["stages"] = [
            stage if "curate" in stage else {"advance": {"steps": 100}} | stage for stage in inside["stages"]
        ]


def _fields(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def documents(text: str) -> list[Any]:
    """The documents of a YAML text that are more than comments."""
    return [document for document in yaml.safe_load_all(text) if document is not None]
