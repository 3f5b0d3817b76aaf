"""`ratchet demo`: the whole story on this machine.

Read `tell` from top to bottom: start a cluster, install the operator, apply a job, take nodes away, wait for the end,
train the same job undisturbed, compare. When to disturb is in `demo.disturbances`, what is proved in `demo.proof`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import yaml

from ratchet_api.job import Spec
from ratchet_cli import shipped
from ratchet_cli.curve_drawing import draw
from ratchet_cli.demo import disturbances, proof
from ratchet_cli.demo.board import Board
from ratchet_cli.demo.watch import Leader, Watcher
from ratchet_cli.manifests import fail, read_job
from ratchet_cli.new_file import NewFile
from ratchet_cli.signals import handled
from ratchet_cluster import operator_chart
from ratchet_cluster.cluster import Cluster, default_folder
from ratchet_cluster.prometheus import Prometheus

NAMESPACE = "default"


@click.command()
@click.option(
    "--preemptions", type=click.IntRange(0, 20), default=2, show_default=True, help="How often nodes are taken away."
)
@click.option(
    "--seed", type=click.IntRange(0), default=11, show_default=True, help="Seed of the job and of the schedule."
)
@click.option("--json", "json_file", type=NewFile(), help="Write the figures to this file.")
@click.option(
    "--file", "file", type=click.Path(exists=True, dir_okay=False), help="Manifest; examples/sums.yaml by default."
)
@click.option("--timeout", type=click.IntRange(1), default=900, show_default=True, help="Seconds the job may take.")
@click.option("--keep", is_flag=True, help="Leave the cluster and its files for a look around.")
@click.option(
    "--monitoring", is_flag=True, help="Have Prometheus watch, and leave it running on what it saw (built once, 3 min)."
)
def demo(
    preemptions: int, seed: int, json_file: Path | None, file: str | None, timeout: int, keep: bool, monitoring: bool
) -> None:
    """The whole story on this machine: train, lose nodes, recover, prove that nothing was lost.

    Exits 0 when the job completed, as often disturbed as asked, with the weights of an undisturbed run; 1 otherwise.
    """
    default_folder().parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir=default_folder().parent))
    board = Board()
    story = Story(board, folder, Path(file) if file else shipped.examples() / "sums.yaml", preemptions, seed, timeout)
    try:
        with handled(signal.default_int_handler, signal.SIGTERM):
            figures = tell(story, keep, monitoring)
    except RuntimeError as error:  # every error of the cluster, the proof and the story is one
        story.end_monitoring()
        fail(os.EX_SOFTWARE, f"the demo could not go on: {error}", f"what it left: {folder}")
    except KeyboardInterrupt:  # the cluster went down on the way here
        story.end_monitoring()
        if not keep:
            proof.remove(folder)
        fail(128 + signal.SIGINT, "interrupted" if keep else "interrupted; nothing of it is left")
    if json_file:
        json_file.write_text(json.dumps(figures, indent=2) + "\n")
        board.say(f"figures: {json_file}")
    good = figures["phase"] == "Completed" and figures["preemptions"] == preemptions
    sys.exit(0 if good and figures["weightsSha256"] == figures["undisturbedSha256"] else 1)


class DemoError(RuntimeError):
    """The story cannot go on; the message says where it stopped."""


@dataclass
class Story:
    """What was asked for, and what has been seen so far."""

    board: Board
    folder: Path
    file: Path
    preemptions: int
    seed: int
    timeout: int
    strikes: list[dict[str, Any]] = field(default_factory=list)
    prometheus: Prometheus | None = None

    def end_monitoring(self) -> None:
        """Ends Prometheus, if it was begun; its data stays in the folder."""
        if self.prometheus is not None:
            self.prometheus.stop()


def tell(story: Story, keep: bool, monitoring: bool = False) -> dict[str, Any]:
    """The story in order. Returns the figures of the contract; raises when it cannot go on."""
    board = story.board
    manifest, name = prepare(story)
    spec = read_job(str(manifest))[1].spec
    cluster = Cluster(story.folder / "cluster")
    try:
        board.say("1  a real control plane, with nodes that look like GKE TPU nodes", bold=True)
        cluster.up(progress=board.say, owner=None if keep else os.getpid())
        board.say("2  the operator, installed by helm from Ratchet's chart", bold=True)
        operator_chart.install(cluster, "replicaCount=1")
        if monitoring:
            begin_monitoring(story, cluster)
        board.say(
            f"3  kubectl apply -f {story.file.name}; {story.preemptions} times its nodes will be taken away", bold=True
        )
        cluster.kubectl("apply", "--namespace", NAMESPACE, "--filename", str(manifest))
        job = follow(story, cluster, name, spec)
        if job["status"].get("phase") != "Completed":
            raise DemoError(f"{name} ended as {job['status'].get('phase')}: {last_words(job)}")
        checkpoints = cluster.folder / "volumes" / "checkpoints" / name
        figures = proof.figures(job, story.strikes)
        board.say("4  the same job again, undisturbed, without Kubernetes", bold=True)
        twin = proof.undisturbed(manifest, story.folder / "undisturbed", checkpoints / "cache", board.say)
        figures |= {"weightsSha256": proof.weights(checkpoints), "undisturbedSha256": twin["weightsSha256"]}
        board.say("5  accuracy on 256 held-out items of the last stage", bold=True)
        figures["accuracy"] = proof.accuracy(manifest, checkpoints)
        show(story, figures, proof.curve(checkpoints))
    finally:
        if keep:
            board.say(f'kept: eval "$(ratchet cluster --dir {cluster.folder} env)"')
            board.say(f"end it: ratchet cluster --dir {cluster.folder} down")
        else:
            cluster.down(purge=True)
    if story.prometheus is not None:
        say_where_to_look(story, story.prometheus, keep)
    elif not keep:
        proof.remove(story.folder)
    return figures


def begin_monitoring(story: Story, cluster: Cluster) -> None:
    """Prometheus with the chart's rules, in a folder of its own: it outlives the cluster."""
    rules = operator_chart.chart() / "files/rules.yaml"
    story.prometheus = Prometheus.begin(
        story.folder / "prometheus", cluster.kubeconfig, rules=rules, progress=story.board.say
    )
    story.board.say(f"Prometheus scrapes operator and trainer every second: {story.prometheus.url}")


