"""Whether a manifest makes sense: every problem with its path and a way out.

Judges what the types cannot: the envelope (apiVersion, kind, name), TPU shapes, divisibility by hosts; references,
places and names are in `references`, `places` and `cluster_names`. The operator
calls `semantic_problems` for the condition Accepted; `ratchet validate` calls `problems` on a whole manifest.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ratchet_api.base import DECIMAL_PATTERN
from ratchet_api.cluster_names import impossible_names, placements
from ratchet_api.job import (
    API_VERSION,
    FLEET_NAME_LENGTH,
    KIND,
    NAME_LENGTH,
    NAME_PATTERN,
    Parallelism,
    RLTrainingJob,
    Spec,
)
from ratchet_api.placements import Placement
from ratchet_api.places import impossible_places
from ratchet_api.pod_template import CPUS
from ratchet_api.pod_volumes import QUANTITY
from ratchet_api.reasoning_gym_tasks import TASKS
from ratchet_api.references import broken_references
from ratchet_api.tpu_topologies import ImpossibleShape, Shape, check_slices, given_shape, shape
from ratchet_api.trackers import NAME, TRACKING_URI, misplaced_trackers

REFUSED_FIELDS = {
    **dict.fromkeys(
        ("hostNetwork", "hostPID", "hostIPC", "hostPath", "hostUsers", "nodeName", "privileged"),
        "no job gets at its node; leave it out. A folder of the node's disk for checkpoints: checkpoint.localDirectory",
    ),
    "securityContext": "set runAsUser, runAsGroup, fsGroup or readOnlyRootFilesystem; what else a pod may do is fixed",
    **dict.fromkeys(
        ("containers", "initContainers", "volumeMounts"),
        "a pod has the trainer's container alone; see image, env, envFrom, volumes and resources",
    ),
}
"""Fields of a pod that people write into `podTemplate`, and what to do instead."""
WRITTEN = {
    # pattern of a field -> what that means
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$": "take lower-case letters, digits and '-', with a letter or digit at both ends",
    r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$": "take lower-case letters, digits, '-' and '.', with a letter or digit at both "
    "ends",
    r"^(/|(gs|s3)://[a-z0-9]).*$": "write gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a path that begins with /",
    r"^/.*$": "write a path that begins with /",
    r"^[A-Za-z_][A-Za-z0-9_]*$": "take letters, digits and '_', not beginning with a digit",
    DECIMAL_PATTERN: 'write a number in quotes, for example "0.5" or "1e-6"',
    QUANTITY: "write a number and a unit, for example 8Gi or 500M",
    NAME: "take letters, digits, '_', '.' and '-'",
    TRACKING_URI: "write http://HOST:PORT or https://HOST without credentials, which come from podTemplate.env, or a "
    "path that begins with /",
    CPUS: "write a number of CPUs, for example 4, 2.5 or 500m",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and the way out."""

    path: str
    message: str

    def __str__(self) -> str:
        # One line, whatever keys and values are quoted.
        return f"{self.path}: {self.message}".replace("\n", "\\n").replace("\r", "\\r")


def placement_shape(placement: Placement) -> Shape:
    """Hosts and chips of one slice of a placement; a CPU placement is one slice of `cpu.hosts` hosts without chips.

    Raises ImpossibleShape.
    """
    if placement.cpu is not None:
        return Shape(placement.cpu.hosts, 0)
    assert placement.accelerator is not None, "the type's rules"
    if placement.hosts is not None:
        assert placement.chips_per_node is not None, "the type's rules"
        each = placement.devices_per_chip or 1
        found = given_shape(placement.accelerator, placement.topology, placement.hosts, placement.chips_per_node, each)
    else:
        assert placement.topology is not None, "the type's rules"
        found = shape(placement.accelerator, placement.topology, placement.chips_per_node)
    check_slices(placement.accelerator, found, placement.slices)
    return found


def processes(placement: Placement) -> int:
    """Number of pods, one process each, that an attempt has on this placement. Raises ImpossibleShape."""
    return placement_shape(placement).hosts * placement.slices


def devices(placement: Placement) -> int:
    """Number of devices of an attempt there, as JAX counts them; a host without chips is one. Raises
    ImpossibleShape."""
    return processes(placement) * placement_shape(placement).devices_per_host


