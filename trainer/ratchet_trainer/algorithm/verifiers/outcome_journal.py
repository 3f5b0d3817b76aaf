"""Outcomes that another run of the same verifier might not repeat, kept so that a replay need not ask again.

Decides how they lie on disk: one file of canonical JSON lines, only ever appended to, each durable before its outcome
is used. The key is (verifier and its version, item, SHA-256 of the response). A last line that a crash tore is cut off;
a line that is damaged elsewhere is refused by its number. The first outcome of a key counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer.algorithm.outcome import Case, Outcome, outcome_from_json
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.checkpoints.journal import sync
from ratchet_trainer.errors import CheckpointUnreadable, StorageUnavailable

V = 1
NAME = "outcomes.jsonl"


class OutcomeJournal:
    """The journal in a folder, for one writer at a time.

        journal = OutcomeJournal(folder)
        known = [journal.get(spec, case) for case in cases]     # None: ask the verifier
        journal.keep(spec, asked, outcomes)                     # on disk when it returns

    `folder` is made. Raises StorageUnavailable, and CheckpointUnreadable for a damaged file.
    """

    def __init__(self, folder: Path):
        self.path = folder / NAME
        self.replayed = 0  # how many outcomes came from the journal: 0 with pure verifiers
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._known, torn_from = self._read()
            if torn_from is not None:
                os.truncate(self.path, torn_from)
        except OSError as error:
            raise StorageUnavailable(f"outcome journal {self.path}: {error}") from error

    def __len__(self) -> int:
        return len(self._known)

    def get(self, spec: VerifierSpec, case: Case) -> Outcome | None:
        """The outcome that was kept for a case, or None."""
        outcome = self._known.get(key_of(spec, case))
        self.replayed += outcome is not None
        return outcome

    def keep(self, spec: VerifierSpec, cases: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
        """Writes the outcomes that are not pure and not there yet; all are durable when it returns."""
        lines, fresh = [], {}
        for case, outcome in zip(cases, outcomes, strict=True):
            key = key_of(spec, case)
            if outcome.pure or key in self._known or key in fresh:
                continue
            fresh[key] = outcome
            lines.append(canonical({"v": V, "key": list(key), "outcome": asdict(outcome)}) + b"\n")
        if not lines:
            return
        try:
            new = not self.path.exists()
            with open(self.path, "ab") as file:
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync(self.path.parent)
        except OSError as error:
            raise StorageUnavailable(f"outcome journal {self.path}: {error}; make room or mend the storage") from error
        self._known |= fresh

    def _read(self) -> tuple[dict[tuple[str, str, str], Outcome], int | None]:
        known: dict[tuple[str, str, str], Outcome] = {}
        if not self.path.exists():
            return known, None
        position = 0
        with open(self.path, "rb") as file:
            for line_number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return known, position
                try:
                    entry = json.loads(line)
                    if entry["v"] != V:
                        raise ValueError(f"version {entry['v']} is not known here")
                    verifier, item, response = entry["key"]
                    known.setdefault((verifier, item, response), outcome_from_json(entry["outcome"]))
                except (ValueError, KeyError, TypeError) as error:
                    raise CheckpointUnreadable(
                        f"outcome journal {self.path}, line {line_number}: {error}; put the file back as it was, or "
                        "move it away to have everything verified again"
                    ) from error
                position += len(line)
        return known, None


def key_of(spec: VerifierSpec, case: Case) -> tuple[str, str, str]:
    """(verifier and version, item, SHA-256 of the response)."""
    settings = hashlib.sha256(canonical(spec.to_json())).hexdigest()[:16]
    return (
        f"{spec.name} {spec.version} {settings}",
        item_key(case.item),
        hashlib.sha256(case.response.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def item_key(item: Mapping[str, Any]) -> str:
    """Index and digest of an item's question and answer: the same index of another data set is another item."""
    text = canonical({"question": str(item["question"]), "answer": str(item["answer"])})
    return f"{item['index']} {hashlib.sha256(text).hexdigest()[:16]}"
