"""What a manifest may say of drift: `rl.kl`, a penalty on it, and `rl.reference`, what it is measured from.

Decides names, bounds and which of them go together. Either may come with a preset; given, it replaces all of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ratchet_api.base import METRIC_PATTERN, ApiModel, Decimal, PositiveDecimal, Rule, as_whole
from ratchet_api.presets import PRESETS

if TYPE_CHECKING:
    from ratchet_api.stages import Rl

PLATEAU_METRIC, PATIENCE = "train/accuracy", 100
"""What kind plateau watches where nothing is said: ours, as the paper resets by hand."""


class Kl(ApiModel):
    """A penalty on drift from the reference."""

    rules: ClassVar = (
        Rule(
            "self.estimator != 'k1' || self.__in__ != 'loss'",
            "k1 in the loss moves nothing, its expected gradient is zero; use estimator k2 or k3, or in: reward",
            lambda k: (k.estimator, k.in_) != ("k1", "loss"),
            ".estimator",
        ),
    )
    estimator: Literal["k1", "k2", "k3"] = Field(
        default="k3",
        description="With u = reference / policy at a sampled token. k1: -log u, for rewards; k2: (log u)^2 / 2, whose "
        "gradient is that of KL(policy || reference); k3: u - log u - 1, whose gradient is that of "
        "KL(reference || policy).",
    )
    in_: Literal["loss", "reward"] = Field(
        default="loss", alias="in", description="Whether it is a term of the loss, or comes off the rewards."
    )
    coefficient: PositiveDecimal = Field(description="Weight of the penalty.")
    clamp: PositiveDecimal | None = Field(
        default=None, description="Largest size of an estimate at a token; absent: 10 for k3, no limit for k1 and k2."
    )


class Reference(ApiModel):
    """What drift is measured against."""

    rules: ClassVar = (
        Rule(
            "has(self.everySteps) == (self.kind == 'scheduled')",
            "everySteps belongs to kind scheduled, and kind scheduled needs it",
            lambda r: (r.every_steps is not None) == (r.kind == "scheduled"),
            ".everySteps",
        ),
        Rule(
            "!has(self.optimizer) || self.kind in ['scheduled', 'plateau']",
            "optimizer belongs to kind scheduled and to kind plateau; leave it out",
            lambda r: r.optimizer is None or r.kind in ("scheduled", "plateau"),
            ".optimizer",
        ),
        Rule(
            "self.kind == 'plateau' || (!has(self.metric) && !has(self.patience) && !has(self.minDelta))",
            "metric, patience and minDelta belong to kind plateau; take that kind, or leave them out",
            lambda r: r.kind == "plateau" or (r.metric, r.patience, r.min_delta) == (None, None, None),
        ),
    )
    kind: Literal["none", "frozen", "scheduled", "plateau"] = Field(
        description="none: nothing; frozen: the weights that the stage begins with, for as long as it lasts; "
        "scheduled: those, and every so many steps the weights of then; plateau: those, and when a metric no longer "
        "rises the weights of then (arXiv 2505.24864)."
    )
    every_steps: Annotated[int, Field(ge=1, le=100_000_000), BeforeValidator(as_whole)] | None = Field(
        default=None, description="Steps of the stage between two resets, kind scheduled."
    )
    optimizer: Literal["keep", "reset"] | None = Field(
        default=None,
        description="Whether the optimizer's moments start afresh at a reset, kinds scheduled and plateau; absent: "
        "they are kept.",
    )
    metric: Annotated[str, Field(max_length=128, pattern=METRIC_PATTERN)] | None = Field(
        default=None,
        description="Metric that must rise, kind plateau: one of the stage, of an evaluation "
        "(evaluation/NAME/accuracy) or of a reward's part (reward/NAME). Absent: train/accuracy.",
    )
    patience: Annotated[int, Field(ge=1, le=1_000_000), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="The reference is renewed after so many values in a row none of which is better than the best "
        "since the last reset, kind plateau; absent: 100.",
    )
    min_delta: Decimal | None = Field(
        default=None, description="A value is better if it is above by more than this, kind plateau; absent: 0."
    )


def kl(rl: Rl) -> Kl | None:
    """The penalty on drift that a stage has, its own or its preset's."""
    preset = PRESETS[rl.method].kl
    return rl.kl or (None if preset is None else Kl.model_validate(dict(preset)))


def reference(rl: Rl) -> Reference:
    """The reference that a stage has, its own or its preset's; a penalty on drift brings a frozen one along."""
    preset = PRESETS[rl.method].reference
    usual = {"kind": "none" if kl(rl) is None else "frozen"}
    return rl.reference or Reference.model_validate(dict(preset or usual))


def has_reference(rl: Rl) -> bool:
    """Whether drift is measured."""
    return reference(rl).kind != "none"


def plateau(rl: Rl) -> tuple[str, int, float]:
    """Of a reference of kind plateau: metric (its name may be short), patience and minDelta."""
    own = reference(rl)
    return own.metric or PLATEAU_METRIC, own.patience or PATIENCE, float(own.min_delta or "0")


def _brings_cel(column: str) -> str:
    """Whether the preset of a stage has anything in a column, in CEL, given where the Rl is."""
    return f"{{0}}.method in {[name for name, preset in PRESETS.items() if getattr(preset, column) is not None]!r}"


# In CEL, given where the Rl is.
KL_CEL = f"(has({{0}}.kl) || {_brings_cel('kl')})"
REFERENCE_CEL = f"(has({{0}}.reference) ? {{0}}.reference.kind != 'none' : ({KL_CEL} || {_brings_cel('reference')}))"

RULES = (
    Rule(
        f"!{KL_CEL.format('self')} || !has(self.reference) || self.reference.kind != 'none'",
        "kl, which methods prorl and prorl-v2 bring along, measures drift from a reference; leave reference out or "
        "take kind frozen or scheduled, or leave kl out and take another method",
        lambda rl: kl(rl) is None or has_reference(rl),
        ".kl",
    ),
)
