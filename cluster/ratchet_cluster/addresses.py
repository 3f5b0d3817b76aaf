"""Loopback addresses and host names of pods.

Decides which address in 127.0.0.0/8 a node or pod gets and which names its hosts file knows. Each cluster on the machine has
a block 127.A.0.0/16 of its own: nodes are 127.A.0.x, pods 127.A.b.c. Addresses go round in turn, so that a new pod does not
meet the half-closed connections of the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FIRST_BLOCK, LAST_BLOCK = 64, 254
_PODS = 254 * 254


class Addresses:
    """The addresses of one cluster's pods, by pod uid."""

    def __init__(self, block: int) -> None:
        self.block = block
        self._by_uid: dict[str, str] = {}
        self._next = 0

    def node(self, index: int) -> str:
        """The address of the index-th node."""
        return f"127.{self.block}.{index // 254}.{index % 254 + 1}" if index < 254 else ""

    def take(self, uid: str) -> str:
        """The pod's address, the same each time. Raises RuntimeError when all 64516 are in use."""
        if uid not in self._by_uid:
            used = set(self._by_uid.values())
            for _ in range(_PODS):
                place, self._next = self._next, (self._next + 1) % _PODS
                address = f"127.{self.block}.{place // 254 + 1}.{place % 254 + 1}"
                if address not in used:
                    self._by_uid[uid] = address
                    break
            else:
                raise RuntimeError("no loopback address is left for another pod")
        return self._by_uid[uid]

    def release(self, uid: str) -> None:
        """Gives the address back."""
        self._by_uid.pop(uid, None)


def names(pod: dict) -> list[str]:
    """The names a pod answers to, shortest first: as cluster DNS has them for a pod with a hostname and a subdomain."""
    spec, metadata = pod["spec"], pod["metadata"]
    host = spec.get("hostname") or metadata["name"]
    subdomain = spec.get("subdomain")
    if not subdomain:
        return [host]
    short = f"{host}.{subdomain}"
    full = f"{short}.{metadata['namespace']}"
    return [host, short, full, f"{full}.svc", f"{full}.svc.cluster.local"]


def hosts_file(own: dict, own_address: str, peers: Iterable[tuple[dict, str]]) -> str:
    """The text of a pod's /etc/hosts: itself, then every pod that shares its headless service."""
    lines = ["127.0.0.1 localhost", f"{own_address} {' '.join(names(own))}"]
    for pod, address in peers:
        if pod["metadata"]["uid"] != own["metadata"]["uid"]:
            lines.append(f"{address} {' '.join(names(pod)[1:])}")  # the bare host name of a peer is not in cluster DNS
    return "\n".join(lines) + "\n"


def overwrite(path: Path, text: str) -> None:
    """Replaces a file's content in place: it is bound into mount namespaces, where a renamed one would not be seen."""
    content = text.encode()
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.write(content)
        file.flush()
        file.truncate(len(content))
