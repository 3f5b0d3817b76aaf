"""Whether a command's words mean something: subcommands, options, targets and files that exist. Runs no command."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import click

from ratchet_cli.main import main
from ratchet_cluster.build import ensure_binaries

ROOT = Path(__file__).parents[2]
NESTED = ("rollout", "config", "create", "auth", "show")
"""Verbs of kubectl and helm that have verbs of their own."""


def wrong(words: list[str]) -> str | None:
    """What is wrong with a simple command; None if nothing is, or if its program is not one that is known here."""
    if words[:2] == ["kubectl", "ratchet"]:
        words = words[1:]
    if words[0] == "ratchet":
        return _ratchet(words[1:])
    if words[0] == "make":
        return _make(words[1:])
    if words[0] in ("kubectl", "helm"):
        return _tool(words[0], words[1:])
    if words[0] == "python" and not (ROOT / words[1]).is_file():
        return f"there is no {words[1]}"
    if words[:2] == ["pip", "install"]:
        return _extra(words[2:])
    return None


def _ratchet(words: list[str]) -> str | None:
    command: click.Command = main
    parent: click.Context | None = None
    try:
        while True:
            context = click.Context(command, parent, command.name)
            given, rest, _ = command.make_parser(context).parse_args(list(words))
            for parameter in command.params:
                value = given.get(parameter.name or "")
                limited = isinstance(parameter.type, click.Choice | click.IntRange)
                if limited and isinstance(value, str) and not value.isupper():  # else a place to be filled in
                    parameter.type.convert(value, parameter, context)
            if not isinstance(command, click.Group) or not rest:
                return f"{rest} is too much" if rest else None
            found = command.get_command(context, rest[0])
            if found is None:
                return f"{command.name} has no {rest[0]}"
            command, words, parent = found, rest[1:], context
    except click.UsageError as error:
        return error.format_message()


def _make(words: list[str]) -> str | None:
    targets = [word for word in words if "=" not in word]
    done = subprocess.run(["make", "-n", *targets, "REGISTRY=x"], cwd=ROOT, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip()


def _tool(program: str, words: list[str]) -> str | None:
    options = [word.partition("=")[0] for word in words if word.startswith("-") and word != "-"]
    verbs = _verbs(words)
    known = _help(program, *verbs) + (_said("kubectl", "options") if program == "kubectl" else "")
    if not verbs or "Usage:" not in known:
        return f"{program} has no {' '.join(verbs)}"
    missing = [option for option in options if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known)]
    return f"{program} {' '.join(verbs)} has no {', '.join(missing)}" if missing else None


def _verbs(words: list[str]) -> list[str]:
    plain = [w for i, w in enumerate(words) if not w.startswith("-") and (i == 0 or words[i - 1] != "--namespace")]
    if plain[:2] == ["create", "secret"]:
        return plain[:3]
    return plain[: 2 if plain[:1] and plain[0] in NESTED else 1]


def _help(program: str, *verbs: str) -> str:
    return _said(program, *verbs, "--help")


@cache
def _said(program: str, *words: str) -> str:
    done = subprocess.run([ensure_binaries() / program, *words], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


def _extra(words: list[str]) -> str | None:
    for found in re.finditer(r"ratchet-rl\[([\w,]+)\]", " ".join(words)):
        for extra in found[1].split(","):
            if not re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE):
                return f"there is no extra {extra}"
    return None
