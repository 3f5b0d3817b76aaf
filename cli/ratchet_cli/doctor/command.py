"""`ratchet doctor`: what is missing for jobs or the demo, and the command that mends each.

Decides what is looked at, how it is printed and the exit code: 0 where there is no error, 1 where there is one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ratchet_cli.doctor import cluster, machine, manifest
from ratchet_cli.doctor.ask import Cluster, Unanswered
from ratchet_cli.doctor.check import OK, Check
from ratchet_cli.job_view.words import count
from ratchet_cli.kube import cluster_options
from ratchet_cli.manifests import read_job
from ratchet_cli.new_file import NewFile
from ratchet_cli.patience import patience
from ratchet_cli.sample_view import columns, printable, wrapped

COLORS = {OK: "green", "warning": "yellow", "error": "red"}
WIDTH = 9
"""Columns of the state."""


@click.command()
@click.argument("file", required=False)
@cluster_options
@click.option("--local", is_flag=True, help="Look at this machine alone: what `ratchet demo` and `train` need.")
@click.option("--json", "json_file", type=NewFile(), help="Write what was found here.")
def doctor(file: str | None, namespace: str | None, context: str | None, local: bool, json_file: Path | None) -> None:
    """Look whether everything is there, and say what mends what is not.

    Without FILE: this machine, and the cluster of the kubeconfig: API server, kinds and their versions, operator,
    nodes, rights. With FILE, a manifest: also its placements, queue, claims, secrets, service account and bucket; its
    namespace counts unless -n is said.

    Exits 0 where nothing is an error, 1 where something is, 65 and 66 for a FILE with problems.
    """
    with patience("looking at this machine" if local else "looking at this machine and asking the cluster"):
        found = examine(file, namespace, context, local=local)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(found), indent=2, ensure_ascii=False) + "\n")
    for line in lines(found, columns()):
        click.echo(line)
    sys.exit(1 if any(check.state == "error" for check in found) else 0)


def examine(file: str | None, namespace: str | None, context: str | None, *, local: bool) -> list[Check]:
    """Everything that is found. Exits with 65 or 66 for a manifest that is none."""
    said, job = read_job(file) if file is not None else ({}, None)
    if local:
        here = manifest.bucket(job.spec, "", None, []) if job is not None else []
        return machine.checks() + here
    asked = Cluster(context)
    wanted = namespace or (said.get("metadata") or {}).get("namespace") or _namespace(asked)
    tools = machine.tools()
    found, answers = cluster.checks(asked, wanted) if tools[0].state == OK else ([], False)
    if job is not None:
        found += manifest.checks(asked, job.spec, wanted) if answers else manifest.bucket(job.spec, wanted, None, [])
    return [_less(check) for check in machine.checks()] + tools + found


def _less(check: Check) -> Check:
    """Whoever asks about a cluster need not have on this machine what trains."""
    return replace(check, state="warning") if check.state == "error" else check


def _namespace(asked: Cluster) -> str:
    try:
        said = asked.run("config", "view", "--minify", "-o", "jsonpath={..namespace}").strip()
    except Unanswered:
        said = ""
    return said or "default"


def as_json(found: Sequence[Check]) -> dict[str, Any]:
    """`{ok, errors, warnings, checks}`."""
    counts = {state: sum(check.state == state for check in found) for state in COLORS}
    checks = [check.plain() for check in found]
    return {"ok": not counts["error"], "errors": counts["error"], "warnings": counts["warning"], "checks": checks}


def lines(found: Sequence[Check], width: int) -> list[str]:
    """The result for people: areas, one finding after the other, and the count."""
    made: list[str] = []
    area = ""
    order = list(dict.fromkeys(check.area for check in found))
    ordered = sorted(found, key=lambda check: order.index(check.area))
    for check, after in zip(ordered, [*ordered[1:], None], strict=True):
        if check.area != area:
            area = check.area
            made += ([""] if made else []) + [click.style(area, bold=True)]
        state = click.style(f"{check.state:<{WIDTH}}", fg=COLORS[check.state])
        made += hanging(state, f"{check.about}: {check.said}", width)
        if check.mend and (after is None or (after.area, after.mend) != (check.area, check.mend)):
            made += hanging(" " * WIDTH, f"do: {check.mend}", width)
    counts = as_json(found)
    looked = (counts["errors"], "error"), (counts["warnings"], "warning"), (len(found), "thing")
    made += ["", f"{', '.join(count(*one) for one in looked)} looked at"]
    return made


def hanging(first: str, text: str, width: int) -> list[str]:
    """Text beside a first column, its further lines below itself."""
    pieces = wrapped(printable(text, one_line=True), width - WIDTH)
    return [f"{first if i == 0 else ' ' * WIDTH}{piece}" for i, piece in enumerate(pieces)]
