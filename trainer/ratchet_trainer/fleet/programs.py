"""What makes the bits of a call besides its rows and weights: the record that `Call.shape` is the digest of.

    fleet/LINEAGE/programs/DIGEST     canonical JSON: the stage as it was admitted, the number format, versions

Decides what a worker must have in common with the trainer. The stage travels here, so a worker needs no manifest that
is as new as the trainer's. Where the trainer makes its calls itself its machine is in the record, too: another topology
has other bits, hence other calls. What kind of machine a worker is, it says in its results.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from ratchet_api.canonical import canonical, sha256
from ratchet_trainer import storage
from ratchet_trainer.storage import Location, with_retries

log = logging.getLogger(__name__)

FOLDER = "programs"
Record = Mapping[str, Any]
"""`stage`: as `canonical.said` has it; `dtype`; `inputs`: digests of model folder and tokenizer; `versions`; `machine`:
None, or the only kind that makes such calls."""


def record_of(
    stage: Mapping[str, Any], dtype: str, inputs: Mapping[str, str], identity: Mapping[str, Any], *, here: bool
) -> dict[str, Any]:
    """`inputs`: digests of what the policy is read from; `identity` of `checkpoints.identity.present`; `here`: the
    calls are made where this process is."""
    own = {k: identity[k] for k in ("settings", "topology")} if here else None
    found = {"stage": dict(stage), "dtype": dtype, "inputs": dict(inputs), "versions": identity["versions"]}
    return found | {"machine": own}


def digest_of(record: Record) -> str:
    return sha256(dict(record))


def write(fleet: Location, record: Record) -> None:
    """Makes the record exist below `fleet/LINEAGE`. Raises StorageUnavailable."""
    place = fleet / FOLDER / digest_of(record)
    data = canonical(dict(record))

    def make() -> None:
        if not storage.create(place, data) and storage.read(place) != data:
            storage.write(place, data)

    with_retries(f"writing {place}", make)


def read(fleet: Location, digest: str) -> dict[str, Any] | None:
    """The record of that digest; None where it is missing or damaged. Raises StorageUnavailable."""
    place = fleet / FOLDER / digest
    data = with_retries(f"reading {place}", lambda: storage.read(place))
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        return None
    found: dict[str, Any] = json.loads(data)
    return found


def difference(record: Record, identity: Mapping[str, Any]) -> str | None:
    """In which versions a worker is not what the trainer is; None: in none."""
    wanted, own = record["versions"], identity["versions"]
    apart = [k for k in sorted(wanted.keys() | own.keys()) if wanted.get(k) != own.get(k)]
    return "; ".join(f"{k}: {wanted.get(k)} there, {own.get(k)} here" for k in apart) or None
