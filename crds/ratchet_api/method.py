"""What a manifest may say of a method: `rl.method` and the parts of its preset that a stage replaces.

Decides names, bounds and which choices go together. What a preset is made of is in `presets`; an absent field means the
preset's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ratchet_api.base import (
    DECIMAL_PATTERN,
    METRIC_PATTERN,
    ApiModel,
    Decimal,
    PositiveDecimal,
    Rule,
    as_decimal,
    as_whole,
    refuse,
)
from ratchet_api.presets import PRESETS

if TYPE_CHECKING:
    from ratchet_api.stages import Rl

MethodName = Literal[
    "grpo",
    "dr-grpo",
    "dapo",
    "scaf-grpo",
    "template-rl",
    "gspo",
    "cispo",
    "rloo",
    "reinforce++-baseline",
    "ppo",
    "vineppo",
    "sfl",
    "lilo",
    "srpo",
    "sgpo",
    "prorl",
    "prorl-v2",
]
METHOD_TEXT = (
    "The algorithm, a preset that objective, advantage, kl and reference change in parts. "
    "grpo: group-relative advantages over their deviation (arXiv 2402.03300). "
    "dr-grpo: without deviation and length bias (arXiv 2503.20783). "
    "dapo: a wider clip upwards, all tokens alike, prompts that teach nothing replaced by others (arXiv 2503.14476). "
    "scaf-grpo: grpo with hints for prompts that fail whole (arXiv 2510.19807). "
    "template-rl: grpo whose responses to a prompt are shared out among templates (arXiv 2505.15692). "
    "gspo: ratio of whole responses (arXiv 2507.18071). "
    "cispo: clipped importance weights (arXiv 2506.13585). "
    "rloo: the others' mean as baseline (arXiv 2402.14740). "
    "reinforce++-baseline: group mean, then whitened over the batch (arXiv 2501.03262). "
    "ppo: a critic and generalized advantage estimation (arXiv 1707.06347, 1506.02438). "
    "vineppo: values of each step of a response, sampled instead of learned (arXiv 2410.01679). "
    "sfl: ppo on prompts of middling difficulty, kept in a buffer (arXiv 2502.12272v1). "
    "lilo: ppo on the most learnable prompts of each step (arXiv 2502.12272v6). "
    "srpo: grpo over all tokens, without prompts that are solved, cut responses earning nothing (arXiv 2504.14286). "
    "sgpo: grpo with a reward for the right steps of wrong responses (arXiv 2505.11595). "
    "prorl: grpo with a wide clip and a drift term, whose reference is renewed when the metric no longer rises "
    "(arXiv 2505.24864). "
    "prorl-v2: reinforce++-baseline with the same, the optimizer going on."
)

PLATEAU_METRIC, PATIENCE = "train/accuracy", 100
"""What kind plateau watches where nothing is said: ours, as the paper resets by hand."""

STEPS, STEP_TOKENS, CONTINUATIONS, MAX_STEPS = "lines", 32, 9, 16
"""Of estimator vine: lines and 9 are arXiv 2410.01679's, the other two ours."""

Share = Annotated[
    str,
    Field(
        pattern=DECIMAL_PATTERN,
        max_length=32,
        json_schema_extra={
            "x-kubernetes-validations": [
                {"rule": "double(self) >= 0.0 && double(self) <= 1.0", "message": "must be between 0 and 1"}
            ]
        },
    ),
    AfterValidator(lambda s: s if 0 <= float(s) <= 1 else refuse("must be between 0 and 1")),
    BeforeValidator(as_decimal),
]