def say_where_to_look(story: Story, prometheus: Prometheus, keep: bool) -> None:
    """How to look at what Prometheus has seen, and how to end it."""
    if not keep:
        prometheus.leave_cluster()
    boards = operator_chart.chart() / "files/dashboards"
    story.board.say(f"Prometheus goes on with the data of this run: {prometheus.url}")
    story.board.say(f"in Grafana: add it as a data source, import {boards}/*.json")
    story.board.say(f"end it: kill {prometheus.pid} && rm -r {story.folder}")


def prepare(story: Story) -> tuple[Path, str]:
    """A copy of the manifest with the seed in it; its path and the job's name. Exits when the manifest is wrong."""
    data, job = read_job(str(story.file))
    if job.spec.stages[0].rl is not None or all(stage.rl is None for stage in job.spec.stages):
        fail(
            os.EX_DATAERR,
            f"{story.file}: the demo compares before and after rl, so an sft stage must come before an rl one",
        )
    data["spec"]["seed"] = story.seed
    path = story.folder / story.file.name
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path, data["metadata"]["name"]


def follow(story: Story, cluster: Cluster, name: str, spec: Spec) -> dict[str, Any]:
    """Watches the job to its end and strikes as scheduled. Returns the job as last seen; DemoError on a time-out."""
    schedule = disturbances.schedule(spec, story.preemptions, story.seed)
    leader = Leader(cluster, NAMESPACE, name)
    deadline = time.monotonic() + story.timeout
    job: dict[str, Any] = {}
    story.board.header()
    with Watcher(cluster, NAMESPACE, name) as watcher:
        while time.monotonic() < deadline:
            seen = watcher.next(timeout=0.1)
            if seen is not None and seen.kind == "event":
                story.board.event(seen.data)
            elif seen is not None:
                job = seen.data
                story.board.job(job)
                if job.get("status", {}).get("finishedTime"):
                    drain_events(watcher, story.board)
                    return job
            status = job.get("status", {})
            attempt = status.get("attempt", {}).get("number")
            if attempt and (unrecovered(story) or len(story.strikes) < len(schedule)) and recorded(story, status):
                disturb(story, cluster, schedule, leader, attempt)
    raise DemoError(f"{name} had not ended after {story.timeout} s: {last_words(job)}")


