"""What a manifest may say of a method: `rl.method` and the parts of its preset that a stage replaces.

Decides names, bounds and which choices go together. What a preset is made of is in `presets`; an absent field means the
preset's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ratchet_api import drift, sampled_values
from ratchet_api.base import DECIMAL_PATTERN, ApiModel, PositiveDecimal, Rule, as_decimal, refuse
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
    vine: sampled_values.Vine | None = Field(default=None, description="How values are sampled, estimator vine.")


def surrogate(rl: Rl) -> str:
    """The surrogate that a stage has, its preset's or its own."""
    return rl.objective.surrogate or PRESETS[rl.method].surrogate


def estimator(rl: Rl) -> str:
    """The advantage estimator that a stage has, its preset's or its own."""
    return rl.advantage.estimator or PRESETS[rl.method].advantage


def has_critic(rl: Rl) -> bool:
    """Whether values are learned."""
    return estimator(rl) == "gae"


def samples_values(rl: Rl) -> bool:
    """Whether values are sampled."""
    return estimator(rl) == "vine"


def _has_cel(column: str, value: str) -> str:
    """Whether the preset of a stage has a value in a column, in CEL, given where the Rl is."""
    names = [name for name, preset in PRESETS.items() if getattr(preset, column) == value]
    return f"{{0}}.method in {names!r}"


def preset_cel(column: str, usual: str) -> str:
    """What the preset of a stage has in a column, in CEL, given where the Rl is; `usual`: what most have."""
    found = f"'{usual}'"
    for value in sorted({getattr(preset, column) for preset in PRESETS.values()} - {usual}):
        found = f"({_has_cel(column, value)} ? '{value}' : {found})"
    return found


def kind_cel(part: str, usual: str) -> str:
    """The kind of a part of a stage, such as its selection, in CEL, given where the Rl is; `usual`: what most have."""
    own = f"{{0}}.{part}"
    return f"(has({own}) && has({own}.kind) ? {own}.kind : {preset_cel(part, usual)})"


def rules_of_kinds(
    part: str, knobs: Sequence[tuple[str, str, str]], cel: str, kind: Callable[[Rl], str]
) -> tuple[Rule, ...]:
    """Rules by which a knob of a part of rl goes with its own kind alone. `knobs`: name here and in the manifest, and
    the kind; `cel` and `kind`: the kind that a stage has, as of `kind_cel`."""
    return tuple(
        Rule(
            f"!has(self.{part}) || !has(self.{part}.{name}) || {cel.format('self')} == '{owner}'",
            f"{part}.{name} belongs to {part}.kind {owner}; take that kind, or leave it out",
            lambda rl, field=field, owner=owner: (  # type: ignore[misc]
                getattr(getattr(rl, part), field, None) is None or kind(rl) == owner
            ),
            f".{part}",
        )
        for field, name, owner in knobs
    )


def estimator_cel(value: str) -> str:
    """Whether a stage has this advantage estimator, in CEL, given where the Rl is."""
    own = "{0}.advantage.estimator"
    return f"(has({own}) ? {own} == '{value}' : {_has_cel('advantage', value)})"


# The same in CEL, given where the Rl is.
SURROGATE_CEL = (
    "(has({0}.objective.surrogate) ? {0}.objective.surrogate : " + preset_cel("surrogate", usual="ppo") + ")"
)
CRITIC_CEL = estimator_cel("gae")

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
        lambda rl: not samples_values(rl) or (penalty := drift.kl(rl)) is None or penalty.in_ != "reward",
        ".kl",
    ),
    Rule(
        f"self.groupSize >= 2 || {CRITIC_CEL.format('self')}",
        "a group of one has nothing to be compared with; use groupSize 2 or more, or advantage.estimator gae "
        "(method ppo)",
        lambda rl: rl.group_size >= 2 or has_critic(rl),
        ".groupSize",
    ),
    *drift.RULES,
)
