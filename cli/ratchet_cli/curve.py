"""`ratchet curve JOB|FILE`: a metric of a run over its steps, in the terminal.

Decides which lines of the metric stream are drawn. Only committed steps are in the stream, so a run that was stopped
and went on has one curve.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import click

from ratchet_cli.curve_drawing import draw
from ratchet_cli.ending import unreadable
from ratchet_cli.kube import cluster_options
from ratchet_cli.manifests import fail
from ratchet_cli.samples import folder_of


@click.command()
@click.argument("job", metavar="JOB|FILE")
@click.option("--metric", default="train/accuracy", show_default=True, help="Which metric of the stream.")
@click.option("--workdir", type=click.Path(file_okay=False, path_type=Path), help="Folder of `ratchet train`.")
@cluster_options
def curve(job: str, metric: str, workdir: Path | None, namespace: str | None, context: str | None) -> None:
    """Draw a metric of a run over its committed steps, and say its first and its last value.

    JOB, FILE and the exit codes are those of `ratchet samples`.
    """
    folder = folder_of(job, workdir, namespace, context)
    from ratchet_trainer.checkpoints.checkpoint import stream_of
    from ratchet_trainer.errors import TrainerError

    stream = folder / "metrics.jsonl"
    try:
        points, known = values(stream_of(folder).read(), metric)
    except (OSError, ValueError, TrainerError) as error:
        fail(os.EX_NOINPUT, f"{stream}: cannot be read: {unreadable(error)}")
    if not points:
        fail(os.EX_NOINPUT, f"{stream}: no {metric}; there are {', '.join(known) or 'no metrics yet'}")
    (first, start), (last, end) = points[0], points[-1]
    click.echo(f"{metric} {start:.3f} -> {end:.3f} (step {first} -> {last})")
    highest = max(value for _, value in points)
    click.echo(draw(points, top=1.0 if highest <= 1.0 else highest))


def values(stream: bytes, metric: str) -> tuple[list[tuple[int, float]], list[str]]:
    """(step, value) of every committed step whose metric is a finite number; and the names of all metrics."""
    points, known = [], set()
    for line in stream.decode().split("\n")[:-1]:  # what is not a whole line is being written
        if line.strip():
            said = json.loads(line)
            known |= said["metrics"].keys()
            value = float(said["metrics"].get(metric, "nan"))
            points += [(said["step"], value)] if math.isfinite(value) else []
    return points, sorted(known)
