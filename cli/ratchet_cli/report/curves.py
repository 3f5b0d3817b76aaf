"""Which curves the page has: the metrics of each, and what to say where a run does not report them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ratchet_cli.report.folder_files import Step
from ratchet_cli.report.learned import PREFIX

Series = tuple[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Curve:
    """One picture. `series`: names and points."""

    title: str
    unit: str
    series: list[Series]
    absent: str = ""
    """Why there is none, where there is none."""
    dots: bool = False
    """Few points that are each worth a dot: evaluations."""


RL = "no step of reinforcement learning was committed"
TABLE: Sequence[tuple[str, str, tuple[str, ...], str]] = (
    # title, unit, metrics, what is said where none is reported
    ("Reward", "mean of a step's first rollouts", ("train/reward",), RL),
    ("Accuracy", "share of first rollouts that are right", ("train/accuracy",), RL),
    ("Groups that teach", "share of groups", ("train/informative", "train/unsolved", "train/solved"), RL),
    ("Entropy", "nats a token", ("train/entropy",), RL),
    (
        "Drift from the reference (KL)",
        "nats a token",
        ("train/kl",),
        "not reported: no stage has a reference (rl.kl or rl.reference)",
    ),
    ("Response length", "tokens", ("train/response_tokens",), RL),
    ("Responses cut or not readable", "share of rollouts", ("train/truncated", "train/unparsable"), RL),
    ("Clipped tokens", "share of trained tokens", ("train/clip_fraction_low", "train/clip_fraction_high"), RL),
    ("Loss", "each stage has its own scale", ("train/loss",), "no step was committed"),
)


def curves_of(steps: Sequence[Step], timings: Sequence[tuple[int, float]]) -> list[Curve]:
    """All curves in the order of the page."""
    found = [
        Curve(title, unit, _series(steps, names, lambda name: name.removeprefix("train/").replace("_", " ")), absent)
        for title, unit, names, absent in TABLE
    ]
    every = sorted({name for _, metrics in steps for name in metrics})
    evaluated = [n for n in every if n.startswith(PREFIX) and (n.endswith("/accuracy") or "/pass_at_" in n)]
    evaluated = [n for n in evaluated if not n.endswith("/pass_at_1")]  # the accuracy
    found.insert(
        2,
        Curve(
            "Evaluations",
            "share of held-out items",
            _series(steps, evaluated, lambda n: n.removeprefix(PREFIX).replace("pass_at_", "pass@")),
            "none: the manifest has no evaluations, or none was due yet",
            dots=True,
        ),
    )
    parts = [name for name in every if name.startswith("reward/")]
    if len(parts) > 1:
        found.insert(
            1, Curve("Parts of the reward", "mean", _series(steps, parts, lambda n: n.removeprefix("reward/")))
        )
    values = [name for name in ("train/value_loss",) if name in every]
    if values:
        found.append(Curve("Loss of the critic", "", _series(steps, values, lambda n: "value loss")))
    speed = [("tokens a second", list(timings))] if timings else []
    found.append(Curve("Speed", "tokens sampled or trained a second", speed, "no timings were kept"))
    return found


def _series(steps: Sequence[Step], names: Sequence[str], shown: Callable[[str], str]) -> list[Series]:
    found = []
    for name in names:
        points = [(step, metrics[name]) for step, metrics in steps if name in metrics]
        if points:
            found.append((shown(name), points))
    return found
