"""`ratchet operator`: the process in the operator's image.

Becomes the parent process of `ratchet_operator.supervisor`, which needs none of what has been imported here.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import click


@click.command()
def operator() -> None:
    """Run the operator (the process in the operator's image).

    Configured by the environment; the Helm chart sets it. RATCHET_OPERATOR_NAMESPACE: where the Lease lives.
    RATCHET_WATCH_NAMESPACES: comma-separated, all when empty. RATCHET_TRAINER_IMAGE: image of jobs that name none.
    RATCHET_SERVICE_ACCOUNTS: service accounts that jobs may name. RATCHET_METRICS_PORT, RATCHET_POD_IP: where /metrics
    and /healthz are. RATCHET_WATCH_NODES=false: without the right to read nodes. RATCHET_RESYNC_SECONDS,
    RATCHET_LEASE_SECONDS, RATCHET_LOG_LEVEL. Outside a pod, KUBECONFIG says which cluster.
    """
    missing = [name for name in ("kopf", "kubernetes", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(f"the operator needs {', '.join(missing)}: pip install 'ratchet-rl[operator]'")
    spec = importlib.util.find_spec("ratchet_operator")
    folder = next(iter(spec.submodule_search_locations or ())) if spec else ""
    os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.join(folder, "supervisor.py")])
