"""`ratchet cluster`: the local cluster from the command line.

Decides what is printed and which exit code an error gets (sysexits); everything else is done by `ratchet_cluster`.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ratchet_cli.program import program
from ratchet_cluster import pools as node_pools
from ratchet_cluster.build import KUEUE, PROMETHEUS, BuildError, ensure_binaries
from ratchet_cluster.cluster import Cluster, ClusterError, default_folder
from ratchet_cluster.control import Refused
from ratchet_cluster.plane import PlaneError

EX_USAGE, EX_DATAERR, EX_UNAVAILABLE, EX_SOFTWARE = 64, 65, 69, 70
EXIT_CODES = {
    node_pools.PoolError: EX_DATAERR,
    BuildError: EX_UNAVAILABLE,
    PlaneError: EX_SOFTWARE,
    ClusterError: EX_UNAVAILABLE,
    Refused: EX_UNAVAILABLE,
}


@contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except tuple(EXIT_CODES) as error:
        click.echo(f"ratchet cluster: {error}", err=True)
        sys.exit(next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind)))


def _tell(line: str) -> None:
    click.echo(line, err=True)


@click.group()
@click.option(
    "--dir", "folder", type=click.Path(path_type=Path, file_okay=False), envvar="RATCHET_CLUSTER_STATE",
    help=f"Where the cluster keeps its state.  [default: {default_folder()}]",
)  # fmt: skip
@click.pass_context
def cluster(ctx: click.Context, folder: Path | None) -> None:
    """A real Kubernetes control plane on this machine, with nodes that look like GKE TPU nodes."""
    ctx.obj = Cluster(folder)


@cluster.command()
@click.option("--kueue", is_flag=True, help="Kueue too: once, some 7 minutes more.")
@click.option("--prometheus", is_flag=True, help="Prometheus and promtool too: once, some 3 minutes more.")
def build(kueue: bool, prometheus: bool) -> None:
    """Compile the programs of the cluster, unless they are there: once, about 5 minutes on two cores."""
    with _errors_in_words():
        click.echo(ensure_binaries(_tell))
        if kueue:
            click.echo(ensure_binaries(_tell, KUEUE))
        if prometheus:
            click.echo(ensure_binaries(_tell, PROMETHEUS))


@cluster.command()
@click.option("--operator", is_flag=True, help="Install the chart too; its pods run what is installed here.")
@click.option("--kueue", is_flag=True, help="Start Kueue too, for JobSets in queues; compiled once, see `build`.")
@click.option(
    "--pool", "wanted", multiple=True, metavar="NAME=ACCELERATOR:TOPOLOGY[:CHIPS][:spot]",
    help="A node pool; may be repeated. NAME=cpu:HOSTS for one without chips.  [default: two spot slices v6e 2x4]",
)  # fmt: skip
@click.option(
    "--pools", "file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A YAML list of pools."
)
@click.pass_obj
def up(one: Cluster, operator: bool, kueue: bool, wanted: tuple[str, ...], file: Path | None) -> None:
    """Start the cluster, or complete what is missing of it."""
    with _errors_in_words():
        pools = [*(node_pools.load(file) if file else []), *map(node_pools.parse, wanted)]
        one.up(pools or node_pools.DEFAULT, progress=_tell, kueue=kueue)
        if operator:
            from ratchet_cluster import operator_chart

            _tell("installing the operator")
            operator_chart.install(one)
    named = "" if one.folder == default_folder().resolve() else f" --dir {shlex.quote(str(one.folder))}"
    _tell(f'use it: eval "$({program()} cluster{named} env)" && kubectl get nodes')


@cluster.command()
@click.option("--purge", is_flag=True, help="Delete the checkpoints and logs as well.")
@click.pass_obj
def down(one: Cluster, purge: bool) -> None:
    """End every process of the cluster. Checkpoints and logs stay."""
    with _errors_in_words():
        one.down(purge)


@cluster.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(one: Cluster, as_json: bool) -> None:
    """What runs; exit code 69 when something is missing."""
    with _errors_in_words():
        found = one.status()
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        _print_status(found)
    if not found["up"]:
        sys.exit(EX_UNAVAILABLE)


def _print_status(found: dict[str, Any]) -> None:
    click.echo(f"{'up' if found['up'] else 'not up'}  {found.get('server', '')}  {found['folder']}")
    for name, pid in sorted(found["processes"].items()):
        click.echo(f"  {name:<24} pid {pid}")
    for name in found["missing"]:
        click.echo(f"  {name:<24} does not run")
    if "trouble" in found:
        click.echo(f"  {found['trouble']}")
    for node in found["nodes"]:
        state = "Ready" if node["ready"] else "NotReady"
        click.echo(f"  {node['name']:<24} {state:<9} {node['pool']:<12} {' '.join(node['pods'])}")


@cluster.command()
@click.pass_obj
def env(one: Cluster) -> None:
    """Print what a shell needs: eval "$(ratchet cluster env)"."""
    with _errors_in_words():
        found = one.env()
    click.echo(f"export KUBECONFIG={shlex.quote(found['KUBECONFIG'])}")
    click.echo(f"export PATH={shlex.quote(str(one.bin))}:$PATH")


@cluster.command()
@click.argument("node")
@click.option("--abrupt", is_flag=True, help="Without notice: SIGKILL and silence.")
@click.pass_obj
def preempt(one: Cluster, node: str, abrupt: bool) -> None:
    """Take NODE away, and with it all nodes of its pool, as GKE does with spot machines."""
    with _errors_in_words():
        click.echo(f"going: {' '.join(one.preempt(node, abrupt))}")


@cluster.command()
@click.argument("node")
@click.option("--in", "seconds", default=3600.0, show_default=True, help="Seconds until the maintenance begins.")
@click.pass_obj
def notice(one: Cluster, node: str, seconds: float) -> None:
    """Announce maintenance of NODE's pool."""
    with _errors_in_words():
        click.echo(f"announced on: {' '.join(one.notice(node, seconds))}")


@cluster.command()
@click.argument("node")
@click.pass_obj
def drain(one: Cluster, node: str) -> None:
    """Cordon NODE and evict its pods."""
    with _errors_in_words():
        one.drain(node)


@cluster.command()
@click.argument("pod")
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-c", "--container", help="One container of the pod.")
@click.pass_obj
def logs(one: Cluster, pod: str, namespace: str, container: str | None) -> None:
    """Print what POD said, also after it was deleted."""
    with _errors_in_words():
        click.echo(one.pod_log(namespace, pod, container), nl=False)