class Objective(ApiModel):
    """How the policy is moved: sum of sg(weight x importance) x (sg(advantage) x gradient). Absent: the preset's."""

    rules: ClassVar = (
        Rule(
            "!has(self.dualClip) || double(self.dualClip) > 1.0",
            "dualClip bounds the ratio from above, so it must be greater than 1; 3 is usual",
            lambda o: o.dual_clip is None or float(o.dual_clip) > 1,
            ".dualClip",
        ),
    )
    surrogate: Literal["ppo", "gspo", "cispo"] | None = Field(
        default=None,
        description="ppo: the clipped ratio of each token; gspo: of the whole response; cispo: each token's gradient, "
        "weighed by its clipped ratio, so that none is lost.",
    )
    aggregation: (
        Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"] | None
    ) = Field(
        default=None,
        description="How tokens share in the loss. token-mean: all alike; seq-mean-token-mean: all responses "
        "alike; seq-mean-token-sum: by length; seq-mean-token-sum-norm: the sum of all tokens over "
        "maxResponseTokens (it grows with the number of responses, and so does the gradient before clipNorm).",
    )
    clip_low: PositiveDecimal | None = Field(default=None, description="The ratio is clipped below 1 - clipLow.")
    clip_high: PositiveDecimal | None = Field(
        default=None,
        description="The ratio is clipped above 1 + clipHigh; for cispo, too (elsewhere its bound is given itself: "
        "5.0 there is 4.0 here).",
    )
    dual_clip: PositiveDecimal | None = Field(
        default=None,
        description="For negative advantages, the ratio counts as at most this (arXiv 1912.09729); absent: no bound.",
    )
    importance_cap: PositiveDecimal | None = Field(
        default=None,
        description="Weighs tokens by min(old / sampled probability, this), where sampler and trainer differ; "
        "absent: no such weight.",
    )
    entropy: PositiveDecimal | None = Field(
        default=None, description="Coefficient of a bonus for the policy's entropy in nats; absent: none."
    )


class Vine(ApiModel):
    """How values are sampled, estimator vine (VinePPO, arXiv 2410.01679)."""

    rules: ClassVar = (
        Rule(
            "!has(self.stepTokens) || (has(self.steps) && self.steps == 'tokens')",
            "stepTokens belongs to steps: tokens; take these, or leave it out",
            lambda v: v.step_tokens is None or v.steps == "tokens",
            ".stepTokens",
        ),
    )
    steps: Literal["lines", "sentences", "tokens"] | None = Field(
        default=None,
        description="What a step of a response is. lines: a line of text; sentences: a sentence, or a line that has "
        "none; tokens: so many tokens. Absent: lines.",
    )
    step_tokens: Annotated[int, Field(ge=1, le=131_072), BeforeValidator(as_whole)] | None = Field(
        default=None, description="Tokens of a step, with steps tokens; absent: 32."
    )
    continuations: Annotated[int, Field(ge=1, le=1024), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="Continuations that are sampled and verified from the beginning of each step, never trained on; "
        "absent: 9.",
    )
    max_steps: Annotated[int, Field(ge=1, le=4096), BeforeValidator(as_whole)] | None = Field(
        default=None,
        description="Steps of a response at most. Of more, neighbours are merged, as many into each one. Absent: 16.",
    )


class Advantage(ApiModel):
    """Which tokens earn a reward. Absent: the preset's."""

    estimator: Literal["mean-std", "mean", "leave-one-out", "batch-whitened", "gae", "vine"] | None = Field(
        default=None,
        description="mean-std: reward minus group mean, over the group's deviation; mean: without the deviation; "
        "leave-one-out: minus the mean of the others; batch-whitened: mean, then whitened over all tokens of the "
        "batch; gae: a critic's generalized advantages; vine: by how much a step raised the expected reward, which is "
        "sampled, whitened over all tokens of the batch.",
    )
    cut: Literal["keep", "mask"] | None = Field(
        default=None,
        description="What the tokens of a response earn that maxResponseTokens cut. keep: as any other's; mask: "
        "nothing, though the response counts in its group's statistics and its tokens in the loss's denominator. "
        "Absent: the preset's.",
    )
    delta: PositiveDecimal | None = Field(
        default=None, description="Added to the group's deviation, estimator mean-std; absent: 1e-6."
    )
    gamma: Share | None = Field(default=None, description="Discount a token, estimator gae; absent: 1.")
    lambda_: Share | None = Field(
        default=None,
        alias="lambda",
        description="Weight of later tokens' surprises, estimator gae; absent: 1 (reward minus value).",
    )
    value_clip: PositiveDecimal | None = Field(
        default=None, description="A value moves at most so far in a step's loss, estimator gae; absent: 0.2."
    )
    critic_learning_rate: PositiveDecimal | None = Field(
        default=None, description="Peak learning rate of the critic, estimator gae; absent: optimizer.learningRate."
    )
    vine: Vine | None = Field(default=None, description="How values are sampled, estimator vine.")


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


