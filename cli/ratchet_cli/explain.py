"""`ratchet explain FILE`: what a manifest asks for, in plain English, and every knob with where its value comes from.

Reads the manifest and the API's tables; contacts nothing and does not load JAX.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ratchet_api.default_learning_rate import peak_learning_rate
from ratchet_api.job import Spec
from ratchet_api.validate import devices, placement_shape, processes
from ratchet_cli import explain_words as words
from ratchet_cli.explain_fleet import fleet as words_of_fleet
from ratchet_cli.explain_fleet import sampling
from ratchet_cli.explain_knobs import Knob, knobs_of, shown, with_learning_rate
from ratchet_cli.manifests import fail, read_job

LONGEST = 40
"""Letters of a value in a table; JSON has all of it."""


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How it is printed."
)
@click.option(
    "--measured",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a `ratchet train` of it: says how many workers of a rollout fleet would pay, from its seconds.",
)
def explain(file: str, output: str, measured: Path | None) -> None:
    """Print the plan of a manifest in plain English, and what each stage's method resolves to.

    FILE is a manifest, or - for standard input. Exit codes: 65 for a manifest with problems, which are those of
    `ratchet validate`; 66 for a file that cannot be read.
    """
    manifest, job = read_job(file)
    found = plan(manifest["metadata"]["name"], job.spec, None if measured is None else _measured(measured))
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if output == "json" else text(found))


def plan(name: str, spec: Spec, measured: dict[str, Any] | None = None) -> dict[str, Any]:
    """The plan as JSON has it. `measured`: seconds of a run and its steps."""
    stages = []
    for i, stage in enumerate(spec.stages):
        knobs = knobs_of(stage)
        if stage.curate is None:
            knobs = with_learning_rate(knobs, peak_learning_rate(stage, spec.model))
        stages.append(
            {
                "name": stage.name,
                "kind": next(kind for kind in ("sft", "rl", "curate") if getattr(stage, kind) is not None),
                "method": stage.rl.method if stage.rl is not None else None,
                "steps": stage.advance.steps if stage.curate is None else None,
                "words": [*words.stage(stage, i, spec, knobs), *sampling(stage)],
                "knobs": [asdict(k) for k in knobs],
            }
        )
    return {
        "name": name,
        "steps": sum(s.advance.steps for s in spec.stages if s.curate is None),
        "seed": spec.seed,
        "model": words.model(spec.model),
        "datasets": [{"name": d.name, "words": words.dataset(d)} for d in spec.datasets],
        "stages": stages,
        "placements": [
            {
                "name": p.name,
                "hosts": processes(p),
                "chips": placement_shape(p).chips * p.slices,  # 0: there are none
                "devices": devices(p),
                "capacity": p.capacity_type,
                "waitSeconds": p.wait_seconds,
                "words": words.placement(p, spec),
            }
            for p in spec.placements
        ],
        "rollouts": words_of_fleet(spec, measured),
        "restart": {
            "everySteps": spec.checkpoint.every_steps,
            "stepsLostAtMost": words.lost_at_most(spec),
            "stepsLostWithNotice": 0,
            "words": words.restart(spec),
        },
    }


def _measured(folder: Path) -> dict[str, Any]:
    from ratchet_trainer.process import ledger

    lines = [line for attempt in ledger.read(folder).values() for line in attempt]
    if not lines:
        fail(
            os.EX_NOINPUT,
            f"{folder}: holds no ledger; name the folder of a `ratchet train`, or leave --measured out",
        )
    return {"seconds": ledger.summary(folder)["seconds"], "steps": int(sum(line.get("steps", 0) for line in lines))}


def text(found: dict[str, Any]) -> str:
    """The plan for people."""
    stages = words.counted(len(found["stages"]), "stage")
    lines = [f"{found['name']}: {stages}, at most {words.counted(found['steps'], 'step')}, seed {found['seed']}"]
    lines += ["", f"Model: {found['model']}", "", "Data sets"]
    lines += [f"  {d['name']}: {d['words']}" for d in found["datasets"]]
    lines += ["", "Stages"]
    for i, stage in enumerate(found["stages"], 1):
        lines += [f"  {i}. {stage['name']}", *(f"     {sentence}" for sentence in stage["words"])]
    lines += ["", "Placements, tried in this order"]
    lines += [f"  {i}. {p['name']}: {p['words']}" for i, p in enumerate(found["placements"], 1)]
    if found["rollouts"]:
        lines += ["", "Rollout fleet", *(f"  {sentence}" for sentence in found["rollouts"])]
    lines += ["", "What a restart costs", *(f"  {sentence}" for sentence in found["restart"]["words"])]
    for stage in found["stages"]:
        method = f", method {stage['method']}" if stage["method"] else ""
        lines += ["", f"Knobs of stage {stage['name']}{method}"]
        lines += _table([Knob(**k) for k in stage["knobs"]])
    return "\n".join(lines)


def _table(knobs: Sequence[Knob]) -> list[str]:
    rows = [("knob", "value", "from", "default")]
    rows += [(k.name, shown(k.value), k.source, shown(k.default)) for k in knobs if k.applies]
    cut = [(name, *(c if len(c) <= LONGEST else f"{c[: LONGEST - 3]}..." for c in rest)) for name, *rest in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    lines = ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cut]
    if idle := [k.name for k in knobs if not k.applies]:
        lines.append(f"  without effect here: {', '.join(idle)}")
    return lines
