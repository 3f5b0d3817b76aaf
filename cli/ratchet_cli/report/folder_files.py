"""What a checkpoint folder says of a run: metrics, ledger, journal, samples, and who it belongs to.

Only reads, and takes what can be read: a line that was cut short, a sample that is no UTF-8, a file that is damaged
cost themselves alone, and are counted, so that the page can say so.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratchet_trainer.storage import Location

TIMINGS, SAMPLES = "timings", "samples"
"""As `checkpoints.checkpoint` and `step.samples` have them: those need numpy, which a machine that only looks at runs
may lack."""
Step = tuple[int, dict[str, float]]
SAMPLED_STEPS = 6
"""Of so many steps at either end samples are read, so that some are of the same item."""


@dataclass
class FolderFiles:
    """Plain data of a folder; empty where there was nothing."""

    steps: list[Step] = field(default_factory=list)
    """Committed steps with their metrics, in order; values that are no finite number are left out."""
    unreadable_lines: int = 0
    ledger: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    written: dict[str, float] = field(default_factory=dict)
    """Tag of an attempt -> when its ledger was last written, Unix seconds; only of folders."""
    timings: list[tuple[int, float]] = field(default_factory=list)
    """Step and tokens a second."""
    claims: list[dict[str, Any]] = field(default_factory=list)
    commits: list[dict[str, Any]] = field(default_factory=list)
    owner: dict[str, Any] | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    """What the newest step says of the programs that made it."""
    control: dict[str, Any] = field(default_factory=dict)
    samples: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Of the first and the newest steps that kept some; steps between are there as empty lists."""
    replaced_bytes: int = 0
    """Bytes of samples that are no UTF-8."""
    spec: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def anything(self) -> bool:
        return bool(self.steps or self.ledger or self.claims or self.samples)


def read(place: Location) -> tuple[str, FolderFiles]:
    """Where the checkpoints are, and what they say. Raises OSError where the place itself cannot be read."""
    from ratchet_trainer.storage import Location
    from ratchet_trainer.tools.working_folder import checkpoints_in

    found = FolderFiles()
    where = place
    if not place.on_bucket:
        os.listdir(place.local)  # what may not be looked into is not empty
        where = checkpoints_in(place.local)
        _spec(place, found)
    where = Location.parse(where)
    for part in (_metrics, _ledger, _timings, _journal, _newest, _samples):
        try:
            part(where, found)
        except (ValueError, LookupError, TypeError, AttributeError) as problem:
            what = part.__name__.removeprefix("_")
            found.notes.append(f"{what} of {where} cannot be read: {type(problem).__name__}: {problem}")
    return str(where), found


def _spec(place: Location, found: FolderFiles) -> None:
    """The spec of a run of `ratchet train`, if it is one that this version knows."""
    from pydantic import ValidationError

    from ratchet_api.job import parse_spec

    try:
        spec = json.loads((place.local / "local" / "job.json").read_bytes())["spec"]
        parse_spec(spec)
    except OSError:
        return
    except (ValueError, LookupError, TypeError, ValidationError) as problem:
        first = str(problem).splitlines()[0]
        found.notes.append(f"{place}/local/job.json holds no manifest that this version knows: {first}")
        return
    found.spec = spec


def _metrics(place: Location, found: FolderFiles) -> None:
    from ratchet_trainer.storage.stream import Stream

    by_step: dict[int, dict[str, float]] = {}
    for line in Stream(place / "metrics.jsonl").read().split(b"\n"):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            by_step[int(said["step"])] = finite(said["metrics"].items())
        except (ValueError, LookupError, TypeError, AttributeError):  # cut short by a kill or a full disk
            found.unreadable_lines += 1
    found.steps = sorted(by_step.items())


def finite(items: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """Values that are finite numbers."""
    read = ((name, float(value)) for name, value in items)
    return {name: value for name, value in read if math.isfinite(value)}


def _ledger(place: Location, found: FolderFiles) -> None:
    from ratchet_trainer.process import ledger

    found.ledger = {tag: [_numbers(line) for line in lines] for tag, lines in ledger.read(place).items()}
    if not place.on_bucket:
        for tag in found.ledger:
            found.written[tag] = os.stat((place / ledger.FOLDER / f"{tag}.jsonl").local).st_mtime


def _numbers(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a ledger holds numbers alone."""
    return {key: value for key, value in line.items() if isinstance(value, (int, float)) and math.isfinite(value)}


def _timings(place: Location, found: FolderFiles) -> None:
    from ratchet_trainer.process import ledger

    rates = {
        line["step"]: float(line["tokensPerSecond"])
        for lines in ledger.by_attempt(place / TIMINGS).values()
        for line in lines
        if line.get("tokensPerSecond")
    }
    found.timings = sorted(rates.items())


def _journal(place: Location, found: FolderFiles) -> None:
    from ratchet_trainer import storage

    names = [name for name in storage.names(place / "journal") if name.endswith(".json")]
    for data in storage.read_all(place / "journal", sorted(names)):
        try:
            entry = json.loads(data or b"")
        except ValueError:
            found.notes.append("an entry of the journal cannot be read")
            continue
        claim, commit = (entry.get(kind) if isinstance(entry, dict) else None for kind in ("claim", "commit"))
        if isinstance(claim, dict) and isinstance(claim.get("attempt"), int):
            found.claims.append(claim)
        elif isinstance(commit, dict) and isinstance(commit.get("step"), int) and isinstance(commit.get("path"), str):
            found.commits.append(commit | {"boundary": _boundary(commit.get("boundary"))})
        else:
            found.notes.append("an entry of the journal is of no kind that is known here")
    if found.claims:
        found.owner = {key: str(found.claims[-1].get(key)) for key in ("namespace", "name")}


def _boundary(said: Any) -> dict[str, Any] | None:
    whole = isinstance(said, dict) and isinstance(said.get("stage"), int) and isinstance(said.get("step"), int)
    return {"stage": said["stage"], "step": said["step"], "rule": str(said.get("rule", ""))} if whole else None


def _newest(place: Location, found: FolderFiles) -> None:
    from ratchet_trainer import storage

    for commit in reversed(found.commits[-20:]):
        proof = storage.read(place / commit["path"] / "digests.json")
        if proof is not None:
            identity = json.loads(proof).get("identity")
            found.identity = identity if isinstance(identity, dict) else {}
            control = json.loads(storage.read(place / commit["path"] / "control.json") or b"{}")
            found.control = control if isinstance(control, dict) else {}
            return


def _samples(place: Location, found: FolderFiles) -> None:
    from ratchet_trainer import storage

    names = [name.removesuffix(".jsonl") for name in storage.names(place / SAMPLES)]
    there = sorted(int(name) for name in names if name.isdigit())
    found.samples = {step: [] for step in there}
    for step in sorted({*there[:SAMPLED_STEPS], *there[-SAMPLED_STEPS:]}):
        _read_samples(place, found, step)


def _read_samples(place: Location, found: FolderFiles, step: int) -> None:
    from ratchet_trainer import storage

    data = storage.read(place / SAMPLES / f"{step:08d}.jsonl") or b""
    text = data.decode(errors="replace")
    found.replaced_bytes += text.count("\N{REPLACEMENT CHARACTER}") - data.count("\N{REPLACEMENT CHARACTER}".encode())
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            sample = json.loads(line)
        except ValueError:
            found.unreadable_lines += 1
            continue
        if isinstance(sample, dict):
            found.samples[step].append(sample)
        else:
            found.unreadable_lines += 1
