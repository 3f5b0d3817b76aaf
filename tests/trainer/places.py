"""Places of every kind: a folder of this machine, and buckets of real servers on loopback behind a proxy that can do
what networks do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_proxy import Proxy
from served import Served

from ratchet_cluster.object_stores import ObjectStore
from ratchet_trainer.storage import Location, retries


@pytest.fixture(scope="session")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    """Starts the server of a kind when it is first asked for. TensorStore in this process goes through the proxies:
    it looks at its environment once."""
    begun: dict[str, Served] = {}

    def one(kind: str) -> Served:
        if kind not in begun:
            store = ObjectStore.begin(kind, tmp_path_factory.mktemp(kind))
            begun[kind] = Served(store, Proxy(store.port))
            front = f"http://127.0.0.1:{begun[kind].proxy.number}"
            os.environ.update({k: front if v == store.endpoint else v for k, v in store.env().items()})
        return begun[kind]

    yield one
    for served in begun.values():
        served.proxy.down()
        served.store.stop()
        for name in served.store.env():
            os.environ.pop(name, None)


@pytest.fixture(params=["gs", "s3"])
def served(request: pytest.FixtureRequest, serving: Callable[[str], Served]) -> Iterator[Served]:
    """A server of each kind, which does nothing odd before it is told to, nor afterwards."""
    one = serving(request.param)
    one.proxy.reset()
    yield one
    one.proxy.reset()


@pytest.fixture(params=["path", "gs", "s3"])
def place(request: pytest.FixtureRequest, serving: Callable[[str], Served], tmp_path: Path) -> Location:
    """An empty place."""
    if request.param == "path":
        return Location.parse(tmp_path / "place")
    return serving(request.param).bucket() / "jobs/sums"


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage that fails is tried again at once."""
    monkeypatch.setattr(retries, "BACK_OFF_SECONDS", (0.0, 0.0))
