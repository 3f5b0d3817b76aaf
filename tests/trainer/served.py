"""An object store on loopback and what stands before it."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

from faulty_proxy import Proxy

from ratchet_cluster.object_stores import ObjectStore
from ratchet_trainer.storage import Location


@dataclass
class Served:
    """A store, and what stands before it."""

    store: ObjectStore
    proxy: Proxy

    def bucket(self) -> Location:
        """A new one."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.store.make_bucket(name)
        return Location(self.store.kind, name, "")

    def environment(self) -> dict[str, str]:
        """Of a process that talks to the server itself."""
        return os.environ | self.store.env()
