"""Outcomes that another run of the same verifier might not repeat, kept so that a replay need not ask again.

Decides how they lie on disk: one file of canonical JSON lines, only ever appended to, each durable before its outcome
is used. The key is (verifier and its version, item, response), with all that a verifier is shown of them. A last line
that a crash tore is cut off; a line that is damaged elsewhere is refused by its number. The first outcome of a key
counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ratchet_api.canonical import canonical
from ratchet_trainer.algorithm.outcome import Case, Outcome, outcome_from_json
from ratchet_trainer.algorithm.verifiers.spec import VerifierSpec
from ratchet_trainer.errors import CheckpointUnreadable
from ratchet_trainer.storage import Location, with_retries
from ratchet_trainer.storage.stream import Stream

V = 2
NAME = "outcomes.jsonl"


class OutcomeJournal:
    """The journal in a folder, for one writer at a time.

        journal = OutcomeJournal(folder)
        known = [journal.get(spec, case) for case in cases]     # None: ask the verifier
        journal.keep(spec, asked, outcomes)                     # on disk when it returns

    `folder` is made. Raises StorageUnavailable, and CheckpointUnreadable for a damaged file.
    """

    def __init__(self, folder: Location | Path):
        self._stream = Stream(Location.parse(folder) / NAME)
        self.replayed = 0  # how many outcomes came from the journal: 0 with pure verifiers
        self._known, self._end = with_retries(f"outcome journal {self._stream.place}", self._read)

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
        data = b"".join(lines)
        # At a known place: a try that failed may have written a part, or all. The first one makes the file.
        add = self._stream.put if self._end else self._stream.restart
        with_retries(f"outcome journal {self._stream.place}", lambda: add(self._end, data, durable=True))
        self._end += len(data)
        self._known |= fresh

    def _read(self) -> tuple[dict[tuple[str, str, str], Outcome], int]:
        """What is kept, and where the next line goes; half a line at the end is cut off."""
        known: dict[tuple[str, str, str], Outcome] = {}
        position = 0
        data = self._stream.read()
        *lines, _ = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if entry["v"] != V:
                    raise ValueError(f"version {entry['v']} is not known here")
                verifier, item, response = entry["key"]
                known.setdefault((verifier, item, response), outcome_from_json(entry["outcome"]))
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointUnreadable(
                    f"outcome journal {self._stream.place}, line {number}: {error}; put the file back as it was, or "
                    "move it away to have everything verified again"
                ) from error
            position += len(line) + 1
        if position < len(data):
            self._stream.restart(position, b"")
        return known, position


def key_of(spec: VerifierSpec, case: Case) -> tuple[str, str, str]:
    """(verifier and version; index and digest of the item; digest of prompt, response and how it ended)."""
    return (
        f"{spec.name} {spec.version} {_digest(spec.to_json())[:16]}",
        # The same index of another data set is another item, and so is one whose earlier turns differ.
        f"{case.item['index']} {_digest(dict(case.item))[:16]}",
        _digest({"prompt": case.prompt, "response": case.response, "finish": case.finish}),
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
