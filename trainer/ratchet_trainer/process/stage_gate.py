"""The word: what the operator allows while the trainer runs.

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
from ratchet_api.protocol import WORD_LIMIT, V

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Word:
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
    def from_plain(cls, data: dict[str, Any]) -> Word:
        return cls(data["m"], data["f"], {int(i): s for i, s in data["s"]}, data["c"])


class WordFile:
    """The file that the word stands in, and the last word that was believed."""

    def __init__(self, path: Path, uid: str, attempt: int, may_enter: int, datasets: Collection[str]):
        """`datasets`: names of those that the attempt's job file has; the word brings stages, but no data sets."""
        self.path, self.uid, self.attempt, self.datasets = path, uid, attempt, datasets
        self.word = Word(may_enter)
        self._seen: bytes | None = None

    def read(self, stages: list[dict[str, Any]]) -> Word:
        """The word as it stands now; `stages` are those that this attempt knows. What cannot be believed is logged."""
        try:
            data = self.path.read_bytes()
        except OSError:
            return self.word  # none yet: what the attempt began with holds
        if data != self._seen:
            self._seen = data
            try:
                self.word = self._believed(data, stages)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is not believed: %s", self.path, error)
        return self.word

    def _believed(self, data: bytes, stages: list[dict[str, Any]]) -> Word:
        if not data.strip():
            return self.word  # the annotation is not set yet
        if len(data) > WORD_LIMIT:
            raise ValueError(f"{len(data)} bytes, at most {WORD_LIMIT} are allowed")
        body = json.loads(data)
        if body["v"] > V:
            raise ValueError(f"format {body['v']}, known are up to {V}")
        if (body["jobUID"], body["attempt"]) != (self.uid, self.attempt):
            raise ValueError(f"it is for attempt {body['attempt']} of job {body['jobUID']}")
        added = {}
        for entry in body.get("stages", []):
            if stage_hash(entry["spec"]) != entry["specHash"]:
                raise ValueError(f"stage {entry['index']} does not have the hash that is given for it")
            needed = {part["dataset"] for part in (entry["spec"].get("sft"), entry["spec"].get("rl")) if part}
            unknown = needed - set(self.datasets)
            if unknown:
                raise ValueError(
                    f"stage {entry['index']} needs data set {', '.join(sorted(unknown))}, which came after this "
                    "attempt began; the next one has it"
                )
            added[int(entry["index"])] = entry["spec"]
        may_enter = int(body["mayEnter"])
        known = dict(enumerate(stages)) | added
        if body.get("specHash") and may_enter in known and stage_hash(known[may_enter]) != body["specHash"]:
            raise ValueError(f"stage {may_enter} is not the one that is known here")
        # `mayEnter` is a ceiling and only rises; a word that was written before the attempt's ConfigMap must not
        # lower it.
        return Word(
            max(may_enter, self.word.may_enter),
            bool(body.get("finish", False)),
            added,
            int(body.get("checkpointRequest", 0)),
        )


def merged(stages: list[dict[str, Any]], word: Word, begun: int) -> list[dict[str, Any]]:
    """The stages with those of the word put in; stages up to index `begun` have begun and stay as they are."""
    out = list(stages)
    for index in sorted(word.stages):
        if begun < index < len(out):
            out[index] = word.stages[index]
        elif index == len(out):
            out.append(word.stages[index])
    return out
