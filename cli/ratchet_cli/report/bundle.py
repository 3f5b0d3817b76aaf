"""The bundle for bug reports: a zip of what a developer needs, redacted, with a list of what was left out.

Decides which files it holds. What is asked of the cluster and cannot be had is said in README.txt and costs nothing
else. Prompts and responses are in it only where the user asks for them: no samples, no logs of trainers, no texts that
messages quote.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import yaml

from ratchet_api.protocol import LABEL_JOB
from ratchet_cli.doctor.ask import Cluster, Unanswered
from ratchet_cli.report.folder_files import FolderFiles
from ratchet_cli.report.redaction import Redaction
from ratchet_cli.report.sources import Sources

TAIL = 3000
"""Lines of a log."""
OPERATOR = "app.kubernetes.io/name=ratchet"
Raw = dict[str, Any]


class Bundle:
    """Files by name, redacted as they are added, and notes on what is missing."""

    def __init__(self, *, texts: bool):
        self.redaction = Redaction(texts=texts)
        self.files: dict[str, str] = {}
        self.notes: list[str] = []

    def data(self, name: str, value: Any) -> None:
        """A JSON document."""
        clean = self.redaction.value(value)
        self.files[name] = json.dumps(clean, indent=1, ensure_ascii=False) + "\n"

    def text(self, name: str, value: str) -> None:
        self.files[name] = self.redaction.text(value)

    def ask(self, name: str, what: Callable[[], Any]) -> Any:
        """Adds what the cluster answers, or a note. What it answered, or None."""
        try:
            found = what()
        except Unanswered as error:
            self.notes.append(f"{name}: {error}")
            return None
        if isinstance(found, str):
            self.text(name, found)
        else:
            self.data(name, found)
        return found

    def zipped(self) -> bytes:
        """The zip, with README.txt that says what is in it and what is not."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in {"README.txt": self.readme(), **self.files}.items():
                # What is no UTF-8 must not keep the rest from being reported.
                archive.writestr(name, text.encode(errors="backslashreplace"))
        return file.getvalue()

    def readme(self) -> str:
        lines = ["A bundle of `ratchet report --bundle`, for a bug report. Look through it before you share it.", ""]
        lines += ["In it:", *(f"  {name}" for name in sorted(self.files)), "", "Left out:"]
        lines += [f"  {line}" for line in self.left_out()]
        if self.notes:
            lines += ["", "Could not be had:", *(f"  {self.redaction.text(note)}" for note in self.notes)]
        lines += ["", "Names of jobs, nodes, images, buckets and service accounts are in it.", ""]
        return "\n".join(lines)

    def left_out(self) -> list[str]:
        found = [f"{count} {what}" for what, count in sorted(self.redaction.counts.items()) if count]
        if not self.redaction.texts:
            found.append("samples and logs of trainers, which can hold prompts and responses (--with-samples)")
        found.append("weights, compiled programs, data sets, Secrets")
        return found


def bundle_of(
    sources: Sources,
    page: Callable[[Sources], str],
    versions: Mapping[str, str],
    findings: Any,
    *,
    texts: bool,
) -> Bundle:
    """All of it. `page`: makes the report's page of sources; `findings`: what `ratchet doctor` found, or None."""
    made = Bundle(texts=texts)
    made.notes += [*sources.missing.values(), *sources.files.notes]
    made.data("versions.json", dict(versions))
    if findings is not None:
        made.data("doctor.json", findings)
    if sources.manifest is not None:
        clean = made.redaction.value(sources.manifest)
        made.files["manifest.yaml"] = yaml.safe_dump(clean, sort_keys=False, allow_unicode=True)
    if sources.job is not None:
        _of_cluster(made, sources, texts=texts)
    _of_folder(made, sources.files, texts=texts)
    made.files["report.html"] = page(redacted(sources, made.redaction))
    return made


def redacted(sources: Sources, redaction: Redaction) -> Sources:
    """The sources of the page that goes into the bundle."""
    kept = redaction.texts
    files = sources.files if kept else replace(sources.files, samples={})
    missing = sources.missing if kept else sources.missing | {"samples": "left out of this bundle"}
    return replace(
        sources,
        manifest=redaction.value(sources.manifest),
        job=redaction.value(sources.job),
        events=redaction.value(sources.events),
        files=files,
        missing=missing,
    )


def _of_cluster(made: Bundle, sources: Sources, *, texts: bool) -> None:
    assert sources.job is not None
    made.data("job.json", sources.job)
    made.data("events.json", sources.events)
    namespace = str(sources.namespace)
    scope = ["--namespace", namespace, f"--selector={LABEL_JOB}={sources.name}"]
    pods = made.ask("pods.json", lambda: get("pods", scope, "pods:"))
    made.ask("jobsets.json", lambda: get("jobsets.jobset.x-k8s.io", scope, "JobSets:"))
    everywhere = ["--all-namespaces", f"--selector={OPERATOR}"]
    deployments = made.ask("operator.json", lambda: get("deployments,pods", everywhere, "operator:"))
    for place in sorted({item["metadata"]["namespace"] for item in (deployments or {}).get("items", ())}):
        logs = ["logs", "--namespace", place, f"--selector={OPERATOR}", f"--tail={TAIL}", "--prefix"]
        made.ask(f"operator-{place}.log", partial(output, logs, "operator's log:"))
        lease = ["--namespace", place]
        made.ask(f"lease-{place}.json", partial(get, "leases/ratchet-operator", lease, "Lease:"))
    made.ask("nodes.json", lambda: _nodes(get("nodes", [], "nodes:")))
    if texts:
        for pod in (pods or {}).get("items", ()):
            name = pod["metadata"]["name"]
            log = ["logs", "--namespace", namespace, name, f"--tail={TAIL}", "--all-containers"]
            made.ask(f"trainer/{name}.log", partial(output, log, f"log of {name}:"))


def get(what: str, scope: Sequence[str], about: str) -> Raw:
    """An object of the cluster, or a list of them. Raises Unanswered."""
    found: Raw = json.loads(output(["get", what, *scope, "-o", "json"], about))
    return found


def output(arguments: Sequence[str], about: str) -> str:
    """What kubectl prints. Raises Unanswered."""
    try:
        return Cluster().run(*arguments)
    except Unanswered as error:
        raise Unanswered(f"{about} {error}", error.kind) from None


def _nodes(found: Raw) -> list[Raw]:
    """Of nodes, what decides where pods go: not their addresses, not their images."""
    return [
        {
            "name": node["metadata"]["name"],
            "labels": node["metadata"].get("labels"),
            "taints": node["spec"].get("taints"),
            "allocatable": node["status"].get("allocatable"),
            "conditions": node["status"].get("conditions"),
            "kubeletVersion": (node["status"].get("nodeInfo") or {}).get("kubeletVersion"),
        }
        for node in found["items"]
    ]


def _of_folder(made: Bundle, files: FolderFiles, *, texts: bool) -> None:
    for tag, lines in files.ledger.items():
        made.files[f"ledger/{tag}.jsonl"] = "".join(json.dumps(line) + "\n" for line in lines)
    if files.claims or files.commits:
        entries = [{"claim": claim} for claim in files.claims] + [{"commit": commit} for commit in files.commits]
        made.data("journal.json", entries)
    if files.steps:
        steps = ({"step": step, "metrics": metrics} for step, metrics in files.steps)
        made.files["metrics.jsonl"] = "".join(json.dumps(step) + "\n" for step in steps)
    if files.identity:
        made.data("identity.json", files.identity)
    if texts:
        for step, samples in files.samples.items():
            if samples:
                made.data(f"samples/{step:08d}.json", samples)