def chips(placement: Placement) -> int:
    """Number of chips of an attempt there, which is what capacity costs; a host without chips is one. Raises
    ImpossibleShape."""
    return processes(placement) * (placement_shape(placement).chips_per_node or 1)


def semantic_problems(spec: Spec) -> list[Problem]:
    """What is wrong in a spec whose types are right."""
    found = list(too_deep(spec))
    if found:
        return found  # what follows would have to walk through it
    shards = spec.reproducibility.virtual_shards if spec.reproducibility.mode == "Exact" else None
    for path, placement in placements(spec):
        try:
            count = processes(placement)
        except ImpossibleShape as error:
            found.append(Problem(f"{path}.{error.field}", str(error)))
            continue
        there = devices(placement)
        if spec.parallelism.data_on(there, placement.slices) is None:
            found.append(Problem("spec.parallelism", _misfit(spec.parallelism, placement, there)))
        if shards is not None and shards % there:
            out = "take a number of devices that is a power of two" if there & (there - 1) else f"set it to {there}"
            text = f"its {there} devices do not divide reproducibility.virtualShards, {shards}, as mode Exact needs"
            found.append(Problem(path, f"{text}; {out}"))
        if path.startswith("spec.rollouts."):
            continue  # a worker answers whole calls, whose rows are filled up to its devices
        for j, stage in enumerate(spec.stages):
            if stage.sft is not None and stage.sft.batch_size % count:
                field, size = "sft.batchSize", stage.sft.batch_size
            elif stage.rl is not None and stage.rl.prompts_per_step % count:
                field, size = "rl.promptsPerStep", stage.rl.prompts_per_step
            elif stage.curate is not None and stage.curate.prompts_per_step % count:
                field, size = "curate.promptsPerStep", stage.curate.prompts_per_step
            else:
                continue
            found.append(
                Problem(
                    f"spec.stages[{j}].{field}",
                    f"{size} cannot be shared by the {count} processes of placement {placement.name}; "
                    f"use a multiple of {count}, for example {-(-size // count) * count}",
                )
            )
    for some in (broken_references, impossible_places, impossible_names, misplaced_trackers):
        found += [Problem(path, message) for path, message in some(spec)]
    return [*found, *_unknown_tasks(spec), *_long_buffers(spec)]


DEPTH = 16
"""Levels of lists and mappings that settings of a task may have."""


def too_deep(spec: Spec) -> Iterator[Problem]:
    """Settings that are nested deeper than whoever reads them can follow."""
    for i, dataset in enumerate(spec.datasets):
        if dataset.reasoning_gym is not None and _deeper(dataset.reasoning_gym.config):
            text = f"lists and mappings are nested more than {DEPTH} deep; no task has such settings, leave them out"
            yield Problem(f"spec.datasets[{i}].reasoningGym.config", text)


def _unknown_tasks(spec: Spec) -> Iterator[Problem]:
    """Tasks and settings that reasoning-gym does not have: the trainer would find them after a slice was placed."""
    for i, dataset in enumerate(spec.datasets):
        if (gym := dataset.reasoning_gym) is None:
            continue
        path = f"spec.datasets[{i}].reasoningGym"
        if (settings := TASKS.get(gym.task)) is None and spec.image is not None:
            continue  # an image may have tasks of its own
        if settings is None:
            known = _near(gym.task, sorted(TASKS)) if difflib.get_close_matches(gym.task, TASKS, n=1) else ""
            yield Problem(f"{path}.task", f"reasoning-gym has no task {gym.task}{known}")
            continue
        for name in gym.config:
            if name in ("seed", "size"):
                yield Problem(f"{path}.config.{name}", "is the job's to choose; leave it out")
            elif name not in settings:
                yield Problem(f"{path}.config.{name}", "unknown setting of the task" + _near(name, sorted(settings)))


def _deeper(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH + 1):
        level = [v for some in level for v in (some.values() if isinstance(some, dict) else some)
                 if isinstance(v, (dict, list))]  # fmt: skip
    return bool(level)


