"""`ratchet completion`: what a shell needs to complete commands, options and names of jobs.

Decides that `ratchet` and `kubectl-ratchet` get the same. For `kubectl ratchet`, kubectl itself asks a program named
`kubectl_complete-ratchet`, which is installed beside it (`kubectl_complete`).
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import ShellComplete, get_completion_class

HOW = {
    "bash": "# For this shell: source <(ratchet completion bash). For all: put that line into ~/.bashrc.",
    "zsh": "# For this shell: source <(ratchet completion zsh). For all: put that line into ~/.zshrc, after compinit.",
    "fish": "# For all shells: ratchet completion fish > ~/.config/fish/completions/ratchet.fish",
}
NO_FILES = 4
"""cobra's ShellCompDirectiveNoFileComp: kubectl must not offer files where there is nothing else."""


@click.command()
@click.argument("shell", type=click.Choice(list(HOW)))
def completion(shell: str) -> None:
    """Print the completion script for SHELL: source <(ratchet completion bash).

    It completes commands, options, and names of jobs, namespaces and contexts as the cluster has them. `kubectl
    ratchet` is completed by kubectl's own script, which finds kubectl_complete-ratchet on PATH.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "HOW lists click's own"
    click.echo(HOW[shell])
    for name in ("ratchet", "kubectl-ratchet"):
        variable = f"_{name}_COMPLETE".replace("-", "_").upper()
        one = kind(click.Group(), {}, name, variable)
        click.echo(one.source_template % one.source_vars())


def kubectl_complete() -> None:
    """The program kubectl_complete-ratchet: the words after `kubectl ratchet`, the last one unfinished, to what may be
    there, one a line, and cobra's directive."""
    from ratchet_cli.main import main

    words = sys.argv[1:] or [""]
    found = ShellComplete(main, {}, "ratchet", "_RATCHET_COMPLETE").get_completions(words[:-1], words[-1])
    for item in found:
        if item.type == "plain":
            click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(f":{0 if any(item.type in ('file', 'dir') for item in found) else NO_FILES}")