def surrogate(rl: Rl) -> str:
    """The surrogate that a stage has, its preset's or its own."""
    return rl.objective.surrogate or PRESETS[rl.method].surrogate


def estimator(rl: Rl) -> str:
    """The advantage estimator that a stage has, its preset's or its own."""
    return rl.advantage.estimator or PRESETS[rl.method].advantage


def has_critic(rl: Rl) -> bool:
    """Whether values are learned."""
    return estimator(rl) == "gae"


def kl(rl: Rl) -> Kl | None:
    """The penalty on drift that a stage has, its own or its preset's."""
    preset = PRESETS[rl.method].kl
    return rl.kl or (None if preset is None else Kl.model_validate(dict(preset)))


def reference(rl: Rl) -> Reference:
    """The reference that a stage has, its own or its preset's; a penalty on drift brings a frozen one along."""
    preset = PRESETS[rl.method].reference
    usual = {"kind": "none" if kl(rl) is None else "frozen"}
    return rl.reference or Reference.model_validate(dict(preset or usual))


@dataclass(frozen=True)
class Values:
    """How values are sampled: `Vine` with its defaults. `most_steps`: that a response can have; `states`: beginnings of
    steps that a step of the run asks for at most, those of a prompt's responses being one."""

    steps: str
    step_tokens: int
    continuations: int
    most_steps: int
    states: int


