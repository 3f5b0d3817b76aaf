"""Loopback addresses and host names of pods.

Decides which address in 127.0.0.0/8 a node or pod gets and which names its hosts file knows. Each cluster on the
machine has a block 127.A.0.0/16 of its own: nodes are 127.A.0.x, pods 127.A.b.c. Addresses go round in turn, so that
a new pod does not meet the half-closed connections of the one before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ratchet_cluster.objects import Object

FIRST_BLOCK, LAST_BLOCK = 64, 254
_PODS = 254 * 254


class Addresses:
    """The addresses of one cluster's pods, by pod uid."""

    def __init__(self, block: int) -> None:
        self.block = block
        self._by_uid: dict[str, str] = {}
        self._names: dict[str, str] = {}  # uid -> full name
        self._reserved: dict[str, str] = {}  # full name -> address, of pods that are awaited
        self._next = 0

    def node(self, index: int) -> str:
        """The address of the index-th node."""
        return f"127.{self.block}.{index // 254}.{index % 254 + 1}" if index < 254 else ""

    def take(self, pod: Object) -> str:
        """The pod's address, the same each time. Raises RuntimeError when all 64516 are in use."""
        uid = pod["metadata"]["uid"]
        if uid not in self._by_uid:
            self._by_uid[uid] = self._reserved.pop(full_name(pod), "") or self._fresh()
            self._names[uid] = full_name(pod)
        return self._by_uid[uid]

    def of_name(self, name: str) -> str:
        """The address of the pod with this full name, set aside for it when there is no such pod yet."""
        for uid, known in self._names.items():
            if known == name:
                return self._by_uid[uid]
        if name not in self._reserved:
            self._reserved[name] = self._fresh()
        return self._reserved[name]

    def release(self, uid: str) -> None:
        """Gives a pod's address back."""
        self._by_uid.pop(uid, None)
        self._names.pop(uid, None)

    def _fresh(self) -> str:
        used = {*self._by_uid.values(), *self._reserved.values()}
        for _ in range(_PODS):
            place, self._next = self._next, (self._next + 1) % _PODS
            address = f"127.{self.block}.{place // 254 + 1}.{place % 254 + 1}"
            if address not in used:
                return address
        raise RuntimeError("no loopback address is left for another pod")


def names(pod: Object) -> list[str]:
    """The names a pod answers to, shortest first: as cluster DNS has them for a pod with a hostname and a subdomain."""
    spec, metadata = pod["spec"], pod["metadata"]
    host = spec.get("hostname") or metadata["name"]
    subdomain = spec.get("subdomain")
    if not subdomain:
        return [host]
    short = f"{host}.{subdomain}"
    full = f"{short}.{metadata['namespace']}"
    return [host, short, full, f"{full}.svc", f"{full}.svc.cluster.local"]


def full_name(pod: Object) -> str:
    """`host.subdomain.namespace`; without a subdomain a name that nobody looks for."""
    known = names(pod)
    return known[2] if len(known) > 1 else pod["metadata"]["uid"]


def with_addresses(text: str, pod: Object, of_name: Callable[[str], str]) -> str:
    """`text` with the names in the pod's own headless service replaced by addresses, for pods without a hosts file."""
    subdomain, namespace = pod["spec"].get("subdomain"), pod["metadata"]["namespace"]
    if not subdomain:
        return text
    suffix = rf"\.{re.escape(subdomain)}(?:\.{re.escape(namespace)}(?:\.svc(?:\.cluster\.local)?)?)?"
    pattern = rf"(?<![-\w.])([a-z0-9][-a-z0-9]*){suffix}(?![-\w.])"
    return re.sub(pattern, lambda match: of_name(f"{match[1]}.{subdomain}.{namespace}"), text)


def hosts_file(own: Object, own_address: str, peers: Iterable[tuple[Object, str]]) -> str:
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
