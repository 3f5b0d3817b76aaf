"""The stage gate: what the operator allows while the trainer runs.

Decides how the file is read and when it is believed. Process 0 alone reads it, at boundaries, and broadcasts it: hosts
that read for themselves would disagree and deadlock. `mayEnter` is a ceiling; stages edited or appended since the
attempt began come with it, each with its hash.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet_api.canonical import stage_hash
from ratchet_api.protocol import STAGE_GATE_LIMIT
from ratchet_api.protocol.documents import StageGate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gate:
    """What holds now."""

    may_enter: int  # index of the last stage that may be entered
    finish: bool = False  # the last stage's end is on record: the trainer may exit with 0
    stages: dict[int, dict[str, Any]] = field(
        default_factory=dict
    )  # edited or appended since the attempt began, as admitted
    checkpoint_request: int = 0  # only grows; a new number asks for a checkpoint at the next step

    def ends(self, stage: int) -> bool:
        """Whether the run is over at the end of this stage. `finish` is said of the last one: an attempt that fell back
        to an earlier checkpoint meets it at earlier ends, too, and replays on."""
        return self.finish and stage >= self.may_enter

    def plain(self) -> dict[str, Any]:
        return {"m": self.may_enter, "f": self.finish, "s": sorted(self.stages.items()), "c": self.checkpoint_request}

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> Gate:
        return cls(data["m"], data["f"], {int(i): s for i, s in data["s"]}, data["c"])


class GateFile:
    """The file that the stage gate stands in, and the last one that was believed."""

    def __init__(self, path: Path, uid: str, attempt: int, may_enter: int, datasets: Collection[str]):
        """`datasets`: names of those that the attempt's job file has; the gate brings stages, but no data sets."""
        self.path, self.uid, self.attempt, self.datasets = path, uid, attempt, datasets
        self.gate = Gate(may_enter)
        self._seen: bytes | None = None

    def read(self, stages: list[dict[str, Any]]) -> Gate:
        """The gate as it stands now; `stages` are those that this attempt knows. What cannot be believed is logged."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return self.gate  # none yet: what the attempt began with holds
        if data != self._seen:
            self._seen = data
            try:
                self.gate = self._believed(data, stages)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is not believed: %s", self.path, error)
        return self.gate

    def _believed(self, data: bytes, stages: list[dict[str, Any]]) -> Gate:
        if not data.strip():
            return self.gate  # the annotation is not set yet
        if len(data) > STAGE_GATE_LIMIT:
            raise ValueError(f"{len(data)} bytes, at most {STAGE_GATE_LIMIT} are allowed")
        gate = StageGate.model_validate(json.loads(data))
        if (gate.job_uid, gate.attempt) != (self.uid, self.attempt):
            raise ValueError(f"it is for attempt {gate.attempt} of job {gate.job_uid}")
        added = {}
        for entry in gate.stages:
            if stage_hash(entry.spec) != entry.spec_hash:
                raise ValueError(f"stage {entry.index} does not have the hash that is given for it")
            needed = _datasets(entry.spec)
            unknown = needed - set(self.datasets)
            if unknown:
                raise ValueError(
                    f"stage {entry.index} needs data set {', '.join(sorted(unknown))}, which came after this "
                    "attempt began; the next one has it"
                )
            added[entry.index] = entry.spec
        known = dict(enumerate(stages)) | added
        if gate.spec_hash and gate.may_enter in known and stage_hash(known[gate.may_enter]) != gate.spec_hash:
            raise ValueError(f"stage {gate.may_enter} is not the one that is known here")
        # `mayEnter` is a ceiling and only rises; a gate that was written before the attempt's ConfigMap must not
        # lower it.
        return Gate(max(gate.may_enter, self.gate.may_enter), gate.finish, added, gate.checkpoint_request)


def _datasets(stage: dict[str, Any]) -> set[str]:
    """Names of the data sets that a stage of the manifest trains on or looks through."""
    parts = [part for part in (stage.get("sft"), stage.get("rl"), stage.get("curate")) if part]
    mixed = {one["name"] for part in parts for one in part.get("datasets") or ()}
    return mixed | {part["dataset"] for part in parts if part.get("dataset")}


def merged(stages: list[dict[str, Any]], gate: Gate, begun: int) -> list[dict[str, Any]]:
    """The stages with those of the stage gate put in; stages up to index `begun` have begun and stay as they are."""
    out = list(stages)
    for index in sorted(gate.stages):
        if begun < index < len(out):
            out[index] = gate.stages[index]
        elif index == len(out):
            out.append(gate.stages[index])
    return out