def vine(rl: Rl) -> Values:
    """How a stage with estimator vine samples values."""
    own = rl.advantage.vine or Vine()
    kind, size = own.steps or STEPS, own.step_tokens or STEP_TOKENS
    fit = -(-rl.max_response_tokens // size) if kind == "tokens" else rl.max_response_tokens
    most = min(own.max_steps or MAX_STEPS, fit)
    states = rl.prompts_per_step * (1 + rl.group_size * (most - 1))
    return Values(kind, size, own.continuations or CONTINUATIONS, most, states)


def samples_values(rl: Rl) -> bool:
    """Whether values are sampled."""
    return estimator(rl) == "vine"


def has_reference(rl: Rl) -> bool:
    """Whether drift is measured."""
    return reference(rl).kind != "none"


def plateau(rl: Rl) -> tuple[str, int, float]:
    """Of a reference of kind plateau: metric (its name may be short), patience and minDelta."""
    own = reference(rl)
    return own.metric or PLATEAU_METRIC, own.patience or PATIENCE, float(own.min_delta or "0")


def _has_cel(column: str, value: str) -> str:
    """Whether the preset of a stage has a value in a column, in CEL, given where the Rl is."""
    names = [name for name, preset in PRESETS.items() if getattr(preset, column) == value]
    return f"{{0}}.method in {names!r}"


def _brings_cel(column: str) -> str:
    """Whether the preset of a stage has anything in a column, in CEL, given where the Rl is."""
    return f"{{0}}.method in {[name for name, preset in PRESETS.items() if getattr(preset, column) is not None]!r}"


def preset_cel(column: str, usual: str) -> str:
    """What the preset of a stage has in a column, in CEL, given where the Rl is; `usual`: what most have."""
    found = f"'{usual}'"
    for value in sorted({getattr(preset, column) for preset in PRESETS.values()} - {usual}):
        found = f"({_has_cel(column, value)} ? '{value}' : {found})"
    return found


def estimator_cel(value: str) -> str:
    """Whether a stage has this advantage estimator, in CEL, given where the Rl is."""
    own = "{0}.advantage.estimator"
    return f"(has({own}) ? {own} == '{value}' : {_has_cel('advantage', value)})"


# The same in CEL, given where the Rl is.
SURROGATE_CEL = (
    "(has({0}.objective.surrogate) ? {0}.objective.surrogate : " + preset_cel("surrogate", usual="ppo") + ")"
)
CRITIC_CEL = estimator_cel("gae")
KL_CEL = f"(has({{0}}.kl) || {_brings_cel('kl')})"
REFERENCE_CEL = f"(has({{0}}.reference) ? {{0}}.reference.kind != 'none' : ({KL_CEL} || {_brings_cel('reference')}))"

RULES = (
    Rule(
        f"{SURROGATE_CEL.format('self')} != 'gspo' || !has(self.objective.aggregation) || "
        "self.objective.aggregation == 'seq-mean-token-mean'",
        "the ratio of a whole response (gspo) is right with aggregation seq-mean-token-mean only; leave "
        "objective.aggregation out, or take surrogate ppo or cispo",
        lambda rl: surrogate(rl) != "gspo" or rl.objective.aggregation in (None, "seq-mean-token-mean"),
        ".objective",
    ),
    Rule(
        f"!has(self.objective.dualClip) || {SURROGATE_CEL.format('self')} == 'ppo'",
        "objective.dualClip belongs to surrogate ppo; leave it out with gspo and cispo",
        lambda rl: rl.objective.dual_clip is None or surrogate(rl) == "ppo",
        ".objective",
    ),
    Rule(
        f"{CRITIC_CEL.format('self')} || (!has(self.advantage.gamma) && !has(self.advantage.lambda) && "
        "!has(self.advantage.valueClip) && !has(self.advantage.criticLearningRate))",
        "advantage.gamma, lambda, valueClip and criticLearningRate belong to a critic; take "
        "advantage.estimator gae (method ppo), or leave them out",
        lambda rl: (
            has_critic(rl)
            or not any(getattr(rl.advantage, n) for n in ("gamma", "lambda_", "value_clip", "critic_learning_rate"))
        ),
        ".advantage",
    ),
    Rule(
        f"!has(self.advantage.delta) || {estimator_cel('mean-std').format('self')}",
        "advantage.delta belongs to advantage.estimator mean-std; leave it out",
        lambda rl: rl.advantage.delta is None or estimator(rl) == "mean-std",
        ".advantage",
    ),
    Rule(
        f"!has(self.advantage.vine) || {estimator_cel('vine').format('self')}",
        "advantage.vine belongs to advantage.estimator vine (method vineppo); take that, or leave it out",
        lambda rl: rl.advantage.vine is None or samples_values(rl),
        ".advantage",
    ),
    Rule(
        f"!{estimator_cel('vine').format('self')} || !has(self.kl) || self.kl.__in__ != 'reward'",
        "advantage.estimator vine compares rewards of responses with those of continuations, whose drift is not "
        "measured; take kl {in: loss}",
        lambda rl: not samples_values(rl) or (drift := kl(rl)) is None or drift.in_ != "reward",
        ".kl",
    ),
    Rule(
        f"self.groupSize >= 2 || {CRITIC_CEL.format('self')}",
        "a group of one has nothing to be compared with; use groupSize 2 or more, or advantage.estimator gae "
        "(method ppo)",
        lambda rl: rl.group_size >= 2 or has_critic(rl),
        ".groupSize",
    ),
    Rule(
        f"!{KL_CEL.format('self')} || !has(self.reference) || self.reference.kind != 'none'",
        "kl, which methods prorl and prorl-v2 bring along, measures drift from a reference; leave reference out or "
        "take kind frozen or scheduled, or leave kl out and take another method",
        lambda rl: kl(rl) is None or has_reference(rl),
        ".kl",
    ),
)