def _long_buffers(spec: Spec) -> Iterator[Problem]:
    for i, stage in enumerate(spec.stages):
        for j, reward in enumerate(stage.rl.rewards if stage.rl is not None else ()):
            assert stage.rl is not None
            limit, buffer = stage.rl.max_response_tokens, reward.length.buffer if reward.length is not None else None
            if buffer is not None and buffer >= limit:
                yield Problem(
                    f"spec.stages[{i}].rl.rewards[{j}].length.buffer",
                    f"{buffer} is not below maxResponseTokens, {limit}, so the shortest answer would lose, too; take a "
                    f"part of it, for example {max(1, limit // 4)}",
                )


def _misfit(wanted: Parallelism, placement: Placement, there: int) -> str:
    each, slices = wanted.fsdp * wanted.tensor, placement.slices
    text = f"{wanted.data or 'data'} x {wanted.fsdp} x {wanted.tensor} (data x fsdp x tensor) does not fit the {there} "
    text += f"devices of placement {placement.name}"
    if slices > 1:
        text += f", {slices} slices of {there // slices}"
    if (there // slices) % each:
        return text + f"; fsdp x tensor must divide {there // slices}"
    return text + f"; leave data out, or set it to {there // each}"


def problems(manifest: Any) -> list[Problem]:
    """Everything that is wrong with one manifest, as plain data. Empty: the API server and the operator accept it."""
    if not isinstance(manifest, dict):
        return [Problem("(document)", f"a manifest is a mapping, this is {type(manifest).__name__}")]
    found = _envelope_problems(manifest)
    try:
        job = RLTrainingJob.model_validate({k: v for k, v in manifest.items() if k in ("spec", "status")})
    except ValidationError as error:
        return found + [_from_pydantic(e) for e in error.errors()]
    return found + semantic_problems(job.spec)


def _envelope_problems(manifest: dict[str, Any]) -> list[Problem]:
    found = []
    if manifest.get("apiVersion") != API_VERSION:
        found.append(Problem("apiVersion", f"must be {API_VERSION}, not {manifest.get('apiVersion')!r}"))
    if manifest.get("kind") != KIND:
        found.append(Problem("kind", f"must be {KIND}, not {manifest.get('kind')!r}"))
    for key in sorted(set(manifest) - {"apiVersion", "kind", "metadata", "spec", "status"}):
        found.append(Problem(str(key), "unknown field" + _near(str(key), ["apiVersion", "kind", "metadata", "spec"])))
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    fleet = isinstance(spec, dict) and spec.get("rollouts") is not None
    most = FLEET_NAME_LENGTH if fleet else NAME_LENGTH
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name) or len(name) > most:
        why = "; with spec.rollouts workers are named after the job and their number: shorten it" if fleet else ""
        found.append(
            Problem(
                "metadata.name",
                f"{name!r}: lower-case letters, digits and '-', beginning with a letter, "
                f"at most {most} characters{why}",
            )
        )
    return found


def _from_pydantic(error: Any) -> Problem:
    location = list(error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "string_pattern_mismatch" and error["ctx"]["pattern"] in WRITTEN:
        message = f"{_cut(error['input'])} is not how it is written; {WRITTEN[error['ctx']['pattern']]}"
    if error["type"] in ("model_type", "dict_type", "list_type"):
        wanted = "a list" if error["type"] == "list_type" else "a mapping of fields"
        message = f"must be {wanted}, this is {_cut(error['input'])}"
    if error["type"] == "extra_forbidden":
        name = str(location[-1])
        instead = REFUSED_FIELDS.get(name) if "podTemplate" in location else None
        message = "unknown field" + (f"; {instead}" if instead else _near(name, _siblings(location[:-1])))
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    return Problem(path or "spec", message)


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _near(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else (f"; known are {', '.join(known)}" if known else "")


def _siblings(location: list[Any]) -> list[str]:
    """The field names of the model at a location, for the 'did you mean'."""
    model: Any = RLTrainingJob
    for part in location:
        if isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if field is None:
            return []
        model = _model_in(field.annotation)
        if model is None:
            return []
    return [f.alias or n for n, f in model.model_fields.items()]


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (found := _model_in(argument)) is not None:
            return found
    return None
