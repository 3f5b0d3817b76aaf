"""The `ratchet` command: one table of commands, each loaded only when it is called.

A trainer process starts through this program too, so importing it must cost next to nothing.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import Any

import click

COMMANDS = {
    # command -> module, help line
    "demo": (
        "demo.command",
        "The whole story here: train, lose nodes, recover, prove that nothing was lost.",
    ),
    "cluster": ("cluster", "A real Kubernetes control plane on this machine, with nodes that look like GKE TPU nodes."),
    "train": ("train", "Train a manifest without Kubernetes; resumes what is in its folder."),
    "approve": ("approve", "Approve the end of a stage of a job in the cluster, so that what comes next may begin."),
    "samples": ("samples", "Show what a run sampled: prompts, responses, answers and what they earned."),
    "prove": ("prove", "Train a manifest undisturbed and killed, and compare every hash."),
    "curve": ("curve", "Draw a metric of a run over its steps."),
    "objective": ("objective", "Check losses and advantages against numbers made by other implementations."),
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
}


class Lazy(click.Group):
    """A group whose commands are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f"ratchet_cli.{module}"), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click's own answer is 1, which commands give a meaning of their own
            click.echo("interrupted", err=True)
            sys.exit(128 + signal.SIGINT)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ratchet-rl", prog_name="ratchet")
def main() -> None:
    """Reinforcement learning of language models on capacity that can vanish at any moment."""


if __name__ == "__main__":
    sys.exit(main())
