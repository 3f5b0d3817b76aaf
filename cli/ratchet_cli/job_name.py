"""The argument JOB: the name of a job in the cluster, completed by the shell with those that there are."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import CompletionItem

from ratchet_cli.kube import KubeError, connect, jobs


class JobName(click.ParamType):  # type: ignore[type-arg]
    """A name, also as kubectl prints it: rltrainingjob.ratchet.dev/NAME."""

    name = "job"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return jobs.bare(str(value))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Names of the namespace's jobs; nothing where the cluster does not answer."""
        try:
            with connect(ctx.params.get("namespace"), ctx.params.get("context")) as kube:
                return [CompletionItem(name) for name in jobs.names(kube) if name.startswith(incomplete)]
        except KubeError:
            return []


JOB = JobName()
