"""The manifest as commented YAML. Decides the settings that a first run gets, and what the comments say."""

from __future__ import annotations

import json
import math
from pathlib import Path

from ratchet_cli.init.answers import SUMS, Data, Model, Place

ROOM = 8
"""Tokens beside the text: of the template, the end."""
SUMS_CONFIG = '{min_terms: 3, max_terms: 3, min_digits: 1, max_digits: 1, operators: ["+"], allow_parentheses: false}'
DEFAULT_LENGTHS = (512, 256)
"""Where nothing is known of questions and answers."""
REASONING_TOKENS = 256
"""Room for a real model's thoughts before its answer."""


def manifest(
    file: str,
    name: str,
    model: Model,
    data: Data,
    place: Place,
    lengths: tuple[int, int] | None,
    question: str,
    answer: str,
    checkpoints: str | None,
) -> str:
    """The text of `file`. `lengths`: characters of the longest question and answer that were seen, or None."""
    prompt, response = _tokens(model, lengths)
    parts = [
        *_head(file, name, place),
        "spec:",
        *_model(model, place),
        *_parallelism(model, place),
        *_data(data, place, question, answer),
        *_stages(model, data, prompt, response),
        *_watching(file, data),
        *_keeping(name, place, checkpoints),
        *_placement(place),
    ]
    return "\n".join(parts) + "\n"


def _quoted(text: str) -> str:
    """As YAML: JSON strings are YAML, too."""
    return json.dumps(text, ensure_ascii=False)


def _tokens(model: Model, lengths: tuple[int, int] | None) -> tuple[int, int]:
    """Tokens of prompt and response. The built-in model has one token a character."""
    if lengths is None:
        return DEFAULT_LENGTHS
    if model.path is None:
        exact = lengths == (33, 3)
        return lengths if exact else (_up(lengths[0] * 1.25 + ROOM), _up(lengths[1] * 1.25 + ROOM))
    return max(64, _up(lengths[0] / 2 + 64)), max(REASONING_TOKENS, _up(lengths[1] + 64))


def _up(value: float, to: int = 8) -> int:
    return math.ceil(value / to) * to


def _head(file: str, name: str, place: Place) -> list[str]:
    lines = [f"# Made by `ratchet init`. `ratchet explain {file}` says in words what it asks for."]
    if place.accelerator is None:
        lines += [f"# Train it here:         ratchet train {file}", f"# Then look at it:       ratchet report {file}"]
    else:
        lines += [
            f"# Is all there for it?   ratchet doctor {file}",
            f"# Does it fit the TPUs?  ratchet fit {file}",
            f"# Train it:              kubectl apply -f {file}",
        ]
    return [*lines, "apiVersion: ratchet.dev/v1alpha1", "kind: RLTrainingJob", f"metadata: {{name: {name}}}"]


def _model(model: Model, place: Place) -> list[str]:
    if model.path is None:
        return [
            "  # A model of a few layers that begins with nothing: for trying things out.",
            "  model: {preset: tiny}",
        ]
    if model.on_bucket or place.accelerator is None:
        said = [f"    path: {_quoted(model.path)}"]
    else:
        folder = Path(model.path).name
        said = [
            f"    # Copy {folder} into the volume of claim `models`, or to a bucket, and name it here: gs://BUCKET/{folder}",
            f"    path: {_quoted(f'/models/{folder}')}",
            "    claimName: models",
        ]
    fast = ["    dtype: bfloat16", "    activationCheckpointing: true"] if place.accelerator else []
    return ["  model:", *said, *fast]


def _parallelism(model: Model, place: Place) -> list[str]:
    if place.slice is None or model.path is None:
        return []
    devices = place.slice.chips * place.slice.devices_per_chip
    if devices == 1:
        return []
    return [
        "  # Weights and optimizer are spread over all devices of the slice.",
        f"  parallelism: {{fsdp: {devices}}}",
    ]


