"""`ratchet operator`: the process in the operator's image.

Becomes the parent process of `ratchet_operator.supervisor`, which needs none of what has been imported here.
"""

from __future__ import annotations

import importlib.util
import os
import sys

import click


@click.command()
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), help="As RATCHET_LOG_LEVEL.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="As RATCHET_LOG_FORMAT.")
@click.option("--resync-seconds", type=click.FloatRange(1, 86400), help="As RATCHET_RESYNC_SECONDS.")
@click.option("--lease-seconds", type=click.FloatRange(5, 600), help="As RATCHET_LEASE_SECONDS.")
def operator(
    log_level: str | None, log_format: str | None, resync_seconds: float | None, lease_seconds: float | None
) -> None:
    """Run the operator (the process in the operator's image).

    Configured by the environment; the Helm chart sets it. RATCHET_OPERATOR_NAMESPACE: where the Lease lives.
    RATCHET_WATCH_NAMESPACES: comma-separated, all when empty. RATCHET_TRAINER_IMAGE: image of jobs that name none.
    RATCHET_SERVICE_ACCOUNTS: service accounts that jobs may name. RATCHET_RUN_AS_USER, RATCHET_RUN_AS_GROUP: who
    trainers are that name nobody. RATCHET_ALLOW_ROOT=true: they may be root. RATCHET_READ_ONLY_ROOT=false: they may
    write to their image's own files. RATCHET_WORKER_PRIORITY_CLASS: of workers of a fleet whose manifest names none.
    RATCHET_METRICS_PORT, RATCHET_POD_IP: where /metrics and /healthz are.
    RATCHET_WATCH_NODES=false: without the right to read nodes. RATCHET_RESYNC_SECONDS, RATCHET_LEASE_SECONDS,
    RATCHET_LOG_LEVEL, RATCHET_LOG_FORMAT, which options go before. Outside a pod, KUBECONFIG says which cluster.
    """
    missing = [name for name in ("kopf", "kubernetes", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(f"the operator needs {', '.join(missing)}: pip install 'ratchet-rl[operator]'")
    options = {
        "LOG_LEVEL": log_level,
        "LOG_FORMAT": log_format,
        "RESYNC_SECONDS": resync_seconds,
        "LEASE_SECONDS": lease_seconds,
    }
    os.environ |= {f"RATCHET_{name}": str(value) for name, value in options.items() if value is not None}
    spec = importlib.util.find_spec("ratchet_operator")
    folder = next(iter(spec.submodule_search_locations or ())) if spec else ""
    os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.join(folder, "supervisor.py")])
