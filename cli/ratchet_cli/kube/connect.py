"""From a command's options to a cluster that can be asked.

Decides which way is taken: kubectl where it is on PATH, because a kubeconfig means what kubectl makes of it; else the
Python client where it is installed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import click

from ratchet_cli.ending import fail
from ratchet_cli.kube.ask import METADATA, Kube
from ratchet_cli.kube.errors import KubeError, Unreachable
from ratchet_cli.kube.kubectl_proxy import KubectlProxy
from ratchet_cli.kube.parts import each, text
from ratchet_cli.kube.python_client import PythonClient

F = TypeVar("F", bound=Callable[..., Any])


def cluster_options(command: F) -> F:
    """The options -n/--namespace and --context of a command, as parameters `namespace` and `context`."""
    context = click.option(
        "--context", help="Context of the kubeconfig; default: the current one.", shell_complete=_contexts
    )
    namespace = click.option(
        "-n", "--namespace", help="Namespace; default: that of the kubeconfig's context.", shell_complete=_namespaces
    )
    return namespace(context(command))


def _contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    program = shutil.which("kubectl")
    if program is None:
        return []
    done = subprocess.run(
        [program, "config", "get-contexts", "--output=name"], capture_output=True, text=True, timeout=10
    )
    return [name for name in done.stdout.split() if name.startswith(incomplete)]


def _namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    try:
        with connect(None, ctx.params.get("context")) as kube:
            found = kube.get("/api/v1/namespaces", seconds=5, accept=METADATA)
    except KubeError:
        return []
    names = (text(item, "metadata", "name") for item in each(found, "items"))
    return [name for name in names if name and name.startswith(incomplete)]


@contextmanager
def connect(namespace: str | None = None, context: str | None = None) -> Iterator[Kube]:
    """A cluster that can be asked; it need not answer. Raises KubeError."""
    program = shutil.which("kubectl")
    try:
        way = KubectlProxy(program, context) if program else PythonClient(context)
    except ImportError:
        raise Unreachable(
            'no kubectl on PATH to ask a cluster; install it, or pip install "ratchet-rl[operator]"; '
            'eval "$(ratchet cluster env)" brings one, too'
        ) from None
    try:
        place = replace(way.place, namespace=namespace) if namespace else way.place
        yield Kube(way, place)
    finally:
        way.close()


@contextmanager
def asked(namespace: str | None = None, context: str | None = None) -> Iterator[Kube]:
    """`connect` for a command: a KubeError inside ends it with one line and the error's exit code."""
    try:
        with connect(namespace, context) as kube:
            yield kube
    except KubeError as error:
        fail(error.code, str(error))
