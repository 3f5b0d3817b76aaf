"""The chart as the real helm renders it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from ratchet_cluster.build import ensure_binaries

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm/ratchet"
VALUE_SETS = {path.name.removesuffix("-values.yaml"): path for path in sorted(CHART.glob("ci/*-values.yaml"))}
NAMESPACE = "system"
KUBERNETES = "1.36.3"
DEFINITION = "CustomResourceDefinition"

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the definition has thousands of lines

Raw = dict[str, Any]


def helm(*arguments: str | Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm without a cluster."""
    return subprocess.run(
        [ensure_binaries() / "helm", *map(str, arguments)], input=stdin, capture_output=True, text=True
    )


def template(*arguments: str | Path, chart: Path = CHART, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """`helm template` of release `r` in namespace `system`."""
    return helm("template", "r", chart, "--namespace", NAMESPACE, "--kube-version", KUBERNETES, *arguments, stdin=stdin)


def render(*settings: str, values: Path | None = None, flags: tuple[str, ...] = (), chart: Path = CHART) -> list[Raw]:
    """Every object that these settings (`--set`) and this file of values make."""
    given = [part for setting in settings for part in ("--set", setting)]
    files = ["--values", str(values)] if values else []
    done = template(*files, *given, *flags, chart=chart)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, Loader=LOADER) if document]


def of_kind(documents: list[Raw], kind: str) -> list[Raw]:
    return [document for document in documents if document["kind"] == kind]


def operator_pod(documents: list[Raw]) -> Raw:
    """The pod template of the operator."""
    (deployment,) = of_kind(documents, "Deployment")
    return deployment["spec"]["template"]
