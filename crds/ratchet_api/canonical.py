"""Canonical JSON and the hashes made of it.

RFC 8785 for the data of this API: strings, integers, booleans, null, lists and objects. Floats do not occur (numbers
that need them are decimal strings) but in `reasoningGym.config`, where Python's shortest repr equals RFC 8785
for the values that people write (magnitude between 1e-6 and 1e21).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any


def _integral(value: Any) -> Any:
    # ECMAScript has one number type: 2.0 is written 2.
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, dict):
        return {k: _integral(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_integral(v) for v in value]
    return value


def _sorted(value: Any) -> Any:
    # RFC 8785 sorts keys by UTF-16 code units, Python by code points; they differ beyond the basic plane.
    if isinstance(value, dict):
        return {k: _sorted(value[k]) for k in sorted(value, key=lambda k: k.encode("utf-16-be", "surrogatepass"))}
    if isinstance(value, list):
        return [_sorted(v) for v in value]
    return value


def canonical(value: Any) -> bytes:
    """The canonical JSON of plain data, as UTF-8. Raises ValueError for NaN and infinities."""
    text = json.dumps(_sorted(_integral(value)), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def sha256(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of plain data."""
    return hashlib.sha256(canonical(value)).hexdigest()


def said(model: Any) -> dict[str, Any]:
    """What a model says beyond its defaults, as plain JSON: the same for a version that knows more such fields."""
    found: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return found


def stage_hash(stage: dict[str, Any]) -> str:
    """`specHash` of one stage as admitted (defaults filled in)."""
    return sha256(stage)


def immutable_spec_hash(spec: dict[str, Any]) -> str:
    """`immutableSpecHash` of a job: what a checkpoint must agree with to be resumed by a re-created job."""
    return sha256({"model": spec["model"], "seed": spec.get("seed", 0), "firstStage": spec["stages"][0]})