def drain_events(watcher: Watcher, board: Board) -> None:
    """Events are written after the status, so the last ones are still on their way."""
    while (seen := watcher.next(timeout=0.5)) is not None:
        if seen.kind == "event":
            board.event(seen.data)


def recorded(story: Story, status: dict[str, Any]) -> bool:
    """Whether status holds all parts of the last recovery; the next strike waits for them."""
    if not story.strikes or unrecovered(story):
        return True
    records = {record["number"]: record for record in status.get("attempts", [])}
    return "total" in records.get(story.strikes[-1]["attempt"], {}).get("recovery", {})


def unrecovered(story: Story) -> bool:
    return bool(story.strikes) and "recovered" not in story.strikes[-1]


def disturb(
    story: Story, cluster: Cluster, schedule: list[disturbances.Disturbance], leader: Leader, attempt: int
) -> None:
    """Notes a recovery from the last strike, or strikes if the next one is due."""
    progress = leader.progress(attempt)
    if progress is None:
        return
    if unrecovered(story):
        last = story.strikes[-1]
        if attempt > last["attempt"] and progress["startStep"] is not None and progress["step"] > progress["startStep"]:
            last["recovered"] = time.monotonic()
            last["seconds"] = last["recovered"] - last["at"]
            story.board.say(
                f"  recovered: a new step {last['seconds']:.1f} s after the {last['kind']} loss", fg="green"
            )
        return
    due = schedule[len(story.strikes)]
    if progress["step"] < due.step or (due.during and progress["phase"] != due.during):
        return
    nodes = sorted(n["name"] for n in cluster.nodes() if any(p.startswith(f"{NAMESPACE}/") for p in n["pods"]))
    if not nodes:
        return
    node = nodes[due.host % len(nodes)]
    at = time.monotonic()
    cluster.preempt(node, abrupt=due.kind == "abrupt")
    committed = progress["checkpoint"]["step"] if progress.get("checkpoint") else 0
    story.strikes.append(
        {"kind": due.kind, "attempt": attempt, "at": at, "step": progress["step"], "committed": committed}
    )
    how = "15 s of notice" if due.kind == "graceful" else "no notice"
    story.board.say(
        f"  node {node} is taken away with {how}, at step {progress['step']} ({progress['phase']})", fg="red"
    )


def last_words(job: dict[str, Any]) -> str:
    """The conditions of a job, for an error message."""
    conditions = job.get("status", {}).get("conditions", [])
    return (
        "; ".join(f"{c['type']}={c['status']} {c['reason']}: {c.get('message', '')}" for c in conditions) or "no status"
    )


def show(story: Story, figures: dict[str, Any], points: list[tuple[int, float]]) -> None:
    """The learning curve, the table of recoveries, and the proof."""
    marks = [(strike["step"], "▲" if strike["kind"] == "graceful" else "✕") for strike in story.strikes]
    marks += [(stage["startStep"] + 1, "│") for stage in figures["stages"][1:]]
    click.echo("\nTraining accuracy by step (│ stage begins, ▲ node lost with notice, ✕ without):\n")
    click.echo(draw(points, marks))
    if figures["recoveries"]:
        click.echo("\nRecoveries, seconds:\n")
        click.echo("  kind      steps lost   total " + "".join(part.rjust(8) for part in proof.PARTS))
        for row, strike in zip(figures["recoveries"], story.strikes, strict=True):
            cells = "".join("      --" if row[part] is None else f"{row[part]:8.2f}" for part in proof.PARTS)
            click.echo(f"  {row['kind']:9} {row['stepsLost']:10}  {strike['seconds']:6.2f} {cells}")
    accuracy = figures["accuracy"]
    same = figures["weightsSha256"] == figures["undisturbedSha256"]
    click.echo(f"\n  accuracy      {accuracy['start']:.3f} -> {accuracy['end']:.3f}")
    lost = f"preemptions {figures['preemptions']}, steps lost {figures['stepsLost']}"
    click.echo(f"  attempts      {figures['attempts']}, {lost}")
    click.echo(f"  weights       {figures['weightsSha256']}")
    click.echo(f"  undisturbed   {figures['undisturbedSha256']}")
    verdict = "equal, bit for bit: nothing was lost" if same else "DIFFERENT: something was lost"
    click.echo("  " + click.style(verdict, fg="green" if same else "red", bold=True) + "\n")
