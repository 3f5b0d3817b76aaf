"""A result: the responses to a call, as raw arrays with digests.

Decides the bytes and that nothing is taken which is not whole, of this call, and of the sizes that the call has. Of an
object the first bytes say how long the rest may be, so nobody reads more than the call can have. Never pickle: workers
write here that the trainer need not trust.

    magic (8) | bytes of the header (8) | bytes of the arrays (8) | SHA-256 of the header | header, JSON | arrays
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np

from ratchet_trainer.algorithm.outcome import Finish
from ratchet_trainer.fleet.call import Call, Damaged

MAGIC = b"RTRES\x00\x00\x01"
PREFIX = 24 + 32
MOST_HEADER = 64 << 10
"""Bytes of names and digests."""
FINISHES: tuple[str, ...] = ("end", "stop", "length")
"""What the numbers in `finish` mean; the order is part of the format."""
assert set(FINISHES) == set(get_args(Finish))

_TOKENS = {"tokens": "int32", "log_probs": "float32", "entropy": "float32"}
_RESPONSES = {"lengths": "int32", "finish": "uint8"}


@dataclass(frozen=True)
class Result:
    """`call`: its digest; `identity`: the digest of what made it. `arrays`: tokens, log_probs, entropy [P, G, T],
    lengths and finish [P, G], where P are the prompts of the call without dummies, G its samples, T its response
    slots. `worker` decides nothing.
    """

    call: str
    identity: str
    arrays: Mapping[str, np.ndarray]
    worker: str

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what decides bits: equal answers have equal ones, whoever gave them."""
        return hashlib.sha256(_json([self.call, self.described])).hexdigest()

    @cached_property
    def described(self) -> dict[str, Any]:
        """Format, shape and digest of every array."""
        return {
            name: {"dtype": a.dtype.name, "shape": list(a.shape), "sha256": hashlib.sha256(_bytes(a)).hexdigest()}
            for name, a in sorted(self.arrays.items())
        }


def made(call: Call, sampled: Any, *, identity: str, worker: str) -> Result:
    """The result of a call of what the sampler made (`rollout.sampler.Sampled`), dummies included or not."""
    n = len(call.prompts)
    finish = np.zeros((n, call.samples), np.uint8)
    for number, name in enumerate(FINISHES):
        finish[np.asarray(sampled.finish)[:n] == name] = number
    arrays = {name: np.asarray(getattr(sampled, name))[:n].astype(kind) for name, kind in _TOKENS.items()}
    arrays |= {"lengths": np.asarray(sampled.lengths)[:n].astype(np.int32), "finish": finish}
    return Result(call.digest, identity, arrays, worker)


def finish_names(finish: np.ndarray) -> np.ndarray:
    """Why responses ended, as the sampler says it."""
    names: np.ndarray = np.array(FINISHES)[finish]
    return names


def encode(result: Result) -> bytes:
    """Its bytes."""
    header = _json(
        {
            "call": result.call,
            "identity": result.identity,
            "arrays": result.described,
            "worker": result.worker,
        }
    )
    arrays = [_bytes(result.arrays[name]) for name in sorted(result.arrays)]
    sizes = len(header).to_bytes(8, "little") + sum(map(len, arrays)).to_bytes(8, "little")
    return b"".join([MAGIC, sizes, hashlib.sha256(header).digest(), header, *arrays])


def most_bytes(call: Call) -> int:
    """More than a right result of a call has."""
    return PREFIX + MOST_HEADER + _array_bytes(call)


def size_of(prefix: bytes, most: int) -> int:
    """How long an object is that begins so. Raises Damaged if it is no result or longer than `most`."""
    if len(prefix) < PREFIX or not prefix.startswith(MAGIC):
        raise Damaged("no result, or one of another format; use one image for trainer and workers")
    size = PREFIX + int.from_bytes(prefix[8:16], "little") + int.from_bytes(prefix[16:24], "little")
    if size > most:
        raise Damaged(f"a result of {size} bytes, where {most} are the most that there can be")
    return size


def decode(data: bytes, *, call: Call, most: int | None = None) -> Result:
    """The result of a call. Raises Damaged for bytes that are cut off, more than `most`, another call's, of other
    sizes than the call's, or changed."""
    size = size_of(data[:PREFIX], most_bytes(call) if most is None else most)
    if len(data) != size:
        raise Damaged(f"a result of {len(data)} bytes that says it has {size}")
    begin = PREFIX + int.from_bytes(data[8:16], "little")
    if hashlib.sha256(data[PREFIX:begin]).digest() != data[24:PREFIX]:
        raise Damaged("a result whose header does not have its digest")
    try:
        header = json.loads(data[PREFIX:begin])
        call_digest, identity, worker = header["call"], header["identity"], header["worker"]
        if call_digest != call.digest:
            raise Damaged("a result of another call")
        if not (isinstance(identity, str) and isinstance(worker, str)):
            raise Damaged("a result that does not say what made it")
        arrays = _arrays(memoryview(data)[begin:], header["arrays"], call)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"a result whose header cannot be read: {error!r}") from error
    return Result(call_digest, identity, arrays, worker)


def _arrays(data: memoryview, described: Mapping[str, Any], call: Call) -> dict[str, np.ndarray]:
    wanted, at, found = _wanted(call), 0, {}
    if described.keys() != wanted.keys():
        raise Damaged(f"a result with the arrays {sorted(described)}")
    for name in sorted(wanted):
        dtype, shape = wanted[name]
        size = math.prod(shape) * dtype.itemsize
        part, at = data[at : at + size], at + size
        if described[name]["dtype"] != dtype.name or tuple(described[name]["shape"]) != shape or len(part) != size:
            raise Damaged(f"{name} is not {dtype.name}{list(shape)}")
        if hashlib.sha256(part).hexdigest() != described[name]["sha256"]:
            raise Damaged(f"{name} does not have its digest")
        found[name] = np.frombuffer(part, dtype).reshape(shape)
    if at != len(data):
        raise Damaged(f"{len(data) - at} bytes too many")
    if not ((found["lengths"] >= 0) & (found["lengths"] <= call.response_slots)).all():
        raise Damaged("a response longer than the call allows")
    if not (found["finish"] < len(FINISHES)).all():
        raise Damaged("a response that ended for no known reason")
    return found


def _wanted(call: Call) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    responses = len(call.prompts), call.samples
    return {name: (np.dtype(kind), (*responses, call.response_slots)) for name, kind in _TOKENS.items()} | {
        name: (np.dtype(kind), responses) for name, kind in _RESPONSES.items()
    }


def _array_bytes(call: Call) -> int:
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in _wanted(call).values())


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
