"""Prometheus beside a local cluster: the real one, which finds the pods through the API server and scrapes them.

Decides what is scraped (every container port named `metrics`, as the chart's PodMonitor and ServiceMonitor have it),
how often, and which rules are evaluated: those of the chart. It has a folder and a life of its own, so its data can be
looked at when the cluster has gone. The web pages of Prometheus are not part of its Go module, so this one has none:
ask its API, or give its address to Grafana.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ratchet_cluster import build, processes
from ratchet_cluster.ports import free_ports

NAME = "prometheus"
START_SECONDS = 30.0


class PrometheusError(RuntimeError):
    """Prometheus did not start or did not answer; the message holds its last words."""


@dataclass(frozen=True)
class Prometheus:
    """A server on loopback, its state in `folder`."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the running process; None when it has ended."""
        return processes.running(self.folder).get(NAME)

    @classmethod
    def begin(
        cls,
        folder: Path,
        kubeconfig: Path,
        *,
        rules: Path | None = None,
        seconds: float = 1.0,
        progress: build.Progress = lambda line: None,
    ) -> Prometheus:
        """Starts one, compiled first if needed (minutes). `seconds`: between scrapes, and between evaluations of the
        rules. Raises BuildError, PrometheusError."""
        programs = build.ensure_binaries(progress, build.PROMETHEUS)
        folder.mkdir(parents=True, exist_ok=True)
        server = cls(folder.resolve(), free_ports(1)[0])
        server._configure(scraping(kubeconfig, rules, seconds))
        processes.start(
            server.folder, NAME,
            [
                str(programs / "prometheus"), f"--config.file={server.folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={server.folder / 'data'}", f"--web.listen-address=127.0.0.1:{server.port}",
                "--web.enable-lifecycle", "--storage.tsdb.retention.time=30d", "--query.lookback-delta=30s",
            ],
        )  # fmt: skip
        server._until_ready()
        return server

    def leave_cluster(self) -> None:
        """Scrapes nothing any more, and goes on to answer questions about what it has seen."""
        self._configure({"global": {}, "scrape_configs": []})
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/-/reload", method="POST"), timeout=10).close()

    def stop(self) -> None:
        """Ends it; its data stays."""
        processes.end({processes.DIR: str(self.folder), processes.NAME: NAME}, grace=5.0)

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """The samples of an instant query. Raises PrometheusError with Prometheus' own words."""
        asked = {"query": expression} | ({} if at is None else {"time": str(at)})
        found: list[dict[str, Any]] = self._ask("query", asked)["result"]
        return found

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a range query, times in seconds since 1970. Raises PrometheusError."""
        asked = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        found: list[dict[str, Any]] = self._ask("query_range", asked)["result"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health and last error, group by group."""
        return [rule for group in self._ask("rules", {})["groups"] for rule in group["rules"]]

    def _ask(self, what: str, asked: dict[str, str]) -> Any:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(asked)}", timeout=30) as it:
                return json.load(it)["data"]
        except urllib.error.HTTPError as error:
            said = json.loads(error.read() or b"{}").get("error", error.reason)
            raise PrometheusError(f"{asked.get('query', what)}: {said}") from None
        except OSError as error:
            raise PrometheusError(f"{self.url} does not answer: {error}") from None

    def _configure(self, configuration: dict[str, Any]) -> None:
        (self.folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False))

    def _until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).close()
                return
            except OSError as error:
                if time.monotonic() > deadline or NAME not in processes.running(self.folder):
                    log = (self.folder / "logs" / f"{NAME}.log").read_text(errors="replace")[-1500:]
                    processes.kill({processes.DIR: str(self.folder), processes.NAME: NAME})
                    raise PrometheusError(f"Prometheus does not answer ({error}); its last words:\n{log}") from None
            time.sleep(0.05)


def scraping(kubeconfig: Path, rules: Path | None, seconds: float) -> dict[str, Any]:
    """The configuration: pods with a port named `metrics`, with the labels that the Prometheus operator gives them."""
    meta = "__meta_kubernetes_pod"
    return {
        "global": {"scrape_interval": f"{round(seconds * 1e3)}ms", "evaluation_interval": f"{round(seconds * 1e3)}ms",
                   "scrape_timeout": f"{round(min(10.0, seconds) * 1e3)}ms"},
        "rule_files": [str(rules)] if rules is not None else [],
        "scrape_configs": [
            {
                "job_name": "pods",
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
                "relabel_configs": [
                    {"source_labels": [f"{meta}_container_port_name"], "regex": "metrics", "action": "keep"},
                    {"source_labels": [f"{meta}_phase"], "regex": "Succeeded|Failed", "action": "drop"},
                    *(
                        {"source_labels": [f"{meta}_{source}"], "target_label": label}
                        for source, label in (("name", "pod"), ("container_name", "container"))
                    ),
                    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                    {"source_labels": [f"{meta}_container_name"], "target_label": "job", "replacement": "ratchet-$1"},
                ],
            }
        ],
    }  # fmt: skip
