"""What the chart makes of each value set, as files that a person can read.

`python tests/chart/golden_values.py` writes them anew; read the difference before you keep it. What follows from other
files is left out and tested where it is made: the spec of the CustomResourceDefinition, dashboards, alerts, versions.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from rendering import CHART, DEFINITION, VALUE_SETS, Raw, render

GOLDEN = Path(__file__).parent / "golden"
FROM_FILES = ("ConfigMap", "PrometheusRule")


def text(name: str) -> str:
    """The golden file of a value set."""
    documents = [_short(it) for it in render(values=VALUE_SETS[name]) if it["kind"] not in FROM_FILES]
    documents.sort(key=lambda it: (it["kind"], it["metadata"].get("namespace", ""), it["metadata"]["name"]))
    return _without_versions(yaml.safe_dump_all(documents, sort_keys=True, width=120, allow_unicode=True))


def _short(document: Raw) -> Raw:
    if document["kind"] == DEFINITION:
        return {**document, "spec": "as in crds/rltrainingjobs.ratchet.dev.yaml"}
    if document["kind"] == "Secret":
        return {**document, "data": dict.fromkeys(document["data"], "made by helm")}
    for webhook in document.get("webhooks", ()):
        if "caBundle" in webhook["clientConfig"]:
            webhook["clientConfig"]["caBundle"] = "of the certificate that helm made"
    return document


def _without_versions(found: str) -> str:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for before, version in (
        ("helm.sh/chart: ratchet-", about["version"]),
        ("app.kubernetes.io/version: ", about["appVersion"]),
        ("ghcr.io/ratchet-rl/ratchet:", about["appVersion"]),
        ("ghcr.io/ratchet-rl/ratchet-trainer:", about["appVersion"]),
    ):
        found = found.replace(f"{before}{version}", f"{before}VERSION")
    return found


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for stale in set(GOLDEN.iterdir()) - {GOLDEN / f"{name}.yaml" for name in VALUE_SETS}:
        stale.unlink()
    for name in VALUE_SETS:
        (GOLDEN / f"{name}.yaml").write_text(text(name))
