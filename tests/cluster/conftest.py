"""Helpers of the cluster's tests: a pod in a few words, and waiting for a condition instead of for the clock."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ratchet_cluster.cluster import Cluster

T = TypeVar("T")


def _wait_until(what: Callable[[], T], seconds: float = 40.0) -> T:
    """Returns the first true value of `what`; fails with the last one after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"it did not come about in {seconds} s; last: {found!r}"
        time.sleep(0.05)
    return found


def _pod(name: str, script: str, **spec: Any) -> dict:
    """A pod with one container `main` that runs `script` in bash; keys of `container` go into the container."""
    container = {"name": "main", "image": "example/trainer:1", "command": ["bash", "-c", script]}
    container |= spec.pop("container", {})
    base = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}
    metadata = {"name": name, **spec.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": base | spec}


class Desk:
    """One namespace of the shared cluster."""

    wait_until = staticmethod(_wait_until)
    pod = staticmethod(_pod)

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace

    def create(self, *objects: dict) -> None:
        """Creates objects in the namespace."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("create", "-f", "-", stdin=json.dumps(items))

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """kubectl in the namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, stdin=stdin, check=check)

    def get(self, name: str, kind: str = "pod") -> dict | None:
        """An object, or None."""
        text = self.kubectl("get", kind, name, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text else None

    def status(self, name: str) -> dict:
        """A pod's status; empty when there is no such pod."""
        found = self.get(name)
        return found["status"] if found else {}

    def ended(self, name: str, seconds: float = 40.0) -> dict:
        """Waits until the pod has ended; its status."""
        return _wait_until(lambda: (s := self.status(name)).get("phase") in ("Succeeded", "Failed") and s, seconds)

    def log(self, name: str) -> str:
        """What a pod printed so far; empty before it started."""
        found = self.get(name)
        if not found or not found["status"].get("containerStatuses"):
            return ""
        return self.kubectl("logs", name, check=False)

    def says(self, name: str, text: str) -> str:
        """Waits until the pod's log holds `text`; the log."""
        return _wait_until(lambda: text in (log := self.log(name)) and log)

    @contextmanager
    def watched(self, kind: str, file: Path) -> Iterator[Callable[[], list[dict]]]:
        """Watches objects of all namespaces while the block runs; the function gives the events so far, in order."""
        command = [self.cluster.bin / "kubectl", "get", kind, "-A", "--watch", "--output-watch-events", "-o", "json"]
        with open(file, "w") as output:
            process = subprocess.Popen(command, stdout=output, env={**self.cluster.env()})
        try:
            _wait_until(lambda: file.stat().st_size or process.poll() is not None)
            yield lambda: _events(file.read_text())
        finally:
            process.terminate()
            process.wait()


def _events(text: str) -> list[dict]:
    decoder, place, found = json.JSONDecoder(), 0, []
    while place < len(text):
        try:
            event, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError:  # the last one is still being written
            break
        found.append(event)
        while place < len(text) and text[place].isspace():
            place += 1
    return found


@pytest.fixture
def wait_until() -> Callable:
    """A function that waits for a condition, see above."""
    return _wait_until


@pytest.fixture
def desk(cluster: Cluster, namespace: str) -> Desk:
    """A fresh namespace with its service account there."""
    one = Desk(cluster, namespace)
    _wait_until(lambda: one.get("default", "serviceaccount") and one.get("kube-root-ca.crt", "configmap"))
    return one
