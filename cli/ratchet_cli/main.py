"""The `ratchet` command: one table of commands, each loaded only when it is called.

A trainer process starts through this program too, so importing it must cost next to nothing.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    # command -> module, help line
    "demo": (
        "demo.command",
        "The whole story here: train, lose nodes, recover, prove that nothing was lost.",
    ),
    "cluster": ("cluster", "A real Kubernetes control plane on this machine, with nodes that look like GKE TPU nodes."),
    "init": ("init.command", "Write a manifest from three answers: which model, what to learn, where."),
    "train": ("train", "Train a manifest without Kubernetes; resumes what is in its folder."),
    "status": ("status", "What a job does, where, how fast, whether it learns, why it waits; all jobs without a name."),
    "watch": ("watch", "A job live, with its curves; into a pipe, a line for each change."),
    "top": ("top", "Who uses the chips, and to what end."),
    "logs": ("logs", "What the trainer said, attempt by attempt."),
    "suspend": ("suspend", "Let a job rest: checkpoint, then its capacity is free."),
    "resume": ("suspend", "Let a suspended job go on from its last checkpoint."),
    "approve": ("approve", "Approve the end of a stage of a job in the cluster, so that what comes next may begin."),
    "samples": ("samples", "Show what a run sampled: prompts, responses, answers and what they earned."),
    "prove": ("prove", "Train a manifest undisturbed and killed, and compare every hash."),
    "curve": ("curve", "Draw a metric of a run over its steps."),
    "report": ("report.command", "Write one HTML file about a run: did it learn, where did every second go."),
    "doctor": (
        "doctor.command",
        "Look whether cluster and machine have what jobs need, and say what mends it.",
    ),
    "objective": ("objective", "Check losses and advantages against numbers made by other implementations."),
    "examples": ("examples", "List the example manifests, show one, or copy it."),
    "chart": ("chart", "Print the folder of the chart that comes with this version, for helm."),
    "validate": ("validate", "Say what is wrong in a manifest, with paths and ways out."),
    "explain": ("explain", "Say in plain English what a manifest asks for, and where every setting comes from."),
    "fit": (
        "fit",
        "Compile a manifest for its TPUs, without any: does it fit, and what would make it.",
    ),
    "render": ("render", "Print every Kubernetes object that a manifest would become."),
    "model": (
        "model",
        "Fetch a small real model; check a folder against another implementation; export a trained one.",
    ),
    "crd": ("crd", "Print the CustomResourceDefinition, the JSON schema or the API reference."),
    "operator": ("operator", "Run the operator (the process in the operator's image)."),
    "trainer": ("train", "Run one trainer process (the process in the trainer's image)."),
    "rollout-worker": ("train", "Run one process of a worker of the rollout fleet (in the trainer's image, too)."),
    "completion": ("completion", "Print the completion script for bash, zsh or fish."),
}

PROCESSES = ("operator", "trainer", "rollout-worker")
"""What runs in pods: an error that nobody foresaw is theirs to tell, with the place in the code."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Lazy(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"ratchet_cli.{module}"), name.replace("-", "_"))
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands with their help lines, without importing one."""
        from click.shell_completion import CompletionItem

        named = [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items() if name.startswith(incomplete)]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click's own answer is 1, which commands give a meaning of their own
            click.echo("interrupted", err=True)
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:  # the reader has what it wants, as `head -1`; click's own answer is 1 here, too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed at the end
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:
            if error.errno not in FULL or error.filename is not None or ctx.invoked_subcommand in PROCESSES:
                raise
            click.echo(f"the output cannot be written: {error.strerror}; write it to another place", err=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(os.EX_IOERR)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ratchet-rl", prog_name="ratchet")
def main() -> None:
    """Reinforcement learning of language models on capacity that can vanish at any moment."""


if __name__ == "__main__":
    sys.exit(main())
