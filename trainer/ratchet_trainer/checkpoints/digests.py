"""What proves that arrays are the ones that were written: SHA-256 of the host copy of every leaf.

Decides the digests and the two hashes that runs are compared by. Orbax alone is not enough: single flipped bits in its
files restore silently wrong. Hashes do not depend on the topology: they are made of whole leaves, sorted by path.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ratchet_api.canonical import canonical

WEIGHTS = "params/"
"""Paths of the policy's parameters begin so."""
PENDING = "pending/"
ON_HOST = (PENDING, "selection/", "expansion/")
"""So do those of a step in the middle of its updates: arrays that stay on the host."""


def host_copies(arrays: Mapping[str, Any], keep: bool = True) -> dict[str, np.ndarray]:
    """Whole leaves, copied to this host in order of their paths; the device buffers may be donated afterwards.

    A leaf that is spread over processes is gathered first: a collective, so every process must call this; who does not
    write need not `keep` any.
    """
    copies = {}
    for path in sorted(arrays):
        leaf = arrays[path]
        if getattr(leaf, "is_fully_addressable", True):
            copy = np.array(leaf)
        elif leaf.is_fully_replicated:
            copy = np.array(leaf.addressable_data(0))
        else:
            from jax.experimental import multihost_utils

            copy = np.array(multihost_utils.process_allgather(leaf, tiled=True))
        if keep:
            copies[path] = copy
    return copies


def leaf_digest(path: str, leaf: np.ndarray) -> str:
    """SHA-256 over path, dtype, shape and the little-endian bytes in C order."""
    if leaf.dtype.byteorder == ">":
        leaf = leaf.astype(leaf.dtype.newbyteorder("<"))
    digest = hashlib.sha256(canonical([path, leaf.dtype.name, list(leaf.shape)]))
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def leaf_digests(leaves: Mapping[str, np.ndarray]) -> dict[str, str]:
    """path -> digest, sorted by path."""
    return {path: leaf_digest(path, leaves[path]) for path in sorted(leaves)}


def weights_sha256(digests: Mapping[str, str]) -> str:
    """`weightsSha256`: SHA-256 of the sorted digests of the parameters."""
    return _combined(sorted(d for path, d in digests.items() if path.startswith(WEIGHTS)))


def state_sha256(digests: Mapping[str, str], control: Mapping[str, Any]) -> str:
    """`stateSha256`: SHA-256 of the sorted digests of all leaves and of the control values.

    Identity, attempt, lineage and times are no part of `control`, so equal runs have equal hashes on any schedule of
    kills.
    """
    return _combined([*sorted(digests.values()), hashlib.sha256(canonical(control)).hexdigest()])


def _combined(digests: list[str]) -> str:
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