def _data(data: Data, place: Place, question: str, answer: str) -> list[str]:
    lines = ["  datasets:", f"  - name: {data.name}"]
    if data.task == SUMS:
        return [
            *lines,
            "    # Sums of three numbers; what is left of the thousand that there are is for the evaluation.",
            "    reasoningGym:",
            "      task: basic_arithmetic",
            "      size: 400",
            f"      config: {SUMS_CONFIG}",
        ]
    if data.task is not None:
        return [*lines, f"    reasoningGym: {{task: {data.task}, size: 2000}}"]
    file = data.file or ""
    claim = place.accelerator is not None and "://" not in file
    said = [f"      path: {_quoted(f'/data/{Path(file).name}' if claim else file)}"]
    if claim:
        said.append("      # The claim that holds it; `ratchet train` looks in the folder `data` beside this file.")
        said.append("      claimName: data")
    said += [f"      question: {_quoted(question)}"] if question != "question" else []
    said += [f"      answer: {_quoted(answer)}"] if answer != "answer" else []
    left_out = ["    # What is too long for the stages below is left out and counted.", "    overlong: LeaveOut"]
    return [*lines, f"    {data.source}:", *said, *left_out]


def _stages(model: Model, data: Data, prompt: int, response: int) -> list[str]:
    lengths = f"maxPromptTokens: {prompt}, maxResponseTokens: {response}"
    lines = ["  stages:"]
    if model.path is None:
        lines += [
            "  # A model that knows nothing is first shown answers, or no guess would ever be right.",
            "  - name: warm-up",
            f'    sft: {{dataset: {data.name}, {lengths}, optimizer: {{learningRate: "0.004"}}}}',
            "    advance: {steps: 80}",
        ]
    rate, warm = ("0.001", 10) if model.path is None else ("0.000002", 10)
    return [
        *lines,
        "  # Several answers to each prompt; those that are better than the others are made likelier.",
        "  - name: reason",
        "    rl:",
        f"      dataset: {data.name}",
        "      method: grpo                # others: docs/methods.md",
        "      promptsPerStep: 16",
        "      groupSize: 8",
        f"      maxPromptTokens: {prompt}",
        f"      maxResponseTokens: {response}",
        f'      optimizer: {{learningRate: "{rate}", warmupUpdates: {warm}}}',
        "    # At most so many steps; it is over before, once nine of ten answers are right.",
        '    advance: {steps: 100, when: [{metric: accuracy, atLeast: "0.9", window: 10}]}',
    ]


def _watching(file: str, data: Data) -> list[str]:
    if data.file is not None:
        return [f"  samples: {{everySteps: 10, count: 4}}   # some answers to read: ratchet samples {file}"]
    return [
        "  # Items that are never trained on: whether it learns or only remembers.",
        f"  evaluations: [{{name: held-out, dataset: {data.name}, items: 64, everySteps: 20}}]",
        f"  samples: {{everySteps: 10, count: 4}}   # some answers to read: ratchet samples {file}",
    ]


def _keeping(name: str, place: Place, checkpoints: str | None) -> list[str]:
    if checkpoints is not None:
        said = f"  checkpoint: {{directory: {_quoted(checkpoints)}, everySteps: 10}}"
        return ["  # At most so many steps are made again after a machine is lost without notice.", said]
    note = "  # At most so many steps are made again after a machine is lost without notice."
    if place.accelerator is None:
        note = "  # `ratchet train` keeps checkpoints in .ratchet; the directory counts in a cluster."
    return [note, f"  checkpoint: {{directory: /checkpoints/{name}, claimName: checkpoints, everySteps: 10}}"]


def _placement(place: Place) -> list[str]:
    if place.accelerator is None:
        return ["  placements:", "  - {name: cpu, cpu: {hosts: 1}}"]
    chips = f", chipsPerNode: {place.slice.chips_per_node}" if place.slice is not None else ""
    slice_ = f"accelerator: {place.accelerator}, topology: {place.topology}{chips}"
    return [
        "  # Tried in this order: spot capacity costs less and can be taken away, which costs time and nothing else.",
        "  placements:",
        f"  - {{name: spot, {slice_}, capacity: Spot, waitSeconds: 900}}",
        f"  - {{name: on-demand, {slice_}, capacity: OnDemand}}",
    ]
