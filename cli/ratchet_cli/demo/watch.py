"""Watching one job as its user would: `kubectl get -w`, events, and the leader's own progress.

Gathers; shows and decides nothing. Each watcher is a thread that ends with the process it reads from.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ratchet_api import protocol
from ratchet_cluster.cluster import Cluster


@dataclass(frozen=True)
class Seen:
    """One thing that was seen: `kind` is job or event; `at` is time.monotonic()."""

    at: float
    kind: str
    data: dict[str, Any]


class Watcher:
    """A job and its events, in the order in which they come. Use as a context manager."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._queue: queue.Queue[Seen] = queue.Queue()
        self._processes: list[subprocess.Popen[str]] = []
        self._cluster, self._namespace, self._name = cluster, namespace, name

    def __enter__(self) -> Watcher:
        self._follow("job", "rltrainingjobs.ratchet.dev", f"metadata.name={self._name}")
        self._follow("event", "events", f"involvedObject.name={self._name},involvedObject.kind=RLTrainingJob")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=10)

    def next(self, timeout: float) -> Seen | None:
        """The next thing seen, or None when nothing came for `timeout` seconds."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def _follow(self, kind: str, resource: str, selector: str) -> None:
        command = [str(self._cluster.bin / "kubectl"), "get", resource, "--namespace", self._namespace, "--watch"]
        command += ["--field-selector", selector, "--output", "json"]
        environment = {**os.environ, **self._cluster.env()}
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self._processes.append(process)
        threading.Thread(target=self._read, args=(kind, process), daemon=True).start()

    def _read(self, kind: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for data in documents(iter(process.stdout.readline, "")):
            for item in data.get("items", [data]):
                self._queue.put(Seen(time.monotonic(), kind, item))


def documents(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The indented JSON objects of a stream of lines, one after the other."""
    text = ""
    for line in lines:
        text += line
        if line.rstrip("\n") == "}":
            yield json.loads(text)
            text = ""


class Leader:
    """What the trainer's leader says of itself, at most `poll` seconds old; survives its death and its successor."""

    def __init__(self, cluster: Cluster, namespace: str, name: str) -> None:
        self._cluster, self._namespace, self._name = cluster, namespace, name
        self._address: tuple[int, str] | None = None

    def progress(self, attempt: int) -> dict[str, Any] | None:
        """The present answer of `/progress` of that attempt, or None when there is none (yet)."""
        if self._address is None or self._address[0] != attempt:
            address = self._find(attempt)
            if not address:
                return None
            self._address = (attempt, address)
        url = f"http://{self._address[1]}:{protocol.PORT}/progress"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                found: dict[str, Any] = json.load(answer)
        except (OSError, http.client.HTTPException, ValueError):  # the last: it dies in the middle of a word
            return None
        return found if found.get("attempt") == attempt else None

    def _find(self, attempt: int) -> str:
        labels = f"{protocol.LABEL_JOB}={self._name},{protocol.LABEL_ATTEMPT}={attempt}"
        labels += ",batch.kubernetes.io/job-completion-index=0,jobset.sigs.k8s.io/job-index=0"
        path = "jsonpath={.items[0].status.podIP}"
        return self._cluster.kubectl(
            "get", "pods", "--namespace", self._namespace, "--selector", labels, "--output", path, check=False
        ).strip()
